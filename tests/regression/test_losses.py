import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from sparsepriors.priors import L0, L1, MCP, ElasticNet, Huber, Logistic, SquaredL2
from sparsepriors.regression import coordinate_descent, largest_factor
from sparsepriors.regression._losses import loss_of

LOSSES = {"squares": 1.5 * SquaredL2(0.8), "Huber": Huber(1.3, delta=0.6), "logistic": 2.0 * Logistic(0.5)}


def problem(n, p, seed):
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(n, p, dtype=torch.float64, generator=g)
    w = torch.randn(p, dtype=torch.float64, generator=g)
    w[p // 3:] = 0
    return X, X @ w + torch.randn(n, dtype=torch.float64, generator=g)


@pytest.mark.parametrize("name", LOSSES)
@given(v=st.floats(-8, 8), u=st.floats(-8, 8))
def test_a_loss_keeps_what_it_promises(name, v, u):
    prior, loss = LOSSES[name], loss_of(LOSSES[name])
    v, u = (torch.tensor([a], dtype=torch.float64) for a in (v, u))
    assert float(loss.value(v)) == pytest.approx(float(prior.value(v)), rel=1e-12, abs=1e-14)
    torch.testing.assert_close(loss.slope(v), prior.grad(v))
    above = loss.value(v) + loss.slope(v) * (u - v) + 0.5 * loss.bound(v) * (u - v) ** 2
    assert float(loss.value(u)) <= float(above) + 1e-9
    assert float(loss.curvature(v)) <= loss.lipschitz * (1 + 1e-12)
    slope = loss.slope(v)
    # Fenchel and Young: equal at the slope of v, at least for every other point.
    assert float(loss.value(v) + loss.conjugate(slope)) == pytest.approx(float(slope * v), rel=1e-9, abs=1e-9)
    assert float(loss.value(u) + loss.conjugate(slope)) >= float(slope * u) - 1e-9


@pytest.mark.parametrize("loss", [Huber(delta=0.5), SquaredL2()])
@settings(max_examples=15)
@given(seed=st.integers(0, 99), strength=st.floats(0.02, 0.8), intercept=st.booleans(),
       ridge=st.sampled_from([0.0, 0.5]))
def test_the_solution_is_optimal_and_the_certificate_a_bound(loss, seed, strength, intercept, ridge):
    X, y = problem(25, 40, seed)
    s = torch.rand(25, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.2
    weight = strength * largest_factor(X, y, L1(), weights=s, intercept=intercept, loss=loss)
    prior = ElasticNet(weight, ridge=ridge)
    rough, fine = (coordinate_descent(X, y, prior, weights=s, intercept=intercept, loss=loss, tol=tol)
                   for tol in (1e-2, 1e-9))
    assert fine.converged
    slope = s * loss.grad(X @ fine.x + fine.extras["intercept"] - y)
    pull = X.T @ slope + ridge * fine.x
    assert float((pull.abs() - weight).max()) <= 1e-3 * weight
    assert not intercept or abs(float(slope.sum())) <= 1e-6
    best = fine.trace["objective"][-1]
    if not intercept:
        at_zero = s @ torch.stack([loss.value(v) for v in -y])
        assert rough.trace["objective"][-1] - best <= rough.certificate * float(at_zero) + 1e-9


@pytest.mark.parametrize("sparse", [False, True])
def test_logistic_regression_agrees_with_scikit_learn(sparse):
    X, y = problem(60, 20, 4)
    X = torch.where(X.abs() > 0.5, X, 0.0)
    labels = torch.where(y > 0, 1.0, -1.0).double()
    signed = X * labels[:, None]
    design = scipy.sparse.csc_array(signed.numpy()) if sparse else signed
    found = coordinate_descent(design, torch.zeros_like(y), L1(1.0), loss=Logistic(), tol=1e-11)
    assert found.converged
    model = LogisticRegression(l1_ratio=1.0, C=1.0, solver="saga", fit_intercept=False, tol=1e-11, max_iter=100000)
    np.testing.assert_allclose(found.x.numpy(), model.fit(X.numpy(), labels.numpy()).coef_[0], atol=1e-5)


@pytest.mark.parametrize("prior", [MCP(3.0, gamma=3.0), L0(2.0)])
@pytest.mark.parametrize("loss", [Huber(delta=0.5), Logistic()])
def test_priors_that_are_not_convex_lower_the_objective_to_a_fixed_point(prior, loss):
    X, y = problem(50, 30, 2)
    found = coordinate_descent(X, y if isinstance(loss, Huber) else torch.zeros_like(y), prior, loss=loss, tol=1e-7,
                               x0=torch.ones(30, dtype=torch.float64) * 0.1)
    values = found.trace["objective"]
    assert found.converged
    assert all(b <= a + 1e-9 * abs(a) for a, b in zip(values, values[1:], strict=False))


def test_other_losses_are_refused():
    X, y = problem(6, 4, 0)
    for loss in (L1(), Huber(torch.ones(6)), Logistic(0.0)):
        with pytest.raises(TypeError, match="loss must be SquaredL2, Huber or Logistic"):
            coordinate_descent(X, y, L1(), loss=loss)
