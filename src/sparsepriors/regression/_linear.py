"""What linear scikit-learn estimators share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.utils.validation import (
        _check_sample_weight,  # pyright: ignore[reportPrivateUsage]
        check_is_fitted,
        validate_data,
    )
except ImportError as e:
    raise ImportError("the estimators of sparsepriors.regression need scikit-learn: "
                      "pip install 'sparsepriors[statistics]'") from e


class Linear(RegressorMixin, BaseEstimator):
    """Checks of dense and sparse data with weights, and prediction by ``coef_`` and ``intercept_``."""

    coef_: np.ndarray
    intercept_: float | np.ndarray

    def predict(self, X: Any) -> np.ndarray:
        """``X coef_ + intercept_``: ``(n,)``, or ``(n, tasks)`` after a fit to several responses."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse=["csr", "csc"], dtype=[np.float64, np.float32], reset=False)
        return X @ self.coef_.T + self.intercept_

    @property
    def sparse_coef_(self) -> Any:
        """``coef_`` as a SciPy row, as scikit-learn's Lasso gives it."""
        import scipy.sparse

        return scipy.sparse.csr_matrix(self.coef_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.multi_output = self._several()
        tags.target_tags.single_output = not self._several()
        return tags

    def _several(self) -> bool:
        """Whether a response may have several columns."""
        return False

    def _data(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Tensor, Tensor | None, float]:
        """Design, response, weights that sum to n (None for equal ones), and n."""
        X, y = validate_data(self, X, y, accept_sparse="csc", dtype=[np.float64, np.float32], order="F",
                             y_numeric=True, multi_output=self._several())
        weights = None
        if sample_weight is not None:
            s = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
            weights = torch.from_numpy(s * (len(s) / s.sum()))
        A = torch.from_numpy(X) if isinstance(X, np.ndarray) else X
        return A, torch.from_numpy(np.ascontiguousarray(y, dtype=np.float64)), weights, float(len(y))


class DenseLinear(RegressorMixin, BaseEstimator):
    """Checks of the data, and prediction by ``coef_`` and ``intercept_``."""

    coef_: np.ndarray
    intercept_: float

    def predict(self, X: Any) -> np.ndarray:
        """``X coef_ + intercept_``: ``(n,)``."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return X @ self.coef_ + self.intercept_

    def _data(self, X: Any, y: Any) -> tuple[Tensor, Tensor]:
        """Design and response in the design's precision."""
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], y_numeric=True)
        return torch.from_numpy(np.ascontiguousarray(X)), torch.from_numpy(np.ascontiguousarray(y, dtype=X.dtype))
