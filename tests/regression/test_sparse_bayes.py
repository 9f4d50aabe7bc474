"""Sparse Bayesian learning for a matrix: the evidence, the posterior, and that the updates maximise it."""

from __future__ import annotations

import math
from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparsepriors.operators import Diagonal, Kronecker, Matrix
from sparsepriors.regression import sparse_bayes, sparse_bayes_cost
from sparsepriors.regression._evidence import Evidence, KroneckerEvidence
from sparsepriors.regression.sparse_bayes import UPDATES
from sparsepriors.solvers import least_squares

F64, C128 = torch.float64, torch.complex128


def problem(m: int, n: int, seed: int, dtype: torch.dtype = F64, vectors: int | None = None, nonzeros: int = 3,
            noise: float = 0.1) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    shape = (n,) if vectors is None else (n, vectors)
    A = torch.randn(m, n, dtype=dtype, generator=g)
    x = torch.randn(shape, dtype=dtype, generator=g)
    x[torch.randperm(n, generator=g)[nonzeros:]] = 0
    y = A @ x
    return A, y + noise * torch.randn(y.shape, dtype=dtype, generator=g), x


def dense_cost(A: Tensor, y: Tensor, gamma: Tensor, noise: float) -> float:
    S = noise * torch.eye(len(A), dtype=A.dtype) + (A * gamma) @ A.mH
    Y = y.reshape(len(A), -1)
    quadratic = (Y.conj() * torch.linalg.solve(S, Y)).sum().real
    return float(Y.shape[1] * torch.linalg.slogdet(S)[1] + quadratic)


SIZES = st.sampled_from(((12, 5), (5, 12), (7, 7), (1, 4), (4, 1)))


@given(size=SIZES, dtype=st.sampled_from((F64, C128)), vectors=st.sampled_from((None, 1, 3)), seed=st.integers(0, 99),
       noise=st.sampled_from((1e-3, 0.3, 5.0)))
def test_the_cost_is_minus_the_log_evidence(size, dtype, vectors, seed, noise):
    A, y, _ = problem(size[0], size[1], seed, dtype, vectors)
    gamma = torch.rand(size[1], dtype=F64) * (torch.rand(size[1]) < 0.7)
    assert sparse_bayes_cost(A, y, gamma, noise) == pytest.approx(dense_cost(A, y, gamma, noise), rel=1e-8, abs=1e-7)
    if dtype == F64 and vectors is None:
        S = noise * torch.eye(size[0], dtype=F64) + (A * gamma) @ A.mT
        normal = torch.distributions.MultivariateNormal(torch.zeros(size[0], dtype=F64), S)
        want = -2 * float(normal.log_prob(y)) - size[0] * math.log(2 * math.pi)
        assert sparse_bayes_cost(A, y, gamma, noise) == pytest.approx(want, rel=1e-8, abs=1e-7)


@given(size=SIZES, dtype=st.sampled_from((F64, C128)), seed=st.integers(0, 99))
def test_the_posterior_mean_is_ridge_regression_with_a_strength_per_column(size, dtype, seed):
    A, y, _ = problem(size[0], size[1], seed, dtype)
    gamma, noise = torch.rand(size[1], dtype=F64) + 0.1, 0.2
    at = Evidence.of(A, y[:, None]).posterior(gamma, noise)
    ridge = least_squares(Matrix(A * gamma.sqrt()), y, damping=noise, tol=1e-13).x * gamma.sqrt()
    torch.testing.assert_close(at.mean[:, 0], ridge, atol=1e-7, rtol=1e-7)
    covariance = torch.linalg.inv(A.mH @ A / noise + torch.diag(1 / gamma).to(dtype))
    torch.testing.assert_close(at.variances, covariance.diagonal().real, atol=1e-10, rtol=1e-8)
    torch.testing.assert_close(at.determined, 1 - at.variances / gamma, atol=1e-8, rtol=0)


@given(size=SIZES, dtype=st.sampled_from((F64, C128)), vectors=st.sampled_from((None, 3)), seed=st.integers(0, 99),
       noise=st.sampled_from((0.01, None)), update=st.sampled_from(("em", "one-by-one")))
