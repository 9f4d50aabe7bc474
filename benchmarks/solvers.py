"""Solvers against pyproximal and scikit-learn: time to the same objective, for the lasso and MRI by total variation.

    python benchmarks/solvers.py

The goal is an objective within a stated relative distance of the best that any method finds. Each method first runs
long with a record of its objective, and is then timed with the iterations that it needs and without the record.
First-order methods get the same step 1/L; each primal-dual method takes the best of the same dual steps.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pylops
import pyproximal
import torch
from _paired import command, paired, time_row
from pyproximal.optimization.primal import ProximalGradient
from pyproximal.optimization.primaldual import PrimalDual
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso
from torch import Tensor

from sparsepriors.data import luma, photos
from sparsepriors.imaging.sampling import variable_density
from sparsepriors.operators import FiniteDifference, FourierTransform, Matrix, Sampling
from sparsepriors.priors import L1, GroupL2, Zero
from sparsepriors.solvers import primal_dual, proximal_gradient

DUAL_STEPS = (0.01, 0.03, 0.1, 0.3, 1.0)
NEVER = 1e-13  # a tolerance that ends no run early


def needed(objectives: Sequence[float], goal: float) -> int:
    """Iterations after which the goal is reached."""
    reached = [i for i, value in enumerate(objectives, start=1) if value <= goal]
    if not reached:
        raise AssertionError(f"{len(objectives)} iterations end at {objectives[-1]:.9g}, the goal is {goal:.9g}")
    return reached[0]


def lasso(quick: bool, share: float, distance: float) -> list[dict[str, Any]]:
    """Gaussian regression with the weight ``share`` times the one that gives zero."""
    samples, features, most = (40, 80, 2000) if quick else (500, 2000, 1000)
    g = torch.Generator().manual_seed(0)
    X = torch.randn(samples, features, dtype=torch.float64, generator=g)
    truth = torch.zeros(features, dtype=torch.float64)
    truth[::20] = torch.randn(truth[::20].shape, dtype=torch.float64, generator=g)
    y = X @ truth + torch.randn(samples, dtype=torch.float64, generator=g)
    weight = share * float((X.T @ y).abs().max())
    step = 0.99 / float(torch.linalg.matrix_norm(X, 2)) ** 2
    A, prior = Matrix(X), L1(weight)

    def objective(w: np.ndarray) -> float:
        return float(0.5 * np.square(X.numpy() @ w - y.numpy()).sum() + weight * np.abs(w).sum())

    def ours(n: int, objective: bool = False):
        return proximal_gradient(A, y, prior, step=step, max_iter=n, tol=NEVER, objective=objective)

    misfit, norm = pyproximal.L2(Op=pylops.MatrixMult(X.numpy()), b=y.numpy()), pyproximal.L1(sigma=weight)

    def pyprox(n: int, callback: Callable[[np.ndarray], None] | None = None) -> np.ndarray:
        return ProximalGradient(misfit, norm, x0=np.zeros(features), tau=step, niter=n, acceleration="fista",
                                callback=callback)

    def sklearn(tol: float) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return Lasso(alpha=weight / samples, fit_intercept=False, tol=tol, max_iter=3000).fit(
                X.numpy(), y.numpy()).coef_

    record: list[float] = []
    pyprox(most, lambda w: record.append(objective(w)))
    mine = ours(most, objective=True).trace["objective"]
    goal = min(min(record), min(mine), objective(sklearn(1e-8))) * (1 + distance)
    n_ours, n_theirs = needed(mine, goal), needed(record, goal)
    tol = next(t for t in 10.0 ** -np.arange(1, 8.5, 0.5) if objective(sklearn(t)) <= goal)
    case = f"lasso, {samples} x {features}, {share:g} of largest weight, to {distance:g}"
    return [time_row(case, f"pyproximal FISTA, {n_theirs} for {n_ours} iterations",
                     paired(lambda: ours(n_ours), lambda: pyprox(n_theirs), budget=10)),
            time_row(case, f"scikit-learn Lasso, tol {tol:.0e}", paired(lambda: ours(n_ours), lambda: sklearn(tol),
                                                                        budget=10))]


def mri(quick: bool, weight: float = 0.003, distance: float = 1e-3) -> list[dict[str, Any]]:
    """A complex image from a third of its Fourier samples: Condat-Vu against Chambolle-Pock on the stacked operator."""
    shape, most = ((8, 8), 200) if quick else ((256, 256), 300)
    g = torch.Generator().manual_seed(0)
    image = luma(photos(["camera"])["camera"])[128:128 + shape[0], 128:128 + shape[1]]
    mask = variable_density(shape, 3.0, generator=g)
    A = Sampling(mask, torch.complex64) @ FourierTransform(shape)
    D, terms = FiniteDifference(shape, dtype=torch.complex64), GroupL2(weight, axis=-3)
    y = A(image.to(torch.complex64))
    y = y + 0.01 * torch.randn(y.shape, dtype=y.dtype, generator=g)
    fourier = pylops.FunctionOperator(
        lambda v: A(torch.from_numpy(v.astype(np.complex64)).reshape(shape)).numpy(),
        lambda v: A.adjoint(torch.from_numpy(v.astype(np.complex64))).numpy().ravel(),
        y.numel(), image.numel(), dtype=np.complex64)
    gradient = pylops.Gradient(shape, kind="forward", edge=False, dtype=np.complex64)
    stacked = pylops.VStack([fourier, gradient])
    priors: Any = [pyproximal.L2(b=y.numpy()), pyproximal.L21(ndim=2, sigma=weight)]
    lengths: Any = [y.numel(), 2 * image.numel()]
    conjugates = pyproximal.VStack(priors, nn=lengths)
    nothing = pyproximal.L2(sigma=0.0)

    def objective(x: Tensor) -> float:
        return float(0.5 * (A(x) - y).abs().square().sum(dtype=torch.float64) + terms.value(D(x)).double())

    def ours(n: int, sigma: float, objective: bool = False):
        return primal_dual(A, y, Zero(), terms=[(terms, D)], sigma=sigma, objective=objective, max_iter=n, tol=1e-6)

    def pyprox(n: int, sigma: float, callback: Callable[[np.ndarray], None] | None = None):
        # ||A||^2 = 1 and ||D||^2 <= 8
        return PrimalDual(nothing, conjugates, stacked, x0=np.zeros(image.numel(), np.complex64),
                          tau=0.99 / (9 * sigma), mu=sigma, niter=n, callback=callback)

    records: dict[str, dict[float, list[float]]] = {"ours": {}, "peer": {}}
    for sigma in DUAL_STEPS[1::2] if quick else DUAL_STEPS:
        records["ours"][sigma] = list(ours(most, sigma, objective=True).trace["objective"])
        seen = records["peer"][sigma] = []
        pyprox(most, sigma, lambda x, to=seen: to.append(objective(torch.from_numpy(x).reshape(shape))))
    goal = min(min(record) for who in records.values() for record in who.values()) * (1 + distance)
    (n_ours, s_ours), (n_peer, s_peer) = (
        min((needed(record, goal), sigma) for sigma, record in records[who].items() if min(record) <= goal)
        for who in ("ours", "peer"))
    found = paired(lambda: ours(n_ours, s_ours), lambda: pyprox(n_peer, s_peer), pairs=5, budget=20)
    return [time_row(f"MRI, TV, {shape[0]} x {shape[1]}, to {distance:g}",
                     f"pyproximal PrimalDual, {n_peer} for {n_ours} iterations", found)]


def measure(quick: bool) -> list[dict[str, Any]]:
    rows = []
    for share in (0.1, 0.01):
        rows += lasso(quick, share, 1e-6)
    return rows + mri(quick)


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print and write the rows."""
    return command("solvers", __doc__ or "", measure, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
