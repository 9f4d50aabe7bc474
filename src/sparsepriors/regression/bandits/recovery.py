"""Sparse recovery from random actions: few queries where the features are good."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.regression.bandits.base import (
    BanditAlgorithm,
    BanditResult,
    Ledger,
    Noise,
    Outcome,
    averaging,
    check_noise,
    choose,
)

_SUPPORTS = 200   # drawn for the quality of features


@dataclass(frozen=True)
class L1RecoveryBandit(BanditAlgorithm):
    """The least l1 norm that explains random actions' rewards up to epsilon; then the best action it predicts.

    ``min ||theta||_1  subject to  |<features[a], theta> - reward(a)| <= epsilon`` over the actions queried, a linear
    program. The estimate is off by the order of ``epsilon / sqrt(q)``, with q the queried actions' restricted
    eigenvalue (Bickel, Ritov, Tsybakov, 2009): random features with entries of order 1 have q of order 1 after of the
    order of ``sparsity log dim`` queries. Features of norm 1 have q of at most ``1 / dim``, and then nothing is gained
    over least squares. The result carries no certificate; ``extras["quality"]`` is the `restricted_eigenvalue`.

    Parameters
    ----------
    sparsity
        Number of nonzero entries of the parameter.
    epsilon
        Positive bound of the misspecification.
    queries
        Actions to query; ``8 sparsity log(2 dim / sparsity)`` if None.
    noise
        How noise is averaged out; None for exact rewards.
    seed
        Draws the actions.
    """

    sparsity: int
    epsilon: float
    queries: int | None = None
    noise: Noise | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _checks.count("sparsity", self.sparsity, low=1)
        _checks.positive("epsilon", self.epsilon)
        if self.queries is not None:
            _checks.count("queries", self.queries, low=1)
        check_noise(self.noise)
        _checks.count("seed", self.seed)

    def _run(self, features: Tensor, ledger: Ledger) -> BanditResult:
        from scipy.optimize import linprog

        actions, dim = features.shape
        if self.sparsity > dim:
            raise ValueError(f"sparsity must be at most the dimension {dim}, got {self.sparsity}")
        generator = torch.Generator().manual_seed(self.seed)
        wanted = self.queries or math.ceil(8 * self.sparsity * math.log(2 * dim / self.sparsity))
        chosen = choose(actions, wanted, generator)
        repeats, accuracy = averaging(self.noise, len(chosen))
        x = features[chosen].cpu().numpy()
        y = np.array([ledger.observe(a, repeats) for a in chosen])
        slack = self.epsilon + accuracy
        split = np.hstack([x, -x])   # theta is a difference of nonnegative vectors
        found = linprog(np.ones(2 * dim), A_ub=np.vstack([split, -split]), b_ub=np.concatenate([y + slack, slack - y]),
                        method="highs")
        quality = restricted_eigenvalue(features[chosen], min(2 * self.sparsity, dim), generator=generator)
        if found.x is None:
            return ledger.result(ledger.best[0], Outcome.VIOLATED, quality=quality)
        theta = torch.from_numpy(found.x[:dim] - found.x[dim:]).to(features)
        return ledger.result(int((features @ theta).argmax()), Outcome.ESTIMATED, quality=quality)


def restricted_eigenvalue(features: Float[Tensor, "actions dim"], sparsity: int, *, supports: int = _SUPPORTS,
                          generator: torch.Generator) -> float:
    """The least eigenvalue of ``X_T^T X_T / actions`` over supports T drawn at random; an upper bound of that over all.

    1 is a design with orthogonal columns of entries +-1, 0 one in which some sparse vector cannot be told from zero.

    Parameters
    ----------
    features
        Rows that were measured.
    sparsity
        Size of the supports, 1 to ``dim``.
    supports
        How many are drawn.
    generator
        Draws them.

    Raises
    ------
    ValueError
        If a size is out of range.
    """
    if _checks.inexact("features", features).ndim != 2 or not len(features):
        raise ValueError(f"features must have shape (at least one action, dim), got {tuple(features.shape)}")
    dim = features.shape[1]
    _checks.count("sparsity", sparsity, low=1, high=dim)
    _checks.count("supports", supports, low=1)
    gram = features.double().mT @ features.double() / len(features)
    drawn = torch.rand(supports, dim, generator=generator).topk(sparsity, dim=1).indices.to(features.device)
    blocks = gram[drawn[:, :, None], drawn[:, None, :]]
    return max(0.0, float(torch.linalg.eigvalsh(blocks).min()))


@dataclass(frozen=True)
class LassoBandit(BanditAlgorithm):
    """The Lasso on random actions, its strength by cross-validation; then the best action it predicts.

    Parameters
    ----------
    queries
        Actions to query, at least ``folds``.
    folds
        Of the cross-validation.
    seed
        Draws the actions.
    """

    queries: int
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        _checks.count("folds", self.folds, low=2)
        _checks.count("queries", self.queries, low=self.folds)
        _checks.count("seed", self.seed)

    def _run(self, features: Tensor, ledger: Ledger) -> BanditResult:
        from sparsepriors.regression.estimators import SparseRegressorCV

        if len(features) < self.folds:
            raise ValueError(f"features must have at least folds = {self.folds} actions, got {len(features)}")
        chosen = choose(len(features), self.queries, torch.Generator().manual_seed(self.seed))
        y = np.array([ledger.observe(a) for a in chosen])
        model = SparseRegressorCV(n_alphas=30, cv=self.folds, fit_intercept=False)
        model.fit(features[chosen].cpu().numpy(), y)
        return ledger.result(int(model.predict(features.cpu().numpy()).argmax()), Outcome.ESTIMATED)
