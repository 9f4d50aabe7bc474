"""The duality gap bounds the distance to the optimum, and closes there."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsepriors.operators import Matrix
from sparsepriors.priors import L1, ElasticNet, Huber
from sparsepriors.solvers import duality_gap, proximal_gradient

PRIORS = {
    "l1": L1(1.5, dims=1),
    "scaled": 3.0 * L1(0.5, dims=1),
    "weights": L1(torch.linspace(0.5, 3.0, 8, dtype=torch.float64), dims=1),
    "elastic net": ElasticNet(1.0, 0.7, dims=1),
    "partly ridge": ElasticNet(1.0, torch.tensor([0.0, 1.0] * 4, dtype=torch.float64), dims=1),
}


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(sorted(PRIORS)),
       dtype=st.sampled_from([torch.float64, torch.complex128]))
def test_bounds_the_excess_everywhere_and_closes_at_the_optimum(seed: int, name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    A = Matrix(torch.randn(6, 8, dtype=dtype, generator=generator))
    y = 3 * torch.randn(3, 6, dtype=dtype, generator=generator)
    prior = PRIORS[name]
    best = proximal_gradient(A, y, prior, max_iter=50000, tol=1e-11).x

    def objective(x: torch.Tensor) -> torch.Tensor:
        return 0.5 * torch.linalg.vector_norm(A(x) - y, dim=-1) ** 2 + prior.value(x)

    low = objective(best)
    assert bool((duality_gap(A, y, prior, best) <= 1e-6 * low + 1e-9).all())
    for scale in (0.0, 1e-3, 0.1, 1.0):
        x = best + scale * torch.randn(best.shape, dtype=dtype, generator=generator)
        gap = duality_gap(A, y, prior, x)
        assert gap.shape == (3,)
        assert bool((objective(x) - low <= gap + 1e-9 * low).all())


@pytest.mark.public_door
def test_other_priors_are_refused() -> None:
    A, y = Matrix(torch.eye(3, dtype=torch.float64)), torch.ones(3, dtype=torch.float64)
    with pytest.raises(TypeError, match="known for L1 and ElasticNet, got Huber"):
        duality_gap(A, y, Huber(1.0, 0.5), y)
    with pytest.raises(ValueError, match="x0 must have shape"):
        duality_gap(A, y, L1(1.0), y[:2])
