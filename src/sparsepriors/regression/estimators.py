"""scikit-learn estimators: least squares with any prior, at one strength or along a cross-validated path."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.operators import Matrix
from sparsepriors.priors import L1, GroupL2, Groups, Prior, Scaled
from sparsepriors.regression._linear import Linear
from sparsepriors.regression.descent import by_columns, coordinate_descent, largest_factor, regularization_path
from sparsepriors.solvers import Solution, proximal_gradient

try:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import check_cv
    from sklearn.utils.parallel import Parallel, delayed
except ImportError as e:
    raise ImportError("the estimators of sparsepriors.regression need scikit-learn: "
                      "pip install 'sparsepriors[statistics]'") from e

_LEAST_STRENGTH = 1e-200  # where the response is constant, every strength has the zero solution
_GRADIENT_STEPS = 100  # iterations of proximal gradient for one round of coordinate descent


class _Penalised(Linear):
    """The parameters that both estimators share."""

    prior: Prior | None
    fit_intercept: bool
    tol: float
    max_iter: int

    def _options(self) -> tuple[Prior, dict[str, Any]]:
        """The prior and the keywords of the solvers; `TypeError` or `ValueError` for a bad parameter."""
        prior = L1(1.0) if self.prior is None else self.prior
        if not isinstance(prior, Prior):
            raise TypeError(f"prior must be a Prior, got {type(prior).__name__}")
        _checks.positive("tol", self.tol)
        _checks.count("max_iter", self.max_iter, low=1)
        return prior, {"intercept": bool(self.fit_intercept), "tol": self.tol, "max_iter": self.max_iter}

    def _several(self) -> bool:
        prior = self.prior
        while isinstance(prior, Scaled):
            prior = prior.prior
        return isinstance(prior, GroupL2 | Groups) and prior.axis in (-1, 1, (-1,), (1,))

    def _keep(self, found: Solution, dtype: Any, n: float) -> None:
        self.coef_ = found.x.numpy().T.astype(dtype)
        intercept = found.extras["intercept"]
        self.intercept_ = intercept.numpy().astype(dtype) if intercept.ndim else float(intercept)
        self.n_iter_ = found.iterations
        self.certificate_ = found.certificate
        self.dual_gap_ = float(found.extras["gap"]) / n
        if not found.converged:
            warnings.warn(f"{type(self).__name__} stopped after max_iter = {found.iterations} rounds at a certificate "
                          f"of {found.certificate:.1e}, tol is {self.tol:g}", ConvergenceWarning, stacklevel=3)


class SparseRegressor(_Penalised):
    """Minimise ``sum_i s_i loss(x_i.w + b - y_i) / sum s + alpha prior(w)``, s the sample weights.

    Parameters
    ----------
    prior
        Any `Prior` of vectors; `L1` by default, which makes this the Lasso. Priors that `coordinate_descent`
        takes (separable ones, a convex one of one's own too, and a `Partition` into groups) are fitted by it, all
        others (`SLOPE`) by proximal gradient, which takes dense X and squares only. With ``GroupL2(axis=-1)``, the
        multi-task Lasso, or ``Groups(prior, axis=-1)`` the response may have several columns, and a feature serves
        all of them or none.
    alpha
        Positive strength.
    loss
        `Huber` or another that `coordinate_descent` takes; by default squares, halved.
    fit_intercept
        Whether there is a free b.
    tol
        Relative duality gap where one is known, else the relative violation of the fixed-point equation; see
        `coordinate_descent` and `proximal_gradient`.
    max_iter
        Most rounds of coordinate descent; proximal gradient makes a hundred times as many, far cheaper, iterations.
    warm_start
        Whether `fit` begins at the last ``coef_``.

    Attributes
    ----------
    coef_, intercept_
        ``(p,)`` and a number; ``(tasks, p)`` and ``(tasks,)`` for a response of several columns.
    n_iter_, certificate_
        Rounds made, and what ``tol`` was compared with at the end.
    dual_gap_
        Of the objective above; infinite where none is known.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsepriors.priors import MCP
    >>> from sparsepriors.regression import SparseRegressor
    >>> X = np.random.default_rng(0).standard_normal((60, 200))
    >>> model = SparseRegressor(MCP(gamma=3.0), alpha=0.2).fit(X, X[:, 0] - 2 * X[:, 1])
    >>> model.coef_.nonzero()[0]
    array([0, 1])
    """

    def __init__(self, prior: Prior | None = None, *, alpha: float = 1.0, loss: Prior | None = None,
                 fit_intercept: bool = True, tol: float = 1e-6, max_iter: int = 100, warm_start: bool = False) -> None:
        self.prior = prior
        self.alpha = alpha
        self.loss = loss
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to ``(n, p)`` X, dense or sparse, and ``(n,)`` or, where the prior is of rows, ``(n, tasks)`` y.

        Raises
        ------
        TypeError, ValueError
            If a parameter or the data do not fit, or a sparse X meets a prior that needs proximal gradient.
        """
        prior, options = self._options()
        _checks.positive("alpha", self.alpha)
        A, b, weights, n = self._data(X, y, sample_weight)
        scaled = Scaled(prior, self.alpha * n)
        x0 = torch.from_numpy(np.asarray(self.coef_.T, dtype=np.float64)) if self.warm_start and hasattr(
            self, "coef_") else None
        if by_columns(prior, (A.shape[1], *b.shape[1:])):
            found = coordinate_descent(A, b, scaled, weights=weights, loss=self.loss, x0=x0, **options)
        else:
            found = self._by_gradient(A, b, scaled, weights, x0, options)
        self._keep(found, np.float32 if A.dtype in (torch.float32, np.float32) else np.float64, n)
        return self

    def path(self, X: Any, y: Any, sample_weight: Any = None, *, alphas: Any = None, n_alphas: int = 100,
             eps: float = 1e-3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coefficients for falling strengths, each fit begun at the one before it; the estimator stays as it is.

        Parameters
        ----------
        alphas
            Strengths; by default ``n_alphas`` in equal ratios from the least with a zero solution to ``eps`` times it.

        Returns
        -------
        tuple
            ``(n_alphas,)`` strengths, ``(p, n_alphas)`` or ``(tasks, p, n_alphas)`` coefficients and ``(n_alphas,)``
            certificates.

        Raises
        ------
        TypeError, ValueError
            As `fit`.
        """
        prior, options = self._options()
        A, b, weights, n = self._data(X, y, sample_weight)
        shared = {"weights": weights, "intercept": bool(self.fit_intercept)}
        if by_columns(prior, (A.shape[1], *b.shape[1:])):
            alphas = _strengths(alphas, n_alphas, eps,
                                lambda: largest_factor(A, b, prior, loss=self.loss, **shared) / n)
            found = list(regularization_path(A, b, prior, [float(a) * n for a in alphas], weights=weights,
                                             loss=self.loss, **options))
        else:
            alphas = _strengths(alphas, n_alphas, eps, lambda: _largest_by_prox(A, b, prior, **shared) / n)
            found, x0 = [], None
            for a in alphas:
                found.append(self._by_gradient(A, b, Scaled(prior, float(a) * n), weights, x0, options))
                x0 = found[-1].x
        return alphas, np.stack([f.x.numpy().T for f in found], axis=-1), np.array([f.certificate for f in found])

    def _by_gradient(self, A: Any, b: Tensor, prior: Prior, weights: Tensor | None, x0: Tensor | None,
                     options: dict[str, Any]) -> Solution:
        if self.loss is not None:
            raise TypeError(f"loss must be None for {prior}, which coordinate descent does not take, got {self.loss}")
        return _by_gradient(A, b, prior, weights, x0, **options)


class SparseRegressorCV(_Penalised):
    """`SparseRegressor` with the strength that cross-validation finds best along a path.

    Parameters
    ----------
    prior
        One that `coordinate_descent` takes: separable, a `Partition`, or for a response of several columns
        ``GroupL2(axis=-1)`` and ``Groups(prior, axis=-1)``; `L1` by default.
    eps, n_alphas
        The path falls in ``n_alphas`` equal ratios from the least strength with a zero solution to ``eps`` times it.
    alphas
        The strengths themselves, in place of those.
    cv
        Folds or a splitter, as in scikit-learn.
    n_jobs
        Folds at a time.
    fit_intercept, tol, max_iter
        As in `SparseRegressor`.

    Attributes
    ----------
    alpha_, alphas_
        The chosen strength and all of them, falling.
    mse_path_
        ``(n_alphas, folds)`` mean squared errors on the held-out folds, over all columns of the response.
    coef_, intercept_, n_iter_, certificate_
        Of the fit to all data.
    """

    def __init__(self, prior: Prior | None = None, *, eps: float = 1e-3, n_alphas: int = 100, alphas: Any = None,
                 cv: Any = None, n_jobs: int | None = None, fit_intercept: bool = True, tol: float = 1e-6,
                 max_iter: int = 100) -> None:
        self.prior = prior
        self.eps = eps
        self.n_alphas = n_alphas
        self.alphas = alphas
        self.cv = cv
        self.n_jobs = n_jobs
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to ``(n, p)`` X, dense or sparse, and ``(n,)`` or, where the prior is of rows, ``(n, tasks)`` y.

        Raises
        ------
        TypeError, ValueError
            If a parameter or the data do not fit, or coordinate descent has no form for the prior.
        """
        prior, options = self._options()
        A, b, weights, n = self._data(X, y, sample_weight)
        if not by_columns(prior, (A.shape[1], *b.shape[1:])):
            raise TypeError("coordinate descent takes separable priors, a Partition, and priors of the rows of several "
                            f"responses' coefficients, got {type(prior).__name__} for a response of shape "
                            f"{tuple(b.shape)}")
        splitter: Any = check_cv(self.cv)
        folds = list(splitter.split(np.empty((len(b), 1)), b.numpy()))
        self.alphas_ = _strengths(self.alphas, self.n_alphas, self.eps, lambda: largest_factor(
            A, b, prior, weights=weights, intercept=bool(self.fit_intercept)) / n)
        errors: Any = Parallel(n_jobs=self.n_jobs)(
            delayed(_held_out)(A, b, weights, prior, self.alphas_, train, test, options) for train, test in folds)
        self.mse_path_ = np.stack(errors, axis=1)
        best = int(self.mse_path_.mean(axis=1).argmin())
        self.alpha_ = float(self.alphas_[best])
        *_, found = regularization_path(A, b, prior, [float(a) * n for a in self.alphas_[:best + 1]], weights=weights,
                                        **options)
        self._keep(found, np.float32 if A.dtype in (torch.float32, np.float32) else np.float64, n)
        return self


def _strengths(alphas: Any, n_alphas: int, eps: float, top: Callable[[], float]) -> np.ndarray:
    """The strengths that were given, falling, or those from the top to ``eps`` times it."""
    if alphas is not None:
        given = np.sort(np.asarray(alphas, dtype=np.float64).reshape(-1))[::-1]
        if not given.size or not (given > 0).all() or not np.isfinite(given).all():
            raise ValueError(f"alphas must be positive and finite, got {alphas}")
        return given
    _checks.count("n_alphas", n_alphas, low=1)
    if not 0 < eps < 1:
        raise ValueError(f"eps must lie strictly between 0 and 1, got {eps}")
    return max(top(), _LEAST_STRENGTH) * np.geomspace(1, eps, n_alphas)


def _held_out(A: Any, b: Tensor, weights: Tensor | None, prior: Prior, alphas: np.ndarray, train: np.ndarray,
              test: np.ndarray, options: dict[str, Any]) -> np.ndarray:
    """Mean squared errors on the test rows of the path that the training rows give."""
    inside, held = (torch.from_numpy(np.ascontiguousarray(rows)) for rows in (train, test))
    s = None if weights is None else weights[inside]
    scale = float(len(train)) if s is None else float(s.sum())
    design, new = (A[rows] if isinstance(A, Tensor) else A[rows.numpy()] for rows in (inside, held))
    path = regularization_path(design, b[inside], prior, [float(a) * scale for a in alphas], weights=s, **options)
    away = torch.ones(len(test), dtype=torch.float64) if weights is None else weights[held]
    errors = []
    for found in path:
        guess = torch.from_numpy(new @ found.x.numpy()) if not isinstance(new, Tensor) else new.double() @ found.x
        off = (guess + found.extras["intercept"] - b[held]).square().reshape(len(guess), -1).mean(dim=1)
        errors.append(float(away @ off / away.sum()))
    return np.asarray(errors)


def _by_gradient(A: Any, b: Tensor, prior: Prior, weights: Tensor | None, x0: Tensor | None, *, intercept: bool,
                 tol: float, max_iter: int) -> Solution:
    """The same problem by proximal gradient, for any prior; the design must be dense."""
    X, y, means, mean = _centred(A, b, prior, weights, intercept)
    found = proximal_gradient(Matrix(X), y, prior, accelerated=prior.convex, objective=False, x0=x0, tol=tol,
                              max_iter=_GRADIENT_STEPS * max_iter)
    return Solution(found.x, found.trace, found.iterations, found.converged, found.certificate,
                    {"intercept": mean - means @ found.x, "gap": torch.tensor(torch.inf)})


def _centred(A: Any, b: Tensor, prior: Prior, weights: Tensor | None,
             intercept: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Design and response with their weighted means taken away and rows weighted, and the means."""
    if not isinstance(A, Tensor):
        raise TypeError(f"X must be dense for {prior}, which coordinate descent has no form for")
    A = A.double()
    s = torch.ones_like(b) if weights is None else weights
    means = s @ A / s.sum() if intercept else torch.zeros(A.shape[1], dtype=torch.float64)
    mean = s @ b / s.sum() if intercept else torch.zeros((), dtype=torch.float64)
    roots = s.sqrt()
    return (A - means) * roots[:, None], (b - mean) * roots, means, mean


def _largest_by_prox(A: Any, b: Tensor, prior: Prior, weights: Tensor | None, intercept: bool) -> float:
    """The least factor, to 12 digits, that holds x = 0 fixed under proximal gradient."""
    X, y, _, _ = _centred(A, b, prior, weights, intercept)
    q = X.mT @ y
    low, high = 0.0, max(float(q.norm()), 1e-300)
    while bool(prior._prox(q, high).any()):
        low, high = high, 4 * high
        if high > 1e300:
            raise ValueError(f"no multiple of {prior} holds every coordinate at zero")
    while high - low > 1e-12 * high:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if bool(prior._prox(q, middle).any()) else (low, middle)
    return high
