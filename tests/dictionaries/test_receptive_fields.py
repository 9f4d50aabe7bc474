"""Orientation selectivity and Gabor fits on fields whose answers are known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparsepriors.dictionaries import gabor_fit, orientation_selectivity


def gabor(angle: float, frequency: float, su: float, sv: float, phase: float, centre: tuple[float, float] = (6.2, 5.1),
          size: tuple[int, int] = (12, 14)) -> Tensor:
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in size), indexing="ij")
    dx, dy = x - centre[0], y - centre[1]
    u, v = dx * math.cos(angle) + dy * math.sin(angle), dy * math.cos(angle) - dx * math.sin(angle)
    return torch.exp(-u**2 / (2 * su**2) - v**2 / (2 * sv**2)) * torch.cos(2 * math.pi * frequency * u + phase)


@settings(max_examples=12)
@given(angle=st.floats(0.05, 3.1), frequency=st.floats(0.12, 0.3), su=st.floats(1.5, 2.8), sv=st.floats(1.5, 3.5),
       phase=st.floats(-3, 3), scale=st.floats(0.1, 10))
def test_a_gabor_function_is_its_own_fit(angle: float, frequency: float, su: float, sv: float, phase: float,
                                         scale: float) -> None:
    field = scale * gabor(angle, frequency, su, sv, phase)
    fit = gabor_fit(field[None])
    assert float(fit.explained[0]) > 0.999
    if frequency * su > 0.35:  # broader ones have several descriptions
        assert float(fit.frequency[0]) == pytest.approx(frequency, rel=0.05)
        turn = abs(float(fit.orientation[0]) - angle) % math.pi
        assert min(turn, math.pi - turn) < 0.05
        assert fit.widths[0].tolist() == pytest.approx([su, sv], rel=0.1)
        assert fit.centre[0].tolist() == pytest.approx([6.2, 5.1], abs=0.2)
        assert fit.cycles[0].tolist() == pytest.approx([su * frequency, sv * frequency], rel=0.12)


def explained_by_the_parameters(field: Tensor) -> float:
    """Written down again from what a fit returns; checked against what it says of itself."""
    fit = gabor_fit(field[None])
    a, b = fit.amplitudes[0].tolist()
    (su, sv), (cx, cy) = fit.widths[0].tolist(), fit.centre[0].tolist()
    model = math.hypot(a, b) * gabor(float(fit.orientation[0]), float(fit.frequency[0]), su, sv, -math.atan2(b, a),
                                     (cx, cy), (field.shape[0], field.shape[1]))
    found = 1 - float((field - model).square().sum() / field.square().sum())
    assert found == pytest.approx(float(fit.explained[0]), abs=1e-6)
    assert 0 <= float(fit.orientation[0]) <= math.pi
    return found


@settings(max_examples=8)
@given(seed=st.integers(0, 1000))
def test_the_parameters_describe_the_function_that_was_fitted(seed: int) -> None:
    field = torch.randn(12, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert 0 < explained_by_the_parameters(field) < 0.9


@pytest.mark.parametrize("angle", [0.0, 0.02, 3.12, math.pi])
@pytest.mark.parametrize("phase", [0.4, 1.2, -1.2])
def test_orientations_at_the_ends_of_their_range(angle: float, phase: float) -> None:
    assert explained_by_the_parameters(gabor(angle, 0.2, 2.0, 2.0, phase)) > 0.999


def test_selectivity_of_gratings_blobs_and_nothing() -> None:
    fields = torch.stack([gabor(0.7, 0.25, 4.0, 4.0, 0.3), gabor(0.7, 0.0, 1.2, 1.2, 0.0),
                          torch.zeros(12, 14, dtype=torch.float64)])
    grating, blob, nothing = orientation_selectivity(fields).tolist()
    assert grating > 0.85
    assert blob < 0.1
    assert nothing == 0
    crossed = gabor(0.7, 0.25, 4.0, 4.0, 0.3) + gabor(0.7 + math.pi / 2, 0.25, 4.0, 4.0, 0.3)
    assert float(orientation_selectivity(crossed[None])) < 0.25


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100))
def test_selectivity_does_not_change_with_scale_sign_and_transposition(seed: int, scale: float) -> None:
    field = torch.randn(1, 10, 10, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = orientation_selectivity(field)
    assert 0 <= float(found) <= 1
    for other in (scale * field, -field, field.mT):
        torch.testing.assert_close(orientation_selectivity(other), found)


def test_large_fields_and_empty_stacks() -> None:
    assert float(orientation_selectivity(gabor(0.5, 0.1, 8.0, 8.0, 0.0, (25, 20), (50, 40))[None])) > 0.8
    assert orientation_selectivity(torch.zeros(0, 8, 8)).shape == (0,)
    assert float(gabor_fit(torch.zeros(1, 8, 8)).explained) == 0


@pytest.mark.public_door
def test_bad_arguments_are_named() -> None:
    for call in (gabor_fit, orientation_selectivity):
        with pytest.raises(ValueError, match=r"fields must be real of shape \(n, height, width\)"):
            call(torch.zeros(8, 8))
        with pytest.raises(ValueError, match="fields holds NaN"):
            call(torch.full((1, 8, 8), torch.nan))
    with pytest.raises(ValueError, match="at least 4 x 4 pixels, got 3 x 8"):
        gabor_fit(torch.zeros(1, 3, 8))
