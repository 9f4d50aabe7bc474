"""Pattern-coupled sparse Bayesian learning: its limits, that blocks help, and its doors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.operators import Kronecker
from sparsepriors.regression import pattern_coupled_bayes, sparse_bayes

F64 = torch.float64


def blocks(seed: int, m: int = 30, n: int = 90) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(m, n, dtype=F64, generator=g)
    x = torch.zeros(n, dtype=F64)
    for first in (n // 9, 5 * n // 9):
        x[first:first + 5] = torch.randn(5, dtype=F64, generator=g)
    return A, A @ x + 0.05 * torch.randn(m, dtype=F64, generator=g), x


@given(seed=st.integers(0, 99), wide=st.booleans())
def test_without_coupling_it_is_em(seed, wide):
    A, y, _ = blocks(seed, 20, 40 if wide else 15)
    one = torch.ones(A.shape[1], dtype=F64)
    ours = pattern_coupled_bayes(A, y, noise=0.3, coupling=0.0, rate=0.0, prune=0.0, max_iter=4, tol=1e-15)
    em = sparse_bayes(A, y, noise=0.3, start=one, prune=0.0, max_iter=4, tol=1e-15)
    torch.testing.assert_close(ours.x, em.x, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(ours.extras["gamma"], em.extras["gamma"], rtol=1e-6, atol=1e-9)


def test_blocks_are_found_better_together():
    errors = {"coupled": 0.0, "apart": 0.0}
    for seed in range(12):
        A, y, x = blocks(seed)
        for name, coupling in (("coupled", 1.0), ("apart", 0.0)):
            found = pattern_coupled_bayes(A, y, noise=0.05**2, coupling=coupling)
            errors[name] += float((found.x - x).square().sum() / x.square().sum()) / 12
    assert errors["coupled"] < 0.5 * errors["apart"]


def test_the_noise_is_learnt_and_a_product_gives_the_same_as_its_matrix():
    A, y, _ = blocks(3, 80, 40)
    found = pattern_coupled_bayes(A, y)
    assert 0.5 < float(found.extras["noise_var"]) / 0.05**2 < 2
    assert found.converged
    g = torch.Generator().manual_seed(0)
    factors = (torch.randn(3, 4, dtype=torch.complex128, generator=g),
               torch.randn(2, 5, dtype=torch.complex128, generator=g))
    z = torch.randn(6, dtype=torch.complex128, generator=g)
    a, b = (pattern_coupled_bayes(K, z, noise=0.1, max_iter=5) for K in (Kronecker(factors), torch.kron(*factors)))
    torch.testing.assert_close(a.x, b.x, rtol=1e-6, atol=1e-9)


def test_the_callback_stops_it_and_the_precision_is_the_arguments_own():
    A, y, _ = blocks(0)
    found = pattern_coupled_bayes(A.float(), y.float(), noise=0.1, callback=lambda s: s.iteration == 2)
    assert found.iterations == 2 == len(found.trace["certificate"])
    assert found.x.dtype == found.extras["variances"].dtype == torch.float32


@pytest.mark.public_door
@pytest.mark.parametrize(("change", "error", "message"), [
    ({"y": torch.ones(4)}, ValueError, r"y must have shape \(3,\)"),
    ({"noise": 0.0}, ValueError, "noise must be finite and positive"),
    ({"coupling": -1.0}, ValueError, "coupling must be finite and nonnegative"),
    ({"shape": 0.0}, ValueError, "shape must be finite and positive"),
    ({"rate": math.inf}, ValueError, "rate must be finite and nonnegative"),
    ({"prune": 1.0}, ValueError, "prune must be below 1"), ({"tol": 0.0}, ValueError, "tol must be finite"),
    ({"max_iter": 0}, ValueError, "max_iter must be at least 1"), ({"callback": 3}, TypeError, "callback must be")])
def test_bad_input_is_named(change, error, message):
    words = {"A": torch.eye(3), "y": torch.ones(3), **change}
    with pytest.raises(error, match=message):
        pattern_coupled_bayes(words.pop("A"), words.pop("y"), **words)