@settings(max_examples=60)
def test_the_objective_never_rises(size, dtype, vectors, seed, noise, update):
    A, y, _ = problem(size[0], size[1], seed, dtype, vectors)
    found = sparse_bayes(A, y, noise=noise, update=update, prune=0.0, max_iter=60, tol=1e-9)
    costs = found.trace["objective"]
    slack = 1e-7 * (1 + abs(costs[0]))
    assert all(b <= a + slack for a, b in pairwise(costs))


@given(size=SIZES, dtype=st.sampled_from((F64, C128)), vectors=st.sampled_from((1, 2, 5)), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_a_step_of_em_is_the_posterior_power_averaged_over_the_vectors(size, dtype, vectors, seed):
    A, y, _ = problem(size[0], size[1], seed, dtype, vectors)
    gamma, noise = torch.rand(size[1], dtype=F64) + 0.1, 0.2
    gain = gamma[:, None] * torch.linalg.solve(noise * torch.eye(len(A), dtype=dtype) + (A * gamma) @ A.mH, A).mH
    variances = gamma - (gain * (A * gamma).mT).sum(1).real
    found = sparse_bayes(A, y, noise=noise, start=gamma, prune=0.0, max_iter=1)
    want = variances + (gain @ y).abs().square().sum(1) / vectors
    torch.testing.assert_close(found.extras["gamma"], want, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize(("dtype", "vectors"), [(F64, None), (C128, None), (F64, 4)])
def test_it_ends_where_the_gradient_vanishes(update, dtype, vectors):
    # Columns outside the model fall like 1 / iteration under EM: it gets a model with all columns in it.
    A, y, _ = problem(40, 12, 5, dtype, vectors, nonzeros=12 if update == "em" else 3)
    found = sparse_bayes(A, y, noise=0.01, update=update, prune=0.0, tol=1e-12, max_iter=2000)
    gamma = found.extras["gamma"].clone().requires_grad_()
    S = 0.01 * torch.eye(40, dtype=dtype) + (A * gamma) @ A.mH
    Y = y.reshape(40, -1)
    cost = Y.shape[1] * torch.linalg.slogdet(S)[1] + (Y.conj() * torch.linalg.solve(S, Y)).sum().real
    (slope,) = torch.autograd.grad(cost, gamma)
    assert float((slope * gamma).detach().abs().max()) < 1e-3      # stationary in log gamma
    assert bool((slope[gamma == 0] > -1e-3).all())                 # and no column waits to come in


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize(("dtype", "vectors"), [(F64, None), (C128, None), (F64, 5), (C128, 2)])
@pytest.mark.parametrize("known", [True, False])
def test_it_finds_the_support(update, dtype, vectors, known):
    A, y, x = problem(60, 100, 3, dtype, vectors, nonzeros=4)
    x = x + 0.5 * x.sgn()
    y = A @ x + (y - A @ (x - 0.5 * x.sgn()))
    found = sparse_bayes(A, y, noise=0.01 if known else None, update="em" if not known else update)
    power = found.x.abs().reshape(100, -1).amax(1)
    assert set(power.topk(4).indices.tolist()) == set(x.reshape(100, -1)[:, 0].nonzero()[:, 0].tolist())
    assert float((found.x - x).norm() / x.norm()) < 0.1


def test_vectors_that_share_their_support_help_one_another():
    errors = {}
    for vectors in (1, 8):
        errors[vectors] = [float((sparse_bayes(A, y, noise=0.04, max_iter=200).x - x).norm() / x.norm())
                           for A, y, x in (problem(20, 60, seed, F64, vectors, nonzeros=10, noise=0.2)
                                           for seed in range(6))]
    assert max(errors[8]) < 0.5 * max(errors[1])


@given(seed=st.integers(0, 99), update=st.sampled_from(UPDATES), known=st.booleans())
@settings(max_examples=30)
def test_complex_measurements_by_a_real_matrix_are_two_real_vectors(seed, update, known):
    A, _, _ = problem(15, 8, seed)
    _, y, _ = problem(15, 8, seed + 1, C128)
    one = sparse_bayes(A, y, noise=0.02 if known else None, update=update, max_iter=20, tol=1e-9)
    two = sparse_bayes(A, torch.stack((y.real, y.imag), 1), noise=0.01 if known else None, update=update, max_iter=20,
                       tol=1e-9)
    torch.testing.assert_close(torch.view_as_real(one.x), two.x, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(one.extras["gamma"], 2 * two.extras["gamma"], atol=1e-6, rtol=1e-4)


def test_complex_equals_stacked_real_at_given_variances():
    A, y, _ = problem(9, 6, 0, C128)
    gamma = torch.rand(6, dtype=F64) + 0.1
    at = Evidence.of(A, y[:, None]).posterior(gamma, 0.3)
    stacked = torch.cat((torch.cat((A.real, -A.imag), 1), torch.cat((A.imag, A.real), 1)))
    real = Evidence.of(stacked, torch.cat((y.real, y.imag))[:, None]).posterior(torch.cat((gamma, gamma)), 0.3)
    torch.testing.assert_close(torch.cat((at.mean.real, at.mean.imag)), real.mean)
    torch.testing.assert_close(torch.cat((at.variances, at.variances)), real.variances)


@given(seed=st.integers(0, 99), scale=st.sampled_from((1e-6, 1e5)), update=st.sampled_from(UPDATES))
@settings(max_examples=30)
def test_the_answer_scales_with_the_measurements(seed, scale, update):
    A, y, _ = problem(20, 10, seed)
    a, b = (sparse_bayes(A, f * y, update=update, max_iter=30, tol=1e-9) for f in (1.0, scale))
    torch.testing.assert_close(a.x * scale, b.x, rtol=1e-4, atol=1e-5 * scale)


@given(sides=st.sampled_from((((2, 3), (3, 4)), ((3, 2), (2, 5), (2, 2)), ((4, 2), (3, 2)))),
       dtype=st.sampled_from((F64, C128)), vectors=st.sampled_from((None, 2)), seed=st.integers(0, 99),
       density=st.sampled_from((0.3, 1.0)))
def test_a_kronecker_product_is_never_formed_and_gives_the_same(sides, dtype, vectors, seed, density):
    g = torch.Generator().manual_seed(seed)
    factors = [torch.randn(m, n, dtype=dtype, generator=g) for m, n in sides]
    whole = reduce(torch.kron, factors)
    y = torch.randn((len(whole),) if vectors is None else (len(whole), vectors), dtype=dtype, generator=g)
    gamma = torch.rand(whole.shape[1], dtype=F64, generator=g)
    gamma = gamma * (torch.rand(len(gamma), generator=g) < density)
    want = Evidence.of(whole, y.reshape(len(whole), -1)).posterior(gamma, 0.3)
    got = KroneckerEvidence(factors, y.reshape(len(whole), -1)).posterior(gamma, 0.3)
    for name in ("mean", "variances", "determined"):
        torch.testing.assert_close(getattr(got, name), getattr(want, name), rtol=1e-8, atol=1e-9)
    assert (got.residual, got.cost) == pytest.approx((want.residual, want.cost), rel=1e-8)
    for update in UPDATES:
        a, b = (sparse_bayes(A, y, noise=0.3, update=update, max_iter=5) for A in (Kronecker(tuple(factors)), whole))
        torch.testing.assert_close(a.x, b.x, rtol=1e-6, atol=1e-8)


@pytest.mark.public_door
def test_what_a_product_cannot_do_is_said():
    product = Kronecker((torch.eye(2), torch.eye(2)))
    with pytest.raises(ValueError, match="noise must be a number or None for a Kronecker product"):
        sparse_bayes(product, torch.ones(4), noise=torch.ones(4))
    with pytest.raises(TypeError, match="A must be a Kronecker product of matrices"):
        sparse_bayes(Kronecker((Matrix(torch.eye(2)), Diagonal(torch.ones(2)))), torch.ones(4))
    with pytest.raises(ValueError, match=r"y must have shape \(4,\)"):
        sparse_bayes(product, torch.ones(3))


@pytest.mark.parametrize("complex_noise", [False, True])
def test_coloured_noise_is_whitened(complex_noise):
    A, y, _ = problem(8, 5, 0, C128 if complex_noise else F64)
    root = torch.randn(8, 8, dtype=A.dtype)
    covariance = root @ root.mH + 0.1 * torch.eye(8, dtype=A.dtype)
    gamma = torch.rand(5, dtype=F64) + 0.1
    found = sparse_bayes(A, y, noise=covariance, start=gamma, max_iter=1, prune=0.0)
    S = covariance + (A * gamma) @ A.mH
    log_det = torch.linalg.slogdet(S)[1] - torch.linalg.slogdet(covariance)[1]   # the cost of the whitened data
    want = float(log_det + (y.conj() @ torch.linalg.solve(S, y)).real)
    assert found.trace["objective"][0] == pytest.approx(want)
    diagonal = sparse_bayes(A, y, noise=torch.full((8,), 0.3, dtype=F64))
    torch.testing.assert_close(diagonal.x, sparse_bayes(A, y, noise=0.3).x, atol=1e-6, rtol=1e-5)
    full = sparse_bayes(A, y, noise=0.3 * torch.eye(8, dtype=F64))
    torch.testing.assert_close(full.x, diagonal.x, atol=1e-6, rtol=1e-5)


def test_the_callback_stops_it_and_the_precision_is_the_arguments_own():
    A, y, _ = problem(10, 6, 0)
    seen = []
    found = sparse_bayes(A.float(), y.float(), noise=0.1, callback=lambda s: bool(seen.append(s)) or len(seen) == 3)
    assert found.iterations == 3 == len(seen)
    assert not found.converged
    assert found.x.dtype == found.extras["gamma"].dtype == torch.float32
    assert seen[0].metrics["objective"] >= seen[2].metrics["objective"]


def test_nothing_is_found_in_nothing():
    for update in UPDATES:
        found = sparse_bayes(problem(6, 4, 0)[0], torch.zeros(6, dtype=F64), update=update)
        assert float(found.x.abs().max()) == 0
        blind = sparse_bayes(torch.zeros(6, 4), torch.ones(6), update=update)
        assert float(blind.x.abs().max()) == 0


A0, Y0 = torch.eye(3), torch.ones(3)


@pytest.mark.public_door
@pytest.mark.parametrize(("change", "error", "message"), [
    ({"A": torch.ones(3)}, ValueError, "A must be a matrix"),
    ({"A": torch.ones(3, 0)}, ValueError, "no empty axis"),
    ({"A": torch.full((3, 3), math.nan)}, ValueError, "A holds NaN"),
    ({"A": np.eye(3)}, TypeError, "A must be a torch.Tensor, got ndarray"),
    ({"y": torch.ones(4)}, ValueError, r"y must have shape \(3,\) or \(3, L\), got \(4,\)"),
    ({"y": torch.ones(3, dtype=torch.int64)}, TypeError, "y must be floating point"),
    ({"update": "newton"}, ValueError, "update must be one of"),
    ({"noise": 0.0}, ValueError, "noise must be finite and positive"),
    ({"noise": -torch.ones(3)}, ValueError, "noise must be finite and positive"),
    ({"noise": torch.ones(2)}, ValueError, r"noise must be a number, \(3,\) variances or an \(3, 3\) covariance"),
    ({"noise": torch.tensor([[1.0, 2, 0], [2, 1, 0], [0, 0, 1]])}, ValueError, "eigenvalue -1"),
    ({"noise": torch.tensor([[1.0, 0.5, 0], [0, 1, 0], [0, 0, 1]])}, ValueError, "Hermitian"),
    ({"start": torch.ones(2)}, ValueError, r"start must have shape \(3,\)"),
    ({"start": -torch.ones(3)}, ValueError, "start must be finite and nonnegative"),
    ({"prune": 1.0}, ValueError, "prune must be below 1"),
    ({"tol": 0.0}, ValueError, "tol must be finite and positive"),
    ({"max_iter": 0}, ValueError, "max_iter must be at least 1"),
    ({"callback": 3}, TypeError, "callback must be callable, got int"),
])
def test_bad_input_is_named(change, error, message):
    words = {"A": A0, "y": Y0, "noise": 0.1, **change}
    with pytest.raises(error, match=message):
        sparse_bayes(words.pop("A"), words.pop("y"), **words)


@pytest.mark.public_door
def test_the_cost_checks_its_variances():
    with pytest.raises(ValueError, match=r"gamma must have shape \(3,\)"):
        sparse_bayes_cost(A0, Y0, torch.ones(2), 0.1)
    with pytest.raises(ValueError, match="noise_var must be finite and positive"):
        sparse_bayes_cost(A0, Y0, torch.ones(3), 0.0)
