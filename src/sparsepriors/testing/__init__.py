"""Contracts as functions: prove a prior, operator, solver, kernel, plan or cache with the checks that ours pass."""

from sparsepriors.testing.cache import cache_checks, check_cache
from sparsepriors.testing.kernel import BadCall, KernelCase, check_kernel, kernel_checks
from sparsepriors.testing.operator import check_operator, dot_test, operator_checks
from sparsepriors.testing.prior import PriorCase, check_prior
from sparsepriors.testing.solver import SolverCase, check_solver, solver_checks
from sparsepriors.testing.sparsifier import check_sparsifier, sparsifier_checks

__all__ = [
    "BadCall", "KernelCase", "PriorCase", "SolverCase", "cache_checks", "check_cache", "check_kernel", "check_operator",
    "check_prior", "check_solver", "check_sparsifier", "dot_test", "kernel_checks", "operator_checks", "solver_checks",
    "sparsifier_checks",
]
