"""How prior and measurement meet."""

from sparsepriors.solvers.admm import admm
from sparsepriors.solvers.cg import conjugate_gradient, least_squares
from sparsepriors.solvers.csalsa import csalsa
from sparsepriors.solvers.dictionary_pursuit import AtomPath, matching_pursuit
from sparsepriors.solvers.duality import duality_gap
from sparsepriors.solvers.gradient import proximal_gradient
from sparsepriors.solvers.grebsmo import godec, grebsmo
from sparsepriors.solvers.hard_thresholding import iterative_hard_thresholding
from sparsepriors.solvers.operator_pursuit import cosamp, orthogonal_matching_pursuit
from sparsepriors.solvers.plug_and_play import hqs, noise_schedule, pnp_admm, pnp_proximal_gradient
from sparsepriors.solvers.primal_dual import primal_dual
from sparsepriors.solvers.solution import Callback, Solution, State

__all__ = [
    "AtomPath",
    "Callback",
    "Solution",
    "State",
    "admm",
    "conjugate_gradient",
    "cosamp",
    "csalsa",
    "duality_gap",
    "godec",
    "grebsmo",
    "hqs",
    "iterative_hard_thresholding",
    "least_squares",
    "matching_pursuit",
    "noise_schedule",
    "orthogonal_matching_pursuit",
    "pnp_admm",
    "pnp_proximal_gradient",
    "primal_dual",
    "proximal_gradient",
]
