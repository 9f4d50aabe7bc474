"""The Lasso in learnt coordinates, as a scikit-learn estimator."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import check_cv
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.priors import L1
from sparsepriors.regression._linear import Linear
from sparsepriors.regression.descent import coordinate_descent, largest_factor, regularization_path
from sparsepriors.regression.preconditioner import find_preconditioner
from sparsepriors.solvers import Solution

_SCALED_STEPS = 30    # of the alternation between noise level and solution
_SETTLED = 1e-4       # relative change of the noise level at which it ends

THRESHOLDS = (0.0, 0.03, 0.1, 0.3)
"""Shares of the largest coordinate that a refit is tried with."""


class PreconditionedLasso(Linear):
    """Minimise ``1/(2n) ||y - X S u||^2 + lam ||u||_1`` for coordinates S learnt from X; the coefficients are S u.

    For designs with nearly collinear columns: where a sparse signal has large coefficients that cancel, the Lasso
    shrinks it away, and this does not, for most supports. See `find_preconditioner`.

    Parameters
    ----------
    k
        Size of the supports that S is learnt for; where X has fewer rows or columns, that.
    lam
        ``"cv"``: the best of ``n_lams`` by cross-validation; ``"theory"``: ``sigma sqrt(2 log(d) / n)``; or a number.
    refit
        Whether the folds of ``"cv"`` may also choose a threshold: coordinates of at most this share of the largest
        (one of `THRESHOLDS`) become zero, and the others are fitted anew by least squares, which takes the shrinkage
        away. Taken where it has the least error on the folds, and never with half as many coordinates as rows.
    sigma
        Standard deviation of the noise, for ``"theory"``; by default found together with the solution (the scaled
        Lasso).
    n_lams, eps, cv
        Of the path of ``"cv"``, which falls by the factor ``eps``: its points, its range, and the folds.
    fit_intercept
        Whether there is a free intercept.
    tol, max_iter
        Of `coordinate_descent`.
    random_state
        Seed of the random supports.

    Attributes
    ----------
    coef_, intercept_
        ``(p,)`` in the coordinates of X, and a number. With nearly dependent columns coefficients may be huge and
        cancel: compare predictions.
    lam_, threshold_, preconditioner_
        What was taken; ``threshold_`` is ``None`` without a refit, ``preconditioner_`` where no column varies.
    n_iter_, certificate_
        Rounds made, and what ``tol`` was compared with at the end.

    Notes
    -----
    Residuals below 1e-9 count as zero: designs with a condition number of 1e15 are beyond double precision.

    References
    ----------
    Chandrasekaran, Meka, Stavropoulos, Sparse linear regression is easy on random supports, arXiv:2511.06211 (2025).
    Sun, Zhang, Scaled sparse linear regression, Biometrika 99 (2012).
    """

    def __init__(self, k: int = 5, *, lam: str | float = "cv", refit: bool = False, sigma: float | None = None,
                 n_lams: int = 30, eps: float = 1e-3, cv: Any = None, fit_intercept: bool = True, tol: float = 1e-6,
                 max_iter: int = 100, random_state: int = 0) -> None:
        self.k = k
        self.lam = lam
        self.refit = refit
        self.sigma = sigma
        self.n_lams = n_lams
        self.eps = eps
        self.cv = cv
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to ``(n, p)`` X, made dense if it is sparse, and ``(n,)`` y.

        Raises
        ------
        TypeError, ValueError
            If a parameter or the data do not fit.
        """
        self._check_parameters()
        A, b, _, n = self._data(X, y, None)
        A = A.double() if isinstance(A, Tensor) else torch.from_numpy(A.toarray())
        means = A.mean(dim=0) if self.fit_intercept else torch.zeros(A.shape[1], dtype=torch.float64)
        mean = float(b.mean()) if self.fit_intercept else 0.0
        centred = A - means
        centred = torch.where(centred.square().sum(dim=0) > 1e-20 * n * means.square(), centred, 0.0)
        self.threshold_ = None
        dtype = np.float32 if getattr(X, "dtype", None) == np.float32 else np.float64
        if len(b) < 2 or not bool(centred.any()):
            self.preconditioner_, self.lam_ = None, 0.0
            self.coef_, self.intercept_ = np.zeros(len(means), dtype=dtype), mean
            self.n_iter_, self.certificate_ = 0, 0.0
            return self
        found = find_preconditioner(centred, min(self.k, *centred.shape),
                                    generator=torch.Generator().manual_seed(self.random_state))
        atoms, y_centred = math.sqrt(n) * found.atoms, b - mean
        if self.lam == "theory":
            solution = self._by_theory(atoms, y_centred)
        else:
            self.lam_, share = self._by_folds(atoms, y_centred) if self.lam == "cv" else (float(self.lam), None)
            solution = self._solve(atoms, y_centred, self.lam_)
            again = None if share is None else thresholded_refit(atoms, y_centred, solution.x, share)
            if again is not None:
                solution, self.threshold_ = replace(solution, x=again), share
        w = found.apply(solution.x)
        self.preconditioner_ = found
        self.coef_, self.intercept_ = w.numpy().astype(dtype), mean - float(means @ w)
        self.n_iter_, self.certificate_ = solution.iterations, solution.certificate
        if not solution.converged:
            warnings.warn(f"PreconditionedLasso stopped after max_iter = {solution.iterations} rounds at a certificate "
                          f"of {solution.certificate:.1e}, tol is {self.tol:g}", ConvergenceWarning, stacklevel=2)
        return self

    def _check_parameters(self) -> None:
        _checks.count("k", self.k, low=1)
        if isinstance(self.lam, str):
            _checks.one_of("lam", self.lam, ("cv", "theory"))
        else:
            _checks.positive("lam", self.lam)
        if not isinstance(self.refit, bool | np.bool_):
            raise TypeError(f"refit must be a bool, got {type(self.refit).__name__}")
        if self.refit and self.lam != "cv":
            raise ValueError(f"refit must be False unless lam is 'cv', whose folds judge it, got lam = {self.lam!r}")
        if self.sigma is not None:
            _checks.positive("sigma", self.sigma)
        _checks.count("n_lams", self.n_lams, low=1)
        if not 0 < self.eps < 1:
            raise ValueError(f"eps must lie strictly between 0 and 1, got {self.eps}")
        _checks.positive("tol", self.tol)
        _checks.count("max_iter", self.max_iter, low=1)
        _checks.count("random_state", self.random_state)

    def _solve(self, atoms: Tensor, y: Tensor, lam: float, x0: Tensor | None = None) -> Solution:
        return coordinate_descent(atoms, y, L1(max(lam, 1e-200) * len(y)), x0=x0, tol=self.tol, max_iter=self.max_iter)

    def _by_theory(self, atoms: Tensor, y: Tensor) -> Solution:
        n, d = atoms.shape
        factor = math.sqrt(2 * math.log(max(d, 2)) / n)
        sigma = float(y.norm()) / math.sqrt(n) if self.sigma is None else self.sigma
        solution = self._solve(atoms, y, factor * sigma)
        for _ in range(_SCALED_STEPS if self.sigma is None else 0):
            new = float((y - atoms @ solution.x).norm()) / math.sqrt(n)
            if abs(new - sigma) <= _SETTLED * sigma:
                break
            sigma = new
            solution = self._solve(atoms, y, factor * sigma, solution.x)
        self.lam_ = factor * sigma
        return solution

    def _by_folds(self, atoms: Tensor, y: Tensor) -> tuple[float, float | None]:
        """The strength with the least error on the folds, and the threshold where a refit has less."""
        n = len(y)
        top = largest_factor(atoms, y, L1(1.0)) / n
        lams = max(top, 1e-200) * np.geomspace(1, self.eps, self.n_lams)
        splitter: Any = check_cv(self.cv)
        shares = (None, *THRESHOLDS) if self.refit else (None,)
        errors = np.zeros((len(shares), len(lams)))
        for train, test in splitter.split(np.empty((n, 1))):
            inside, held = torch.from_numpy(train), torch.from_numpy(test)
            path = regularization_path(atoms[inside], y[inside], L1(1.0), [float(v) * len(train) for v in lams],
                                       intercept=bool(self.fit_intercept), tol=self.tol, max_iter=self.max_iter)
            means = atoms[inside].mean(dim=0) if self.fit_intercept else torch.zeros_like(atoms[0])
            mean = y[inside].mean() if self.fit_intercept else y.new_zeros(())
            for i, found in enumerate(path):
                for j, share in enumerate(shares):
                    x, intercept = found.x, found.extras["intercept"]
                    if share is not None:
                        again = thresholded_refit(atoms[inside] - means, y[inside] - mean, x, share)
                        if again is None:
                            errors[j, i] = np.inf
                            continue
                        x, intercept = again, mean - means @ again
                    errors[j, i] += float((atoms[held] @ x + intercept - y[held]).square().sum())
        j, i = np.unravel_index(int(errors.argmin()), errors.shape)
        return float(lams[i]), shares[j]


def thresholded_refit(atoms: Float[Tensor, "n d"], y: Float[Tensor, " n"], u: Float[Tensor, " d"],
                      share: float) -> Float[Tensor, " d"] | None:
    """Least squares of y on the atoms whose coordinate in u exceeds this share of the largest, zero elsewhere.

    Returns
    -------
    Tensor or None
        ``None`` where no coordinate is left, or half as many as there are rows.
    """
    size = u.abs()
    left = (size > share * size.max()).nonzero()[:, 0]
    if not 0 < 2 * len(left) < len(y):
        return None
    fitted = torch.linalg.lstsq(atoms[:, left], y[:, None], driver="gelsd").solution[:, 0]
    return torch.zeros_like(u).index_copy(0, left, fitted)
