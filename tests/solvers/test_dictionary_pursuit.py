"""Matching pursuit in rows of a dictionary: its identities, its stops, and its gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparsepriors.solvers import dictionary_pursuit, matching_pursuit


def problem(seed: int, signals: int = 7, units: int = 12, d: int = 6) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    atoms = torch.randn(units, d, generator=g, dtype=torch.float64)
    return (torch.randn(signals, d, generator=g, dtype=torch.float64),
            atoms / atoms.norm(dim=1, keepdim=True))


def by_hand(x: Tensor, D: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """One signal after the other, as the paper states it."""
    codes, left = torch.zeros(len(x), len(D), dtype=x.dtype), x.clone()
    for i in range(len(x)):
        for _ in range(steps):
            c = (D @ left[i]).relu()
            j = int(c.argmax())
            codes[i, j] += c[j]
            left[i] = left[i] - c[j] * D[j]
    return codes, left


@given(st.integers(0, 10_000), st.integers(1, 30))
def test_it_is_the_pursuit_of_each_signal_on_its_own(seed: int, steps: int) -> None:
    x, D = problem(seed)
    found = matching_pursuit(x, D, steps)
    codes, left = by_hand(x, D, steps)
    torch.testing.assert_close(found.codes, codes)
    torch.testing.assert_close(found.residual, left)
    torch.testing.assert_close(x - found.codes @ D, found.residual)


@given(st.integers(0, 10_000), st.booleans(), st.booleans())
def test_the_gram_matrix_and_parts_change_nothing(seed: int, nonneg: bool, stop: bool) -> None:
    x, D = problem(seed, signals=12, units=40, d=30)
    found = []
    for largest, held in ((2**28, 2**24), (0, 100)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dictionary_pursuit, "_LARGEST_GRAM", largest)
            patch.setattr(dictionary_pursuit, "_GATHERED", held)
            atoms = D.clone().requires_grad_()
            path = matching_pursuit(x, atoms, 9, nonneg=nonneg, stop_on_repeat=stop, tol=2.0)
            path.residual.square().sum().backward()
            found.append((path.codes, path.residual, path.atoms, atoms.grad))
    torch.testing.assert_close(found[0], found[1])


@given(st.integers(0, 10_000), st.booleans())
def test_energy_is_split_and_each_residual_is_orthogonal_to_the_last_atom(seed: int, nonneg: bool) -> None:
    x, D = problem(seed)
    before = x
    for t in (1, 2, 3, 7, 8):
        found = matching_pursuit(x, D, t, nonneg=nonneg)
        energy = found.values.square().sum(dim=1) + found.residual.square().sum(dim=1)
        torch.testing.assert_close(energy, x.square().sum(dim=1))
        assert bool((found.residual.norm(dim=1) <= before.norm(dim=1) + 1e-12).all())
        took = found.steps == t
        if bool(took.any()):
            last = D[found.atoms[took, -1]]
            assert float((found.residual[took] * last).sum(dim=1).abs().max()) < 1e-12
        before = found.residual
    assert not nonneg or bool((found.codes >= 0).all())


def test_in_the_end_no_atom_helps() -> None:
    x, D = problem(3, units=8)
    for nonneg in (True, False):
        left = matching_pursuit(x, D, 3000, nonneg=nonneg).residual @ D.mT
        assert float((left if nonneg else left.abs()).max()) < 1e-5


@given(st.integers(0, 10_000))
def test_orthogonal_pursuit_fits_least_squares_on_its_support(seed: int) -> None:
    x, D = problem(seed)
    found = matching_pursuit(x, D, 4, orthogonal=True, nonneg=False)
    assert bool((found.steps == 4).all())
    for i in range(len(x)):
        chosen = D[found.atoms[i]]
        assert len(set(found.atoms[i].tolist())) == 4
        best = torch.linalg.lstsq(chosen.mT, x[i][:, None]).solution[:, 0]
        torch.testing.assert_close(found.values[i], best)
    torch.testing.assert_close(found.residual, x - found.codes @ D)
    plain = matching_pursuit(x, D, 4, nonneg=False)
    assert bool((found.atoms[:, :2] == plain.atoms[:, :2]).all())


def test_orthogonal_pursuit_ends_when_the_span_is_used_up() -> None:
    x, D = problem(0)
    found = matching_pursuit(x, torch.cat([D[:3], D[:3]]), 6, orthogonal=True, nonneg=False)
    assert bool((found.steps == 3).all())
    assert matching_pursuit(x, D, 50, orthogonal=True, nonneg=False).atoms.shape == (7, 6)


@pytest.mark.parametrize("orthogonal", [False, True])
@pytest.mark.parametrize("nonneg", [False, True])
def test_gradients_are_those_of_the_unrolled_loop(orthogonal: bool, nonneg: bool) -> None:
    x, D = problem(11, signals=3, units=5, d=3)
    x[2] = 0.03 * x[2]
    inputs = (x.requires_grad_(), D.requires_grad_())

    def outputs(x: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
        found = matching_pursuit(x, D, 3, tol=0.2, nonneg=nonneg, orthogonal=orthogonal)
        return found.codes, found.residual

    assert torch.autograd.gradcheck(outputs, inputs)
    assert torch.autograd.gradgradcheck(outputs, inputs)
    assert int(matching_pursuit(x, D, 3, tol=0.2).steps[2]) == 0


@given(st.integers(0, 10_000))
def test_a_signal_stops_with_its_first_repeated_atom(seed: int) -> None:
    x, D = problem(seed)
    found = matching_pursuit(x, D, 100, stop_on_repeat=True)
    for chosen, steps, left in zip(found.atoms.tolist(), found.steps.tolist(), found.residual, strict=True):
        assert len(set(chosen[:steps - 1])) == steps - 1
        assert chosen[steps - 1] in chosen[:steps - 1] or float((D @ left).max()) < 1e-12
        assert set(chosen[steps:]) <= {-1}


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.05, 1))
def test_a_signal_stops_as_soon_as_its_residual_is_short(seed: int, tol: float) -> None:
    x, D = problem(seed)
    x = torch.cat([x, 0.01 * x[:1], 0 * x[:1]])
    found = matching_pursuit(x, D, 40, tol=tol)
    assert found.steps[-2:].tolist() == [0, 0]
    for i, steps in enumerate(found.steps.tolist()):
        assert steps == 40 or float(found.residual[i].norm()) < tol or float((D @ found.residual[i]).max()) < 1e-12
        if steps > 1:
            assert float(matching_pursuit(x[i], D, steps - 1).residual.norm()) >= tol


def test_the_first_of_equal_atoms_is_taken_and_shapes_are_kept() -> None:
    D = torch.eye(3)[[0, 0, 1]]
    found = matching_pursuit(torch.ones(2, 5, 3), D, 2)
    assert found.codes.shape == (2, 5, 3)
    assert found.residual.shape == (2, 5, 3)
    assert found.atoms.unique().tolist() == [0, 2]
    assert matching_pursuit(torch.zeros(0, 3), D, 2).codes.shape == (0, 3)


@pytest.mark.public_door
@pytest.mark.parametrize(("changed", "error", "words"), [
    ({"steps": 0}, ValueError, "steps"), ({"steps": None}, ValueError, "no end"), ({"tol": -1.0}, ValueError, "tol"),
    ({"x": torch.ones(3, 5)}, ValueError, "x must have shape"), ({"x": torch.ones(3, 4).half()}, TypeError, "x must"),
    ({"x": torch.full((3, 4), torch.nan)}, ValueError, "NaN"), ({"dictionary": torch.zeros(2, 4)}, ValueError, "zeros"),
    ({"dictionary": torch.ones(4)}, ValueError, "dictionary must have shape"),
    ({"dictionary": torch.ones(2, 4).double()}, TypeError, "dictionary must be"),
])
def test_bad_arguments_are_named(changed: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        matching_pursuit(**({"x": torch.ones(3, 4), "dictionary": torch.eye(4), "steps": 2} | changed))
