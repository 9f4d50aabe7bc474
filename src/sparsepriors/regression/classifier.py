"""Sparse logistic regression as a scikit-learn classifier."""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
import torch

from sparsepriors import _checks
from sparsepriors.priors import L1, Prior, Scaled
from sparsepriors.regression.descent import logistic_regression

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import (
        _check_sample_weight,  # pyright: ignore[reportPrivateUsage]
        check_is_fitted,
        validate_data,
    )
except ImportError as e:
    raise ImportError("the estimators of sparsepriors.regression need scikit-learn: "
                      "pip install 'sparsepriors[statistics]'") from e


class SparseClassifier(ClassifierMixin, BaseEstimator):
    """Minimise ``sum_i s_i log(1 + exp(-y_i (x_i.w + b))) / sum s + alpha prior(w)``, y_i = 1 or -1, s the weights.

    Of more than two classes each is set against the rest.

    Parameters
    ----------
    prior
        One that `coordinate_descent` takes, not of groups; `L1` by default.
    alpha
        Positive strength.
    fit_intercept
        Whether there is a free b.
    tol, max_iter
        As in `SparseRegressor`.

    Attributes
    ----------
    classes_
        Sorted labels.
    coef_, intercept_
        ``(1, p)`` and ``(1,)`` for two classes, a row for each class of more.
    n_iter_, certificate_
        Most rounds made, and the largest number that ``tol`` was compared with at the end.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsepriors.regression import SparseClassifier
    >>> X = np.random.default_rng(0).standard_normal((80, 200))
    >>> SparseClassifier(alpha=0.15).fit(X, X[:, 0] > X[:, 1]).coef_.nonzero()[1]
    array([0, 1])
    """

    def __init__(self, prior: Prior | None = None, *, alpha: float = 0.1, fit_intercept: bool = True,
                 tol: float = 1e-6, max_iter: int = 100) -> None:
        self.prior = prior
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to ``(n, p)`` X, dense or sparse, and ``(n,)`` labels.

        Raises
        ------
        TypeError, ValueError
            If a parameter or the data do not fit, or there is one class only.
        """
        prior = L1(1.0) if self.prior is None else self.prior
        if not isinstance(prior, Prior):
            raise TypeError(f"prior must be a Prior, got {type(prior).__name__}")
        _checks.positive("alpha", self.alpha)
        _checks.positive("tol", self.tol)
        _checks.count("max_iter", self.max_iter, low=1)
        X, y = validate_data(self, X, y, accept_sparse="csc", dtype=[np.float64, np.float32], order="F")
        check_classification_targets(y)
        self.classes_, which = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"SparseClassifier needs samples of at least 2 classes, got 1 class: {self.classes_[0]}")
        n, weights = float(len(y)), None
        if sample_weight is not None:
            s = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
            weights = torch.from_numpy(s * (n / s.sum()))
        A = torch.from_numpy(X) if isinstance(X, np.ndarray) else X
        positive = [1] if len(self.classes_) == 2 else range(len(self.classes_))
        found = [logistic_regression(A, torch.from_numpy(np.where(which == k, 1.0, -1.0)),
                                     Scaled(prior, self.alpha * n), weights=weights, tol=self.tol,
                                     intercept=bool(self.fit_intercept), max_iter=self.max_iter) for k in positive]
        self.coef_ = np.stack([f.x.numpy() for f in found]).astype(X.dtype)
        self.intercept_ = np.array([float(f.extras["intercept"]) for f in found], dtype=X.dtype)
        self.n_iter_ = max(f.iterations for f in found)
        self.certificate_ = max(f.certificate for f in found)
        if not all(f.converged for f in found):
            warnings.warn(f"SparseClassifier stopped after max_iter = {self.max_iter} rounds at a certificate of "
                          f"{self.certificate_:.1e}, tol is {self.tol:g}", ConvergenceWarning, stacklevel=2)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Margins: ``(n,)`` for two classes, ``(n, classes)`` for more."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse=["csr", "csc"], dtype=[np.float64, np.float32], reset=False)
        margins = X @ self.coef_.T + self.intercept_
        return margins[:, 0] if len(self.classes_) == 2 else margins

    def predict(self, X: Any) -> np.ndarray:
        """Labels: ``(n,)``."""
        margins = self.decision_function(X)
        return self.classes_[(margins > 0).astype(int) if margins.ndim == 1 else margins.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """``(n, classes)``; of more than two classes the probabilities against the rest, over their sum."""
        margins = self.decision_function(X)
        each = 0.5 * (1 + np.tanh(margins / 2))
        if each.ndim == 1:
            return np.stack([1 - each, each], axis=1)
        return each / np.maximum(each.sum(axis=1, keepdims=True), np.finfo(each.dtype).tiny)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
