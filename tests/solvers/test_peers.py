"""Equality with scikit-learn and pyproximal where they solve the same problem."""

from __future__ import annotations

import numpy as np
import pylops
import pyproximal
import pytest
import torch
from pyproximal.optimization.primal import ADMM, ProximalGradient
from pyproximal.optimization.primaldual import PrimalDual
from sklearn import linear_model

from sparsepriors import operators as ops
from sparsepriors import priors as pr
from sparsepriors.solvers import admm, primal_dual, proximal_gradient

F64 = torch.float64


def _regression() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(60, 25, dtype=F64, generator=generator)
    coefficients = torch.zeros(25, dtype=F64)
    coefficients[::5] = torch.tensor([3.0, -2.0, 1.0, 0.5, -4.0], dtype=F64)
    return X, X @ coefficients + 0.5 * torch.randn(60, dtype=F64, generator=generator)


@pytest.mark.parametrize("solve", [proximal_gradient, admm, primal_dual])
@pytest.mark.parametrize(("alpha", "l1_ratio"), [(0.1, 1.0), (0.5, 1.0), (0.3, 0.4)])
def test_scikit_learns_elastic_net(solve: object, alpha: float, l1_ratio: float) -> None:
    X, y = _regression()
    # scikit-learn divides the squared norm by the number of samples.
    theirs = linear_model.ElasticNet(alpha=alpha, l1_ratio=l1_ratio, fit_intercept=False, tol=1e-12, max_iter=100000)
    theirs.fit(X.numpy(), y.numpy())
    weight, ridge = 60 * alpha * l1_ratio, 60 * alpha * (1 - l1_ratio)
    prior = pr.ElasticNet(weight, ridge) if ridge else pr.L1(weight)
    ours = solve(ops.Matrix(X), y, prior, max_iter=20000, tol=1e-11)  # pyright: ignore[reportCallIssue]
    np.testing.assert_allclose(ours.x.numpy(), theirs.coef_, rtol=1e-6, atol=1e-8)
    assert set(np.flatnonzero(theirs.coef_)) == set(torch.nonzero(ours.x.abs() > 1e-9).flatten().tolist())


def test_iterates_of_pyproximals_proximal_gradient_and_fista() -> None:
    X, y = _regression()
    step = 0.9 / float(torch.linalg.matrix_norm(X, 2)) ** 2
    f = pyproximal.L2(Op=pylops.MatrixMult(X.numpy()), b=y.numpy())
    for accelerated, name in ((False, None), (True, "fista")):
        theirs = ProximalGradient(f, pyproximal.L1(sigma=4.0), x0=np.zeros(25), tau=step, niter=25, acceleration=name)
        ours = proximal_gradient(ops.Matrix(X), y, pr.L1(4.0), step=step, accelerated=accelerated, restart=False,
                                 max_iter=25, tol=1e-14)
        # Theirs is off the closed form by 2.4e-8 from the first iteration on, ours by nothing.
        np.testing.assert_allclose(ours.x.numpy(), theirs, rtol=0, atol=5e-8)


def test_iterates_of_pyproximals_admm() -> None:
    X, y = _regression()
    rho = 40.0
    f = pyproximal.L2(Op=pylops.MatrixMult(X.numpy()), b=y.numpy(), niter=200, warm=True, densesolver="numpy")
    x, z = ADMM(f, pyproximal.L1(sigma=4.0), x0=np.zeros(25), tau=1 / rho, niter=12)
    ours = admm(ops.Matrix(X), y, pr.L1(4.0), rho=rho, max_iter=12, tol=1e-14)
    np.testing.assert_allclose(ours.extras["x"].numpy(), x, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(ours.x.numpy(), z, rtol=1e-6, atol=1e-8)


def test_the_answer_of_pyproximals_primal_dual_for_total_variation() -> None:
    shape = (8, 10)
    y = torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(1))
    D = ops.FiniteDifference(shape, dtype=F64)
    gradient = pylops.MatrixMult(D.dense().numpy())
    theirs = PrimalDual(pyproximal.L2(b=y.numpy().ravel()), pyproximal.L1(sigma=0.3), gradient, tau=0.25, mu=0.45,
                        x0=np.zeros(80), niter=4000)
    ours = primal_dual(ops.Identity(shape, F64), y, pr.Zero(), terms=[(pr.L1(0.3), D)], max_iter=10000, tol=1e-8)
    np.testing.assert_allclose(ours.x.numpy().ravel(), theirs, rtol=0, atol=1e-5)
    chambolle_pock = primal_dual(ops.Identity(shape, F64), y, pr.Zero(), terms=[(pr.L1(0.3), D)], tau=0.1,
                                 max_iter=10000, tol=1e-8)
    np.testing.assert_allclose(chambolle_pock.x.numpy(), ours.x.numpy(), rtol=0, atol=1e-5)
