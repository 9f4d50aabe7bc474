"""How prior and measurement meet."""

from sparsepriors.solvers.cg import conjugate_gradient, least_squares
from sparsepriors.solvers.csalsa import csalsa
from sparsepriors.solvers.solution import Callback, Solution, State

__all__ = ["Callback", "Solution", "State", "conjugate_gradient", "csalsa", "least_squares"]
