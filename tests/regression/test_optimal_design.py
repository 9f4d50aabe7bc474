"""Optimal designs and spanners: the theorems that define them."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from sparsepriors.regression import barycentric_spanner, g_optimal_design, spanner_coefficients


def _features(seed: int, actions: int, dim: int, rank: int | None = None) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(actions, dim, generator=g, dtype=torch.float64)
    if rank is not None and rank < dim:
        x = x[:, :rank] @ torch.randn(rank, dim, generator=g, dtype=torch.float64)
    return x


SIZES = {"seed": st.integers(0, 1000), "actions": st.integers(8, 60), "dim": st.integers(1, 6),
         "rank": st.integers(1, 6)}


@settings(max_examples=60)
@given(**SIZES, tol=st.sampled_from([0.3, 0.01]))
def test_the_variance_is_that_of_kiefer_and_wolfowitz(seed: int, actions: int, dim: int, rank: int,
                                                      tol: float) -> None:
    x = _features(seed, actions, dim, rank)
    design = g_optimal_design(x, tol=tol)
    assert design.rank == min(dim, rank)
    assert float(design.weights.sum()) == pytest.approx(1)
    assert float(design.weights.min()) >= 0
    assert design.rank * (1 - 1e-6) <= design.variance <= design.rank * (1 + tol) * (1 + 1e-6)
    inverse = torch.linalg.pinv((x * design.weights[:, None]).mT @ x, hermitian=True, rtol=1e-10)
    torch.testing.assert_close(((x @ inverse) * x).sum(1).max(),
                               torch.tensor(design.variance, dtype=torch.float64), rtol=1e-5, atol=0)


def test_no_other_design_has_a_larger_determinant() -> None:
    x = _features(3, 40, 4)
    design = g_optimal_design(x, tol=1e-4)

    def log_det(w: Tensor) -> float:
        return float(torch.logdet((x * w[:, None]).mT @ x))

    best = log_det(design.weights)
    for i in range(50):
        other = torch.rand(40, generator=torch.Generator().manual_seed(i), dtype=torch.float64).pow(8)
        mixed = 0.9 * design.weights + 0.1 * other / other.sum()
        assert log_det(mixed) <= best + 4e-4   # log det is within rank * tol of its maximum
    assert len(design.core) <= 20


def test_unit_vectors_share_equally_and_a_long_run_of_updates_stays_exact() -> None:
    x = torch.cat([torch.eye(5), 0.5 * torch.eye(5)]).double()
    design = g_optimal_design(x)
    torch.testing.assert_close(design.weights[:5], torch.full((5,), 0.2, dtype=torch.float64))
    assert design.core.tolist() == [0, 1, 2, 3, 4]
    assert design.iterations == 0
    long = g_optimal_design(_features(0, 300, 8), tol=1e-5)
    assert long.iterations > 200
    assert long.variance <= 8 * (1 + 2e-5)
    stopped = g_optimal_design(_features(0, 300, 8), tol=1e-5, max_iter=3)
    assert stopped.iterations == 3
    assert stopped.variance > long.variance


@settings(max_examples=60)
@given(**SIZES, factor=st.sampled_from([1.05, 2.0]))
def test_every_action_is_a_bounded_combination_of_the_spanner(seed: int, actions: int, dim: int, rank: int,
                                                             factor: float) -> None:
    x = _features(seed, actions, dim, rank)
    spanner = barycentric_spanner(x, factor)
    assert int((spanner >= 0).sum()) == min(dim, rank)
    coefficients = spanner_coefficients(x, spanner)
    assert float(coefficients.abs().max()) <= factor
    real = spanner >= 0
    torch.testing.assert_close(coefficients[:, real] @ x[spanner[real]], x, atol=1e-8, rtol=1e-8)
    if not real.all():
        assert float(coefficients[:, ~real].abs().max()) < 1e-8


def test_a_batch_is_solved_set_by_set() -> None:
    sets = torch.stack([_features(i, 30, 3, rank) for i, rank in enumerate((3, 2, 3, 1))]).reshape(2, 2, 30, 3)
    together = barycentric_spanner(sets, 1.1)
    assert together.shape == (2, 2, 3)
    for i in range(2):
        for j in range(2):
            assert torch.equal(together[i, j], barycentric_spanner(sets[i, j], 1.1))
    torch.testing.assert_close(spanner_coefficients(sets, together)[1, 0],
                               spanner_coefficients(sets[1, 0], together[1, 0]))
    assert barycentric_spanner(torch.zeros(4, 2)).tolist() == [-1, -1]


@pytest.mark.public_door
def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"a matrix \(actions, dim\) with a nonzero entry"):
        g_optimal_design(torch.zeros(3, 2))
    with pytest.raises(TypeError, match="features must be real"):
        g_optimal_design(torch.ones(3, 2, dtype=torch.complex64))
    with pytest.raises(ValueError, match="tol must be finite and positive"):
        g_optimal_design(torch.ones(3, 2), tol=0.0)
    with pytest.raises(TypeError, match="features must be real"):
        barycentric_spanner(torch.ones(3, 2, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"features must have shape \(..., actions, dim\)"):
        barycentric_spanner(torch.ones(3))
    for factor in (1.0, math.nan):
        with pytest.raises(ValueError, match="factor must be more than 1"):
            barycentric_spanner(torch.ones(3, 2), factor)
    with pytest.raises(ValueError, match=r"spanner must have shape \(2,\), got \(3,\)"):
        spanner_coefficients(torch.ones(3, 2), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="spanner must hold indices from -1 to 2"):
        spanner_coefficients(torch.ones(3, 2), torch.tensor([0, 3]))
