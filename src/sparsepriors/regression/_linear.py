"""What linear scikit-learn estimators of dense designs share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as e:
    raise ImportError("the estimators of sparsepriors.regression need scikit-learn: "
                      "pip install 'sparsepriors[statistics]'") from e


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
