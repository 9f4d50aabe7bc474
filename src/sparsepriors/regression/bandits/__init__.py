"""Bandits whose rewards are linear in features up to a bounded error: with a sparse parameter, and without."""

from sparsepriors.regression.bandits.base import BanditAlgorithm, BanditResult, Noise, Outcome, Query
from sparsepriors.regression.bandits.dense import ExhaustiveBandit, LeastSquaresBandit, MisspecifiedLinUCB
from sparsepriors.regression.bandits.elimination import (
    FiniteClassBandit,
    SpannerBandit,
    SparseEliminationBandit,
    SweepBandit,
)
from sparsepriors.regression.bandits.net import SparseCandidates, sparse_net, sparse_supports
from sparsepriors.regression.bandits.recovery import L1RecoveryBandit, LassoBandit, restricted_eigenvalue

__all__ = [
    "BanditAlgorithm",
    "BanditResult",
    "ExhaustiveBandit",
    "FiniteClassBandit",
    "L1RecoveryBandit",
    "LassoBandit",
    "LeastSquaresBandit",
    "MisspecifiedLinUCB",
    "Noise",
    "Outcome",
    "Query",
    "SpannerBandit",
    "SparseCandidates",
    "SparseEliminationBandit",
    "SweepBandit",
    "restricted_eigenvalue",
    "sparse_net",
    "sparse_supports",
]
