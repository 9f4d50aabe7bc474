"""Contracts as functions: whoever writes an operator or a prior can put it through the checks that ours pass."""

from sparsepriors.testing.operator import check_operator, dot_test, operator_checks
from sparsepriors.testing.prior import PriorCase, check_prior
from sparsepriors.testing.solver import SolverCase, check_solver, solver_checks

__all__ = [
    "PriorCase", "SolverCase", "check_operator", "check_prior", "check_solver", "dot_test", "operator_checks",
    "solver_checks",
]
