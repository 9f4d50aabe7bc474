"""Sparse linear models: solvers that need the columns of a matrix, and scikit-learn estimators on them."""

from typing import TYPE_CHECKING, Any

from sparsepriors.regression.descent import coordinate_descent, largest_factor, regularization_path
from sparsepriors.regression.kron_greedy import kron_least_squares, kron_omp
from sparsepriors.regression.kron_sbl import kron_sbl, kron_sbl_cost
from sparsepriors.regression.optimal_design import (
    OptimalDesign,
    barycentric_spanner,
    g_optimal_design,
    spanner_coefficients,
)
from sparsepriors.regression.sparse_bayes import sparse_bayes, sparse_bayes_cost

if TYPE_CHECKING:
    from sparsepriors.regression.bayes_estimator import SparseBayesRegressor
    from sparsepriors.regression.estimators import SparseRegressor, SparseRegressorCV

__all__ = [
    "OptimalDesign",
    "SparseBayesRegressor",
    "SparseRegressor",
    "SparseRegressorCV",
    "barycentric_spanner",
    "coordinate_descent",
    "g_optimal_design",
    "kron_least_squares",
    "kron_omp",
    "kron_sbl",
    "kron_sbl_cost",
    "largest_factor",
    "regularization_path",
    "spanner_coefficients",
    "sparse_bayes",
    "sparse_bayes_cost",
]

_ESTIMATORS = {"SparseRegressor": "estimators", "SparseRegressorCV": "estimators",
               "SparseBayesRegressor": "bayes_estimator"}


def __getattr__(name: str) -> Any:
    # The estimators stand on scikit-learn, which the solvers do not need and which takes its time to import.
    if name in _ESTIMATORS:
        import importlib

        return getattr(importlib.import_module(f"{__name__}.{_ESTIMATORS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
