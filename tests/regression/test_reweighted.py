"""Weighted Lassos for a concave prior: what they minimise, where they stay, and that they are the adaptive Lasso."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso

from sparsepriors.priors import CEL0, L0, L1, MCP, SCAD, SLOPE, ElasticNet, Huber, Logistic, LogSum, Lq, Prior, Zero
from sparsepriors.regression import adaptive_lasso, coordinate_descent

F64 = torch.float64


@dataclass(frozen=True)
class Saturating(Prior, separable=True):
    """A sum of 1 - exp(-|x|), a prior of one's own without a prox."""

    def _value(self, x):
        return self._sum(1 - torch.exp(-x.abs()))

    def _prox(self, x, step):
        raise NotImplementedError


PRIORS = {"MCP": MCP(0.8, gamma=2.5), "SCAD": SCAD(0.6), "LogSum": LogSum(0.4, epsilon=0.2),
          "CEL0": CEL0(0.3, norm=1.4), "scaled": 3.0 * MCP(0.4, gamma=5.0), "own": 4.0 * Saturating()}


def problem(n, p, seed, nonzeros=3, noise=0.3):
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(n, p, dtype=F64, generator=g)
    x = torch.zeros(p, dtype=F64)
    x[:nonzeros] = torch.tensor([3.0, -2.0, 1.5], dtype=F64)[:min(nonzeros, p)]
    return A, A @ x + noise * torch.randn(n, dtype=F64, generator=g), x


@given(n=st.integers(2, 30), p=st.integers(3, 40), seed=st.integers(0, 999), name=st.sampled_from(sorted(PRIORS)),
       strength=st.floats(0.1, 10), loss=st.sampled_from((None, Huber(0.5, delta=0.7))), intercept=st.booleans(),
       warm=st.booleans())
