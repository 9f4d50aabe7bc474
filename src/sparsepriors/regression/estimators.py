"""scikit-learn estimators: least squares with any prior, at one strength or along a cross-validated path."""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.operators import Matrix
from sparsepriors.priors import L1, Prior, Scaled
from sparsepriors.regression._forms import separable
from sparsepriors.regression.descent import coordinate_descent, largest_factor, regularization_path
from sparsepriors.solvers import Solution, proximal_gradient

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import check_cv
    from sklearn.utils.parallel import Parallel, delayed
    from sklearn.utils.validation import (
        _check_sample_weight,  # pyright: ignore[reportPrivateUsage]
        check_is_fitted,
        validate_data,
    )
except ImportError as e:
    raise ImportError("the estimators of sparsepriors.regression need scikit-learn: "
                      "pip install 'sparsepriors[statistics]'") from e

_LEAST_STRENGTH = 1e-200  # where the response is constant, every strength has the zero solution
_GRADIENT_STEPS = 100  # iterations of proximal gradient for one round of coordinate descent


class _Linear(RegressorMixin, BaseEstimator):
    """Prediction and the checks that both estimators share."""

    prior: Prior | None
    fit_intercept: bool
    tol: float
    max_iter: int
    coef_: np.ndarray
    intercept_: float

    def predict(self, X: Any) -> np.ndarray:
        """``X coef_ + intercept_``: ``(n,)``."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse=["csr", "csc"], dtype=[np.float64, np.float32], reset=False)
        return X @ self.coef_ + self.intercept_

    @property
    def sparse_coef_(self) -> Any:
        """``coef_`` as a SciPy row, as scikit-learn's Lasso gives it."""
        import scipy.sparse

        return scipy.sparse.csr_matrix(self.coef_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _data(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Tensor, Tensor | None, float]:
        """Design, response, weights that sum to n (None for equal ones), and n."""
        X, y = validate_data(self, X, y, accept_sparse="csc", dtype=[np.float64, np.float32], order="F",
                             y_numeric=True)
        weights = None
        if sample_weight is not None:
            s = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
            weights = torch.from_numpy(s * (len(s) / s.sum()))
        A = torch.from_numpy(X) if isinstance(X, np.ndarray) else X
        return A, torch.from_numpy(np.ascontiguousarray(y, dtype=np.float64)), weights, float(len(y))

    def _options(self) -> tuple[Prior, dict[str, Any]]:
        """The prior and the keywords of the solvers; `TypeError` or `ValueError` for a bad parameter."""
        prior = L1(1.0) if self.prior is None else self.prior
        if not isinstance(prior, Prior):
            raise TypeError(f"prior must be a Prior, got {type(prior).__name__}")
        _checks.positive("tol", self.tol)
        _checks.count("max_iter", self.max_iter, low=1)
        return prior, {"intercept": bool(self.fit_intercept), "tol": self.tol, "max_iter": self.max_iter}

    def _keep(self, found: Solution, dtype: Any) -> None:
        self.coef_ = found.x.numpy().astype(dtype)
        self.intercept_ = float(found.extras["intercept"])
        self.n_iter_ = found.iterations
        self.certificate_ = found.certificate
        if not found.converged:
            warnings.warn(f"{type(self).__name__} stopped after max_iter = {found.iterations} rounds at a certificate "
                          f"of {found.certificate:.1e}, tol is {self.tol:g}", ConvergenceWarning, stacklevel=3)


class SparseRegressor(_Linear):
    """Minimise ``1/(2 sum s) sum_i s_i (x_i.w + b - y_i)^2 + alpha prior(w)``, s the sample weights.

    Parameters
    ----------
    prior
        Any `Prior` of vectors; `L1` by default, which makes this the Lasso. Separable priors that the compiled
        coordinate descent knows are solved by it, all others (groups, SLOPE, one's own class) by proximal gradient,
        which takes dense X only.
    alpha
        Positive strength.
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
        ``(p,)`` and a number.
    n_iter_, certificate_
        Rounds made, and what ``tol`` was compared with at the end.

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

    def __init__(self, prior: Prior | None = None, *, alpha: float = 1.0, fit_intercept: bool = True,
                 tol: float = 1e-6, max_iter: int = 100, warm_start: bool = False) -> None:
        self.prior = prior
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to ``(n, p)`` X, dense or sparse, and ``(n,)`` y.

        Raises
        ------
        TypeError, ValueError
            If a parameter or the data do not fit, or a sparse X meets a prior that needs proximal gradient.
        """
        prior, options = self._options()
        _checks.positive("alpha", self.alpha)
        A, b, weights, n = self._data(X, y, sample_weight)
        scaled = Scaled(prior, self.alpha * n)
        x0 = torch.from_numpy(np.asarray(self.coef_, dtype=np.float64)) if self.warm_start and hasattr(
            self, "coef_") else None
        try:
            separable(prior, A.shape[1])
        except TypeError:
            found = _by_gradient(A, b, scaled, weights, x0, **options)
        else:
            found = coordinate_descent(A, b, scaled, weights=weights, x0=x0, **options)
        self._keep(found, np.float32 if A.dtype in (torch.float32, np.float32) else np.float64)
        return self


class SparseRegressorCV(_Linear):
    """`SparseRegressor` with the strength that cross-validation finds best along a path.

    Parameters
    ----------
    prior
        Separable, one that `coordinate_descent` knows; `L1` by default.
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
        ``(n_alphas, folds)`` mean squared errors on the held-out folds.
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
        """Fit to ``(n, p)`` X, dense or sparse, and ``(n,)`` y.

        Raises
        ------
        TypeError, ValueError
            If a parameter or the data do not fit, or coordinate descent has no form for the prior.
        """
        prior, options = self._options()
        A, b, weights, n = self._data(X, y, sample_weight)
        separable(prior, A.shape[1])
        splitter: Any = check_cv(self.cv)
        folds = list(splitter.split(np.empty((len(b), 1)), b.numpy()))
        self.alphas_ = self._strengths(A, b, prior, weights, n)
        errors: Any = Parallel(n_jobs=self.n_jobs)(
            delayed(_held_out)(A, b, weights, prior, self.alphas_, train, test, options) for train, test in folds)
        self.mse_path_ = np.stack(errors, axis=1)
        best = int(self.mse_path_.mean(axis=1).argmin())
        self.alpha_ = float(self.alphas_[best])
        *_, found = regularization_path(A, b, prior, [float(a) * n for a in self.alphas_[:best + 1]], weights=weights,
                                        **options)
        self._keep(found, np.float32 if A.dtype in (torch.float32, np.float32) else np.float64)
        return self

    def _strengths(self, A: Any, b: Tensor, prior: Prior, weights: Tensor | None, n: float) -> np.ndarray:
        if self.alphas is not None:
            alphas = np.sort(np.asarray(self.alphas, dtype=np.float64).reshape(-1))[::-1]
            if not alphas.size or not (alphas > 0).all() or not np.isfinite(alphas).all():
                raise ValueError(f"alphas must be positive and finite, got {self.alphas}")
            return alphas
        _checks.count("n_alphas", self.n_alphas, low=1)
        if not 0 < self.eps < 1:
            raise ValueError(f"eps must lie strictly between 0 and 1, got {self.eps}")
        top = largest_factor(A, b, prior, weights=weights, intercept=bool(self.fit_intercept)) / n
        return max(top, _LEAST_STRENGTH) * np.geomspace(1, self.eps, self.n_alphas)


def _held_out(A: Any, b: Tensor, weights: Tensor | None, prior: Prior, alphas: np.ndarray, train: np.ndarray,
              test: np.ndarray, options: dict[str, Any]) -> np.ndarray:
    """Mean squared errors on the test rows of the path that the training rows give."""
    inside, held = (torch.from_numpy(np.ascontiguousarray(rows)) for rows in (train, test))
    s = None if weights is None else weights[inside]
    scale = float(len(train)) if s is None else float(s.sum())
    design, new = (A[rows] if isinstance(A, Tensor) else A[rows.numpy()] for rows in (inside, held))
    path = regularization_path(design, b[inside], prior, [float(a) * scale for a in alphas], weights=s, **options)
    away = torch.ones_like(b[held]) if weights is None else weights[held]
    errors = []
    for found in path:
        guess = torch.from_numpy(new @ found.x.numpy()) if not isinstance(new, Tensor) else new.double() @ found.x
        errors.append(float((away * (guess + found.extras["intercept"] - b[held]).square()).sum() / away.sum()))
    return np.asarray(errors)


def _by_gradient(A: Any, b: Tensor, prior: Prior, weights: Tensor | None, x0: Tensor | None, *, intercept: bool,
                 tol: float, max_iter: int) -> Solution:
    """The same problem by proximal gradient, for any prior; the design must be dense."""
    if not isinstance(A, Tensor):
        raise TypeError(f"X must be dense for {prior}, which coordinate descent has no form for")
    A = A.double()
    s = torch.ones_like(b) if weights is None else weights
    means = s @ A / s.sum() if intercept else torch.zeros(A.shape[1], dtype=torch.float64)
    mean = s @ b / s.sum() if intercept else torch.zeros((), dtype=torch.float64)
    roots = s.sqrt()
    found = proximal_gradient(Matrix((A - means) * roots[:, None]), (b - mean) * roots, prior, accelerated=prior.convex,
                              objective=False, x0=x0, tol=tol, max_iter=_GRADIENT_STEPS * max_iter)
    return Solution(found.x, found.trace, found.iterations, found.converged, found.certificate,
                    {"intercept": mean - means @ found.x})
