"""Sparse linear models: a fast solver for designs given by columns, and scikit-learn estimators over any prior."""

from typing import TYPE_CHECKING, Any

from sparsepriors.regression.descent import coordinate_descent, largest_factor, regularization_path
from sparsepriors.regression.optimal_design import (
    OptimalDesign,
    barycentric_spanner,
    g_optimal_design,
    spanner_coefficients,
)

if TYPE_CHECKING:
    from sparsepriors.regression.estimators import SparseRegressor, SparseRegressorCV

__all__ = [
    "OptimalDesign",
    "SparseRegressor",
    "SparseRegressorCV",
    "barycentric_spanner",
    "coordinate_descent",
    "g_optimal_design",
    "largest_factor",
    "regularization_path",
    "spanner_coefficients",
]


def __getattr__(name: str) -> Any:
    # The estimators stand on scikit-learn, which the solver does not need and which takes its time to import.
    if name in ("SparseRegressor", "SparseRegressorCV"):
        from sparsepriors.regression import estimators

        return getattr(estimators, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