@settings(max_examples=50)
def test_the_objective_never_rises_and_is_loss_plus_prior(n, p, seed, name, strength, loss, intercept, warm):
    A, y, truth = problem(n, p, seed)
    prior = PRIORS[name] * strength
    found = adaptive_lasso(A, y, prior, rounds=5, loss=loss, intercept=intercept, x0=truth if warm else None, tol=1e-10)
    objectives = found.trace["objective"]
    assert len(objectives) == 5 == found.iterations
    assert all(b <= a + 1e-8 * (1 + abs(a)) for a, b in pairwise(objectives))
    residual = A @ found.x + found.extras["intercept"] - y
    fit = 0.5 * float(residual @ residual) if loss is None else float(loss.value(residual))
    assert objectives[-1] == pytest.approx(fit + float(prior.value(found.x)), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("sparse", [False, True])
def test_two_rounds_of_a_log_sum_are_the_adaptive_lasso(sparse):
    A, y, _ = problem(60, 90, 0)
    w, epsilon, n = 8.0, 0.5, len(y)
    pilot = Lasso(alpha=w / epsilon / n, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(A.numpy(), y.numpy())
    price = w / (epsilon + abs(pilot.coef_))
    again = Lasso(alpha=1 / n, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(A.numpy() / price, y.numpy())
    found = adaptive_lasso(scipy.sparse.csc_array(A.numpy()) if sparse else A, y, LogSum(w, epsilon=epsilon), rounds=2,
                           tol=1e-12)
    assert found.converged
    torch.testing.assert_close(found.x, torch.from_numpy(again.coef_ / price), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.extras["slopes"], torch.from_numpy(price), rtol=1e-5, atol=1e-6)


def test_it_recovers_the_support_and_the_least_squares_fit_on_it_where_the_lasso_does_not():
    for seed in range(5):
        A, y, x = problem(100, 300, seed, noise=0.5)
        found = adaptive_lasso(A, y, MCP(20.0, gamma=0.05), rounds=4, tol=1e-12)
        assert found.x.nonzero().flatten().tolist() == [0, 1, 2]
        oracle = torch.linalg.lstsq(A[:, :3], y[:, None]).solution[:, 0]
        torch.testing.assert_close(found.x[:3], oracle, rtol=1e-5, atol=1e-5)   # no shrinkage is left
        lasso = adaptive_lasso(A, y, MCP(20.0, gamma=0.05), rounds=1).x
        assert float((lasso - x).norm()) > 1.5 * float((found.x - x).norm())


@given(seed=st.integers(0, 99), weight=st.floats(2, 30), gamma=st.sampled_from((0.5, 3.0)))
@settings(max_examples=20)
def test_fixed_points_are_those_of_coordinate_descent(seed, weight, gamma):
    A, y, _ = problem(50, 12, seed, noise=2.0)
    prior = MCP(weight, gamma=gamma)
    found = adaptive_lasso(A, y, prior, rounds=60, tol=1e-13)
    curvature, q = A.square().sum(0), A.T @ (y - A @ found.x)
    moved = prior.prox(found.x + q / curvature, 1 / curvature)
    assert float((curvature * (moved - found.x)).abs().max()) <= 1e-5 * float((A.T @ y).abs().max())
    descent = coordinate_descent(A, y, prior, tol=1e-12, max_iter=300).x
    torch.testing.assert_close(adaptive_lasso(A, y, prior, rounds=1, x0=descent, tol=1e-13).x, descent, rtol=1e-5,
                               atol=1e-6)


def test_rows_have_weights_and_one_round_from_zero_is_the_lasso():
    A, y, _ = problem(20, 30, 1)
    s = torch.arange(20, dtype=F64)
    found = adaptive_lasso(A, y, SCAD(3.0), rounds=1, weights=s, intercept=True, tol=1e-10)
    want = coordinate_descent(A, y, L1(3.0), weights=s, intercept=True, tol=1e-10)
    torch.testing.assert_close(found.x, want.x)
    torch.testing.assert_close(found.extras["intercept"], want.extras["intercept"])
    labels = torch.where(y > 0, 1.0, -1.0).double()
    classes = adaptive_lasso(A * labels[:, None], torch.zeros(20, dtype=F64), MCP(0.5), rounds=3, loss=Logistic())
    assert classes.trace["objective"] == sorted(classes.trace["objective"], reverse=True)


@pytest.mark.public_door
@pytest.mark.parametrize(("change", "error", "message"), [
    ({"prior": "mcp"}, TypeError, "prior must be a Prior, got str"),
    ({"prior": SLOPE(torch.ones(30, dtype=F64))}, TypeError, "prior must be separable"),
    ({"prior": L0()}, TypeError, "prior must be differentiable in the moduli, got L0"),
    ({"prior": Zero()}, TypeError, "prior must be differentiable in the moduli, got Zero"),
    ({"prior": Lq()}, ValueError, "slopes that are finite and nonnegative, got Lq"),
    ({"prior": Lq(1e-3, q=2 / 3)}, ValueError, "slopes that are finite and nonnegative, got Lq"),
    ({"prior": ElasticNet(0.1)}, ValueError, "prior must be concave in the moduli"),
    ({"prior": MCP(torch.ones(7))}, ValueError, "weight of shape"),
    ({"rounds": 0}, ValueError, "rounds must be at least 1"),
    ({"rounds": 2.0}, TypeError, "rounds must be an integer"),
    ({"y": torch.ones(20, 2)}, ValueError, "y must be a vector"),
    ({"y": torch.ones(19)}, ValueError, "y must have an entry for each of the 20 rows"),
    ({"x0": torch.ones(7)}, ValueError, "x0 must be a real tensor of shape"),
    ({"weights": torch.ones(7)}, ValueError, "weights must have the shape"),
    ({"tol": 0.0}, ValueError, "tol must be finite and positive"),
    ({"max_iter": 0}, ValueError, "max_iter must be at least 1"),
])
def test_bad_input_is_named(change, error, message):
    A, y, _ = problem(20, 30, 0)
    words = {"y": y, "prior": MCP(), **change}
    with pytest.raises(error, match=message):
        adaptive_lasso(A, words.pop("y"), words.pop("prior"), **words)
