"""Spectra of masks against graphs whose spectra are known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.networks.sparse import ramanujan_gap, spectral_gap


@given(a=st.integers(2, 12), b=st.integers(2, 12))
def test_a_complete_graph_has_no_second_singular_value(a: int, b: int) -> None:
    mask = torch.ones(a, b, dtype=torch.bool)
    assert ramanujan_gap(mask) == pytest.approx(math.sqrt(a - 1) + math.sqrt(b - 1), abs=1e-6)
    assert spectral_gap(torch.full((a, b), -0.3), mask) == pytest.approx(1, abs=1e-6)


def test_the_points_and_lines_of_the_fano_plane_are_ramanujan() -> None:
    """Degree 3 on both sides; the singular values are 3 and sqrt(2), six times."""
    lines = [(0, 1, 2), (0, 3, 4), (0, 5, 6), (1, 3, 5), (1, 4, 6), (2, 3, 6), (2, 4, 5)]
    mask = torch.zeros(7, 7, dtype=torch.bool)
    for i, line in enumerate(lines):
        mask[i, list(line)] = True
    assert ramanujan_gap(mask) == pytest.approx(2 * math.sqrt(2) - math.sqrt(2))
    assert spectral_gap(torch.ones(7, 7), mask) == pytest.approx(1 - math.sqrt(2) / 3, abs=1e-6)


def test_a_graph_in_two_equal_parts_has_no_spectral_gap() -> None:
    mask = torch.block_diag(torch.ones(4, 4), torch.ones(4, 4)).bool()
    assert spectral_gap(torch.ones(8, 8), mask) == pytest.approx(0, abs=1e-9)
    assert ramanujan_gap(mask) == pytest.approx(2 * math.sqrt(3) - 4)


@given(seed=st.integers(0, 999))
def test_neither_order_nor_units_without_weights_matter(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    weight, mask = torch.rand(9, 4, 2, 2, generator=g) + 0.1, torch.rand(9, 4, 2, 2, generator=g) < 0.5
    rows = torch.randperm(9, generator=g)
    padded = torch.cat([mask, torch.zeros(3, 4, 2, 2, dtype=torch.bool)])
    assert ramanujan_gap(padded[torch.randperm(12, generator=g)]) == pytest.approx(ramanujan_gap(mask))
    assert spectral_gap(weight[rows], mask[rows]) == pytest.approx(spectral_gap(weight, mask))
    assert spectral_gap(-weight.flatten(1), mask.flatten(1)) == pytest.approx(spectral_gap(weight, mask))


@pytest.mark.public_door
def test_bad_masks_are_refused() -> None:
    with pytest.raises(TypeError, match="mask must be a boolean"):
        ramanujan_gap(torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"mask must have shape \(out, in"):
        ramanujan_gap(torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="at least one weight"):
        ramanujan_gap(torch.zeros(2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="weight's shape"):
        spectral_gap(torch.ones(2, 3), torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="not zero"):
        spectral_gap(torch.zeros(2, 2), torch.ones(2, 2, dtype=torch.bool))
