"""A scikit-learn estimator for sparse Bayesian learning: no strength to choose, and error bars."""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
import torch

from sparsepriors import _checks
from sparsepriors.regression._evidence import Evidence
from sparsepriors.regression.sparse_bayes import UPDATES, maximise

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils.validation import (
        _check_sample_weight,  # pyright: ignore[reportPrivateUsage]
        check_is_fitted,
        validate_data,
    )
except ImportError as e:
    raise ImportError("the estimators of sparsepriors.regression need scikit-learn: "
                      "pip install 'sparsepriors[statistics]'") from e


class SparseBayesRegressor(RegressorMixin, BaseEstimator):
    """Linear regression with a variance for each coefficient, all found by maximising the evidence.

    Parameters
    ----------
    update
        ``"em"``, ``"mackay"`` or ``"one-by-one"``: see `sparse_bayes`.
    noise_var
        Variance of the noise; ``None`` to learn it.
    fit_intercept
        Whether there is a free constant; data are then centred.
    prune
        Columns whose prior explains less than this share of what the largest explains are given up.
    tol, max_iter
        When to stop, as in `sparse_bayes`.

    Attributes
    ----------
    coef_, intercept_
        Posterior mean ``(p,)`` and the constant.
    gamma_
        ``(p,)`` prior variances, zero where a coefficient is.
    noise_var_
        Given or learnt.
    sigma_
        Posterior covariance of the coefficients that are left, in the order of ``coef_``.
    n_iter_, certificate_, objective_
        Iterations, what ``tol`` was compared with at the end, and minus twice the logarithm of the evidence at every
        iteration, up to a constant.

    Notes
    -----
    scikit-learn's ``ARDRegression`` is MacKay's update with Gamma priors on the precisions and pruning by precision.
    An observation with the weight 2 counts as two equal observations.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsepriors.regression import SparseBayesRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((60, 30))
    >>> model = SparseBayesRegressor().fit(X, X[:, 0] - 2 * X[:, 1] + 0.1 * rng.standard_normal(60))
    >>> mean, std = model.predict(X[:1], return_std=True)
    >>> bool(abs(mean[0] - (X[0, 0] - 2 * X[0, 1])) < 3 * std[0])
    True
    """

    def __init__(self, *, update: str = "em", noise_var: float | None = None, fit_intercept: bool = True,
                 prune: float = 1e-4, tol: float = 1e-5, max_iter: int = 1000) -> None:
        self.update = update
        self.noise_var = noise_var
        self.fit_intercept = fit_intercept
        self.prune = prune
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to ``(n, p)`` X and ``(n,)`` y.

        Raises
        ------
        TypeError, ValueError
            If a parameter or the data do not fit.
        """
        _checks.one_of("update", self.update, UPDATES)
        if self.noise_var is not None:
            _checks.positive("noise_var", self.noise_var)
        _checks.nonnegative("prune", self.prune)
        if self.prune >= 1:
            raise ValueError(f"prune must be below 1, got {self.prune}")
        _checks.positive("tol", self.tol)
        _checks.count("max_iter", self.max_iter, low=1)
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], y_numeric=True)
        weights = (np.ones(len(y)) if sample_weight is None else
                   _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True))
        total = float(weights.sum())
        design, response = X.astype(np.float64), np.asarray(y, dtype=np.float64)
        means, mean = ((weights @ design / total, float(weights @ response / total)) if self.fit_intercept
                       else (np.zeros(X.shape[1]), 0.0))
        roots = np.sqrt(weights)
        evidence = Evidence.of(torch.from_numpy((design - means) * roots[:, None]),
                               torch.from_numpy((response - mean) * roots)[:, None], rows=total)
        found = maximise(evidence, self.noise_var, update=self.update, gamma=None, prune=self.prune,
                         max_iter=self.max_iter, tol=self.tol)
        self.coef_ = found.x[:, 0].numpy().astype(X.dtype)
        self.intercept_ = mean - float(means @ found.x[:, 0].numpy())
        self.gamma_ = found.extras["gamma"].numpy()
        self.noise_var_ = float(found.extras["noise_var"])
        self.sigma_ = found.extras["covariance"].numpy()
        self.n_iter_, self.certificate_ = found.iterations, found.certificate
        self.objective_ = found.trace["objective"]
        self._means = means
        if not found.converged:
            warnings.warn(f"SparseBayesRegressor stopped after max_iter = {found.iterations} iterations at a "
                          f"certificate of {found.certificate:.1e}, tol is {self.tol:g}", ConvergenceWarning,
                          stacklevel=2)
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """``X coef_ + intercept_``: ``(n,)``; with ``return_std`` also the standard deviation of a new response.

        The deviation has the noise and what is uncertain of the coefficients, not of the constant.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        mean = X @ self.coef_ + self.intercept_
        if not return_std:
            return mean
        kept = (X - self._means)[:, self.gamma_ > 0]
        return mean, np.sqrt(self.noise_var_ + ((kept @ self.sigma_) * kept).sum(1))
