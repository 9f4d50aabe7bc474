"""scikit-learn estimators with a number of columns in place of a penalty: best subsets and matching pursuit."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
import torch

from sparsepriors import _checks
from sparsepriors.regression._linear import Linear
from sparsepriors.regression._unit_design import unit_design
from sparsepriors.regression.best_subset import best_subset_path
from sparsepriors.solvers import Solution, orthogonal_matching_pursuit


class _Greedy(Linear):
    """What both have after a fit."""

    def _keep_columns(self, found: Solution, dtype: Any) -> Self:
        self.coef_ = found.x.numpy().astype(dtype)
        self.intercept_ = float(found.extras["intercept"])
        self.n_iter_ = found.iterations
        self.support_ = np.flatnonzero(self.coef_)
        return self


class BestSubset(_Greedy):
    """Least squares with the k columns that leave the least residual, k given or chosen by an information criterion.

    Parameters
    ----------
    k
        Number of columns; by default the one with the least ``criterion_path_``.
    criterion
        ``"gic"``, ``n log(residual / n) + k log(p) log(log n)``, finds the true number as n grows; ``"ebic"``, with
        ``k log n + 2 log(p choose k)`` behind the first term, takes in fewer columns of noise where n is a hundred or
        two.
    max_k
        Largest number that is tried where k is not given; by default ``n / (log(p) log(log n))``, and at least 1.
    fit_intercept
        Whether there is a free intercept.
    max_iter
        Most exchanges of columns for each number of columns.

    Attributes
    ----------
    coef_, intercept_, support_
        ``(p,)``, a number, and the columns whose coefficient is not zero.
    k_
        Number of columns that the criterion chose, or k.
    criterion_path_
        The criterion for 0, 1, 2, ... columns, up to the last that was tried.
    n_iter_
        Numbers of columns that were visited.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsepriors.regression import BestSubset
    >>> X = np.random.default_rng(0).standard_normal((100, 200))
    >>> model = BestSubset(criterion="ebic").fit(X, X[:, 0] - 2 * X[:, 1] + 0.1 * X[:, 2] * X[:, 3])
    >>> model.support_
    array([0, 1])
    """

    def __init__(self, k: int | None = None, *, criterion: str = "gic", max_k: int | None = None,
                 fit_intercept: bool = True, max_iter: int = 100) -> None:
        self.k = k
        self.criterion = criterion
        self.max_k = max_k
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to ``(n, p)`` X, dense or sparse, and ``(n,)`` y; weights count as numbers of rows.

        Raises
        ------
        TypeError, ValueError
            If a parameter or the data do not fit.
        """
        for name in ("k", "max_k"):
            if (value := getattr(self, name)) is not None:
                _checks.count(name, value, low=1)
        _checks.count("max_iter", self.max_iter, low=1)
        _checks.one_of("criterion", self.criterion, ("gic", "ebic"))
        A, b, weights, n = self._data(X, y, sample_weight)
        if weights is not None:  # as counts of rows, which the criterion is about
            n = float(np.broadcast_to(np.asarray(sample_weight, dtype=float), len(b)).sum())
            weights = weights * (n / float(weights.sum()))
        p = A.shape[1]
        if (most := self.k or self.max_k) is None:
            most = max(1, math.floor(n / max(math.log(max(p, 2)) * math.log(max(math.log(max(n, 1.0)), 1.0)), 1.0)))
        path = list(best_subset_path(A, b, range(min(most, p) + 1), weights=weights,
                                     intercept=bool(self.fit_intercept), max_iter=self.max_iter))
        self.criterion_path_ = np.array([float(found.extras[self.criterion]) for found in path])
        best = path[-1 if self.k is not None else int(self.criterion_path_.argmin())]
        self._keep_columns(best, np.float32 if A.dtype in (torch.float32, np.float32) else np.float64)
        self.k_ = len(self.support_)
        return self


class OrthogonalMatchingPursuit(_Greedy):
    """Least squares with columns that are chosen one by one, the one first that correlates most with what is left.

    Columns compete as if they had equal norms, whatever their scales. It is faster than `BestSubset` and leaves a
    larger residual.

    Parameters
    ----------
    k
        Most columns; by default a tenth of them, and at least one, as in scikit-learn.
    tol
        Share of the norm of y, centred where there is an intercept, at which the residual is small enough.
    fit_intercept
        Whether there is a free intercept.

    Attributes
    ----------
    coef_, intercept_, support_
        ``(p,)``, a number, and the columns whose coefficient is not zero.
    n_iter_
        Steps made.
    certificate_
        Norm of the residual over that of y: what ``tol`` was compared with at the end.
    """

    def __init__(self, k: int | None = None, *, tol: float = 1e-6, fit_intercept: bool = True) -> None:
        self.k = k
        self.tol = tol
        self.fit_intercept = fit_intercept

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to ``(n, p)`` X, dense or sparse, and ``(n,)`` y.

        Raises
        ------
        TypeError, ValueError
            If a parameter or the data do not fit.
        """
        if self.k is not None:
            _checks.count("k", self.k, low=1)
        _checks.positive("tol", self.tol)
        A, b, weights, n = self._data(X, y, sample_weight)
        design = unit_design(A, weights, bool(self.fit_intercept))
        s = torch.ones_like(b) if weights is None else weights
        mean = float(b @ s) / n if self.fit_intercept else 0.0
        found = orthogonal_matching_pursuit(design, (b - mean) * s.sqrt(), self.k or max(1, A.shape[1] // 10),
                                            tol=self.tol)
        self.certificate_ = found.certificate
        x = found.x * design.scale
        intercept = torch.tensor(mean - float(design.means @ x), dtype=torch.float64)
        found = Solution(x, found.trace, found.iterations, found.converged, found.certificate,
                         {"intercept": intercept})
        return self._keep_columns(found, np.float32 if A.dtype in (torch.float32, np.float32) else np.float64)
