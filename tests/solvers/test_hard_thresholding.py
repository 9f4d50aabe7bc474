"""Hard thresholding never raises the misfit, stays in its set, and finds what it should."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.operators import Matrix, Sampling
from sparsepriors.priors import L1, NM, Cardinality, L1Ball, L2Ball, NonNegative, Prior, Rank
from sparsepriors.solvers import iterative_hard_thresholding, proximal_gradient

F64 = torch.float64


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 1000), which=st.integers(0, 4), scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_the_misfit_never_rises_and_every_iterate_is_in_the_set(seed, which, scale):
    prior: Prior = (Cardinality(3, dims=1), L1Ball(1.0, dims=1), L2Ball(0.5, dims=1), NonNegative(dims=1),
                    NM(2, 4, dims=1))[which]
    A, y = Matrix(scale * draw(10, 20, seed=seed)), draw(2, 10, seed=seed + 1)
    values = []

    def watch(state):
        values.append(0.5 * float((y - A(state.x)).square().sum()))
        assert not bool((prior.value(state.x) != 0).any())

    found = iterative_hard_thresholding(A, y, prior, max_iter=8, callback=watch)
    assert values[0] <= 0.5 * float(y.square().sum()) * (1 + 1e-12)
    assert all(b <= a * (1 + 1e-10) for a, b in zip(values, values[1:], strict=False))
    assert found.trace["objective"] == pytest.approx(values, rel=1e-8, abs=1e-12)


def test_exact_recovery_without_noise():
    A = Matrix(draw(100, 200) / 10)
    x = torch.zeros(3, 200, dtype=F64)
    for item in range(3):
        x[item, 7 * item:7 * item + 5] = draw(5, seed=item) + 3
    found = iterative_hard_thresholding(A, A(x), Cardinality(5, dims=1), tol=1e-12)
    assert found.converged
    torch.testing.assert_close(found.x, x, atol=1e-9, rtol=0)


def test_a_matrix_of_low_rank_from_some_of_its_entries():
    x = draw(20, 2) @ draw(2, 20, seed=1)
    A = Sampling(torch.rand(20, 20, generator=torch.Generator().manual_seed(2)) < 0.7, F64)
    found = iterative_hard_thresholding(A, A(x), Rank(2), max_iter=3000, tol=1e-10)
    torch.testing.assert_close(found.x, x, atol=1e-6, rtol=0)


def test_on_a_convex_set_it_finds_what_proximal_gradient_finds():
    A, y, prior = Matrix(draw(30, 15)), draw(30, seed=1), L1Ball(0.8, dims=1)
    found = iterative_hard_thresholding(A, y, prior, max_iter=5000, tol=1e-12)
    torch.testing.assert_close(found.x, proximal_gradient(A, y, prior, tol=1e-12, max_iter=5000).x, atol=1e-8, rtol=0)


@pytest.mark.public_door
def test_a_penalty_is_no_set():
    with pytest.raises(TypeError, match="prior must be a set or a pattern, got L1; proximal_gradient takes every"):
        iterative_hard_thresholding(Matrix(draw(3, 3)), draw(3), L1(1.0))
