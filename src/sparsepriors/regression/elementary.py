"""Closed-form sparse regression: invert the covariance, multiply, threshold."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.priors import L1
from sparsepriors.regression._linear import DenseLinear, check_is_fitted

RULES = ("soft", "hard")


class SoftOLS(DenseLinear):
    """Soft-thresholded least squares: ``soft((X^T X / n)^-1 X^T y / n, threshold)``.

    Parameters
    ----------
    threshold
        Of the coefficients, or ``"auto"``: ``sqrt(2 log p)`` standard errors of the largest least-squares coefficient's
        error, with the noise estimated from the residuals.
    covariance_threshold
        Needed where n is not above p: off-diagonal entries of the covariance are thresholded by it before the inverse.
    rule
        ``"soft"`` or ``"hard"`` thresholding of the covariance.
    fit_intercept
        Whether columns and response are centred first.

    Attributes
    ----------
    coef_, intercept_
        ``(p,)`` and a number.
    raw_coef_
        ``(p,)``: before thresholding.
    threshold_
        That was used.

    References
    ----------
    Yang, Lozano and Ravikumar (2014), Elementary estimators for high-dimensional linear regression; Zhu et al. (2024),
    the by-product of Algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsepriors.regression import SoftOLS
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((500, 20))
    >>> model = SoftOLS().fit(X, X[:, 0] - 2 * X[:, 1] + rng.standard_normal(500))
    >>> model.coef_.nonzero()[0]
    array([0, 1])
    """

    def __init__(self, threshold: float | str = "auto", *, covariance_threshold: float | None = None,
                 rule: str = "soft", fit_intercept: bool = True) -> None:
        self.threshold = threshold
        self.covariance_threshold = covariance_threshold
        self.rule = rule
        self.fit_intercept = fit_intercept

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to ``(n, p)`` X and ``(n,)`` y.

        Raises
        ------
        TypeError, ValueError
            If a parameter or the data do not fit, or the covariance cannot be inverted.
        """
        if not isinstance(self.threshold, str):
            _checks.nonnegative("threshold", self.threshold)
        else:
            _checks.one_of("threshold", self.threshold, ("auto",))
        A, b = self._data(X, y)
        dtype = A.numpy().dtype
        A, b = A.double(), b.double()
        n, p = A.shape
        means, mean = torch.zeros(p, dtype=A.dtype), torch.zeros((), dtype=A.dtype)
        if self.fit_intercept:
            means, mean = A.mean(0), b.mean()
            A, b = A - means, b - mean
        covariance = torch.from_numpy(A.numpy().T @ A.numpy()) / n  # NumPy computes one half of a Gram matrix
        if self.covariance_threshold is None:
            if n - bool(self.fit_intercept) < p:
                raise ValueError(f"n must be above p = {p} features to invert the covariance, got n_samples = {n}; "
                                 "covariance_threshold makes it invertible")
        else:
            covariance = threshold_covariance(covariance, self.covariance_threshold, self.rule)
        factor, failed = torch.linalg.cholesky_ex(covariance)
        # Pivots of rounding size pass as positive where columns depend on each other.
        least = float(factor.diagonal().square().min()) if not failed else -math.inf
        if least <= p * torch.finfo(torch.float64).eps * float(covariance.diagonal().max()):
            hint = ("a larger covariance_threshold may make it so" if self.covariance_threshold is not None else
                    "columns depend on each other: give a covariance_threshold")
            raise ValueError(f"the covariance of X must be positive definite, got one that is not (n_samples = {n}); "
                             f"{hint}")
        raw = torch.cholesky_solve((A.mT @ b / n)[:, None], factor)[:, 0]
        self.threshold_ = self._auto(A, b, raw, factor) if isinstance(self.threshold, str) else float(self.threshold)
        coef = L1(self.threshold_).prox(raw)
        self.raw_coef_ = raw.numpy().astype(dtype)
        self.coef_ = coef.numpy().astype(dtype)
        self.intercept_ = float(mean - means @ coef)
        return self

    def path(self, thresholds: Any) -> np.ndarray:
        """``(p, len(thresholds))``: the coefficients at each threshold, from one inverse."""
        check_is_fitted(self)
        levels = np.asarray(thresholds, dtype=self.raw_coef_.dtype).reshape(-1)
        if not np.isfinite(levels).all() or (levels < 0).any():
            raise ValueError(f"thresholds must be finite and nonnegative, got {thresholds}")
        raw = self.raw_coef_[:, None]
        return np.sign(raw) * np.maximum(np.abs(raw) - levels, 0)

    @staticmethod
    def _auto(A: Tensor, b: Tensor, raw: Tensor, factor: Tensor) -> float:
        n, p = A.shape
        freedom = max(n - p, 1) if n > p else n
        noise = float((A @ raw - b).square().sum()) / freedom
        widest = float(torch.cholesky_inverse(factor).diagonal().max())
        return math.sqrt(2 * math.log(max(p, 2)) * noise * widest / n)


def threshold_covariance(covariance: Float[Tensor, "p p"], threshold: float, rule: str = "soft",
                         ) -> Float[Tensor, "p p"]:
    """A covariance whose off-diagonal entries are thresholded; the diagonal stays.

    Parameters
    ----------
    covariance
        Symmetric.
    threshold
        Nonnegative.
    rule
        ``"soft"`` shrinks the entries that it keeps, ``"hard"`` does not.

    References
    ----------
    Bickel and Levina (2008); Rothman, Levina and Zhu (2009).
    """
    _checks.inexact("covariance", covariance)
    _checks.nonnegative("threshold", threshold)
    _checks.one_of("rule", rule, RULES)
    kept = L1(threshold).prox(covariance) if rule == "soft" else torch.where(
        covariance.abs() > threshold, covariance, 0.0)
    kept.diagonal().copy_(covariance.diagonal())
    return kept
