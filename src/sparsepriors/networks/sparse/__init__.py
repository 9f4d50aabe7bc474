"""Which weights are sparse, how sparse each layer is, and by which scores: the parts that every method shares."""

from sparsepriors.networks.sparse.distribute import ERK, Distribution, Global, Uniform
from sparsepriors.networks.sparse.score import MagnitudeScore, RandomScore, Score
from sparsepriors.networks.sparse.select import Selected, Selector, select

__all__ = [
    "ERK", "Distribution", "Global", "MagnitudeScore", "RandomScore", "Score", "Selected", "Selector", "Uniform",
    "select",
]
