"""Sparse linear models: solvers that need the columns of a matrix, and scikit-learn estimators on them."""

from typing import TYPE_CHECKING, Any

from sparsepriors.regression.audits import Audit, audit
from sparsepriors.regression.best_subset import best_subset, best_subset_path
from sparsepriors.regression.descent import coordinate_descent, largest_factor, logistic_regression, regularization_path
from sparsepriors.regression.kron_greedy import kron_least_squares, kron_omp
from sparsepriors.regression.kron_sbl import kron_sbl, kron_sbl_cost
from sparsepriors.regression.mechanisms import GaussianMechanism, L2BallRandomiser, PrivacyReport
from sparsepriors.regression.messages import (
    GradientMechanism,
    Message,
    MomentMechanism,
    MomentServer,
    ThresholdingServer,
)
from sparsepriors.regression.optimal_design import (
    OptimalDesign,
    barycentric_spanner,
    g_optimal_design,
    spanner_coefficients,
)
from sparsepriors.regression.pattern_coupled import pattern_coupled_bayes
from sparsepriors.regression.preconditioner import Preconditioner, find_preconditioner
from sparsepriors.regression.reweighted import adaptive_lasso
from sparsepriors.regression.sparse_bayes import sparse_bayes, sparse_bayes_cost

if TYPE_CHECKING:
    from sparsepriors.regression.bayes_estimator import SparseBayesRegressor
    from sparsepriors.regression.classifier import SparseClassifier
    from sparsepriors.regression.elementary import SoftOLS
    from sparsepriors.regression.estimators import SparseRegressor, SparseRegressorCV
    from sparsepriors.regression.greedy import BestSubset, OrthogonalMatchingPursuit
    from sparsepriors.regression.preconditioned import PreconditionedLasso
    from sparsepriors.regression.private import LDPIHT, NonInteractiveLDP, NotPositiveDefinite, PublicCovariance

__all__ = [
    "LDPIHT",
    "Audit",
    "BestSubset",
    "GaussianMechanism",
    "GradientMechanism",
    "L2BallRandomiser",
    "Message",
    "MomentMechanism",
    "MomentServer",
    "NonInteractiveLDP",
    "NotPositiveDefinite",
    "OptimalDesign",
    "OrthogonalMatchingPursuit",
    "PreconditionedLasso",
    "Preconditioner",
    "PrivacyReport",
    "PublicCovariance",
    "SoftOLS",
    "SparseBayesRegressor",
    "SparseClassifier",
    "SparseRegressor",
    "SparseRegressorCV",
    "ThresholdingServer",
    "adaptive_lasso",
    "audit",
    "barycentric_spanner",
    "best_subset",
    "best_subset_path",
    "coordinate_descent",
    "find_preconditioner",
    "g_optimal_design",
    "kron_least_squares",
    "kron_omp",
    "kron_sbl",
    "kron_sbl_cost",
    "largest_factor",
    "logistic_regression",
    "pattern_coupled_bayes",
    "regularization_path",
    "spanner_coefficients",
    "sparse_bayes",
    "sparse_bayes_cost",
]

_ESTIMATORS = {"SparseRegressor": "estimators", "SparseRegressorCV": "estimators", "SparseClassifier": "classifier",
               "SparseBayesRegressor": "bayes_estimator", "SoftOLS": "elementary", "LDPIHT": "private",
               "NonInteractiveLDP": "private", "NotPositiveDefinite": "private", "PublicCovariance": "private",
               "BestSubset": "greedy", "OrthogonalMatchingPursuit": "greedy",
               "PreconditionedLasso": "preconditioned"}


def __getattr__(name: str) -> Any:
    # The estimators stand on scikit-learn, which the solvers do not need and which takes its time to import.
    if name in _ESTIMATORS:
        import importlib

        return getattr(importlib.import_module(f"{__name__}.{_ESTIMATORS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
