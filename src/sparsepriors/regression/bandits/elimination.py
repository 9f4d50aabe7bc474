"""Elimination of sparse candidates: an action within O(epsilon) of the best with (dim / epsilon)^sparsity queries.

Dong and Yang (2023), Does sparsity help in learning misspecified linear bandits?, state the rate; the algorithms here
are reconstructions, and the stopping rule is ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
)
from sparsepriors.regression.bandits.net import MAX_CANDIDATES, SparseCandidates, sparse_net, sparse_supports
from sparsepriors.regression.optimal_design import barycentric_spanner, spanner_basis, spanner_coefficients

_SLACK = 1e-9    # of the tolerance: rounding must not drop the parameter
_CHUNK = 64      # supports whose spanners are looked for before the next actions are queried


@dataclass(frozen=True)
class SparseEliminationBandit(BanditAlgorithm):
    """Try the most hopeful candidate's action; keep the candidates that its reward does not refute.

    Candidates are a net of the sparse parameters. Each is worth the largest reward V that it predicts. While the best
    reward observed is less than the largest V by more than ``epsilon + resolution``, the action that promises V is
    queried, and candidates that predicted its reward worse than that are dropped. The candidate nearest to the
    parameter is never dropped, so that V bounds the best reward from above up to ``epsilon + resolution``: the action
    returned is within ``2 (epsilon + resolution)`` of the best, plus twice the accuracy of the means under noise.
    Every query drops the candidate that asked for it; there are never more queries than candidates or actions.

    Parameters
    ----------
    sparsity
        Number of nonzero entries of the parameter, or more.
    epsilon
        Positive bound of the misspecification.
    resolution
        How far predictions of the net may lie from those of the parameter; ``epsilon`` if None.
    radius
        Positive bound of the parameter's norm.
    noise
        How noise is averaged out; None for exact rewards.
    max_candidates
        Largest net.

    Examples
    --------
    >>> import torch
    >>> from sparsepriors.data import trap_bandit
    >>> from sparsepriors.regression.bandits import SparseEliminationBandit
    >>> bandit = trap_bandit(30, 1500, sparsity=2, epsilon=0.2, generator=torch.Generator().manual_seed(0))
    >>> found = SparseEliminationBandit(sparsity=2, epsilon=0.2).run(bandit.features, bandit.oracle())
    >>> found.certified, found.n_queries < 100, bandit.suboptimality(found.action) <= found.bound
    (True, True, True)
    """

    sparsity: int
    epsilon: float
    resolution: float | None = None
    radius: float = 1.0
    noise: Noise | None = None
    max_candidates: int = MAX_CANDIDATES

    def __post_init__(self) -> None:
        _check(self)
        if self.resolution is not None:
            _checks.positive("resolution", self.resolution)
        _checks.positive("radius", self.radius)

    def _run(self, features: Tensor, ledger: Ledger) -> BanditResult:
        net = self._net(features)
        return eliminate(net, features, ledger, self._error, self.noise)

    @property
    def _error(self) -> float:
        return self.epsilon + (self.epsilon if self.resolution is None else self.resolution)

    def _net(self, features: Tensor) -> SparseCandidates:
        _sparse_enough(self.sparsity, features)
        # the resolution is one of rewards: a parameter off by h is off by h times the norm of a feature vector there
        longest = float(torch.linalg.vector_norm(features, dim=1).max()) or 1.0
        net = sparse_net(features.shape[1], self.sparsity, (self._error - self.epsilon) / longest,
                         radius=self.radius, max_candidates=self.max_candidates)
        return SparseCandidates(net.supports.to(features.device), net.points.to(features.device))


@dataclass(frozen=True)
class SweepBandit(SparseEliminationBandit):
    """Query the action of every candidate and return the best observed: the plain bound, with as many queries.

    Parameters and guarantee are those of `SparseEliminationBandit`.
    """

    def _run(self, features: Tensor, ledger: Ledger) -> BanditResult:
        net = self._net(features)
        repeats, accuracy = averaging(self.noise, len(features))
        for action in net.maximisers(features).unique().tolist():
            ledger.observe(action, repeats)
        return ledger.result(ledger.best[0], Outcome.CERTIFIED, 2 * (self._error + accuracy),
                             candidates=float(len(net)))


@dataclass(frozen=True, eq=False)
class FiniteClassBandit(BanditAlgorithm):
    """The elimination of `SparseEliminationBandit` over parameters that are listed.

    Parameters
    ----------
    thetas
        One of them is the parameter.
    epsilon
        Positive bound of the misspecification.
    noise
        How noise is averaged out; None for exact rewards.
    """

    thetas: Float[Tensor, "candidates dim"]
    epsilon: float
    noise: Noise | None = None

    def __post_init__(self) -> None:
        _checks.inexact("thetas", self.thetas)
        if self.thetas.ndim != 2 or not self.thetas.numel():
            raise ValueError(f"thetas must have shape (candidates, dim), neither zero, got {tuple(self.thetas.shape)}")
        _checks.positive("epsilon", self.epsilon)
        check_noise(self.noise)

    def _run(self, features: Tensor, ledger: Ledger) -> BanditResult:
        _checks.trailing_shape("thetas", self.thetas, (features.shape[1],))
        everywhere = torch.arange(features.shape[1], device=features.device)[None]
        candidates = SparseCandidates(everywhere, self.thetas.to(features)[None])
        return eliminate(candidates, features, ledger, self.epsilon, self.noise)


@dataclass(frozen=True)
class SpannerBandit(BanditAlgorithm):
    """Estimate the parameter on every support from a spanner of the features there, then eliminate supports.

    For a support T with a barycentric spanner of the actions' features on T, predictions are combinations of the
    spanner's rewards with coefficients of at most ``factor``; for the right support they are wrong by at most
    ``(factor sparsity + 1) epsilon``. Elimination among the supports then returns an action within twice that of the
    best. The number of queries does not depend on epsilon and is at most of order ``sparsity dim^sparsity``; actions
    queried before serve every support for which they are a spanner.

    Parameters
    ----------
    sparsity, epsilon, noise
        As for `SparseEliminationBandit`.
    factor
        Bound of the coefficients, more than 1.
    max_candidates
        Most supports.
    """

    sparsity: int
    epsilon: float
    factor: float = 2.0
    noise: Noise | None = None
    max_candidates: int = MAX_CANDIDATES

    def __post_init__(self) -> None:
        _check(self)
        if not isinstance(self.factor, int | float) or not 1 < self.factor < math.inf:
            raise ValueError(f"factor must be a finite number more than 1, got {self.factor}")

    def _run(self, features: Tensor, ledger: Ledger) -> BanditResult:
        _sparse_enough(self.sparsity, features)
        dim = features.shape[1]
        count = math.comb(dim, self.sparsity)
        if count > self.max_candidates:
            raise ValueError(f"max_candidates must be at least the number of supports, {count}, "
                             f"got {self.max_candidates}")
        supports = sparse_supports(dim, self.sparsity).to(features.device)
        repeats, accuracy = averaging(self.noise, len(features))
        points = torch.cat([self._estimate(features, chunk, ledger, repeats) for chunk in supports.split(_CHUNK)])
        error = self.factor * self.sparsity * (self.epsilon + accuracy) + self.epsilon
        return eliminate(SparseCandidates(supports, points[:, None]), features, ledger, error, self.noise)

    def _estimate(self, features: Tensor, supports: Tensor, ledger: Ledger, repeats: int) -> Tensor:
        """The parameter on each of some supports: ``(supports, sparsity)``."""
        restricted = features[:, supports].movedim(1, 0)
        spanner = torch.full_like(supports, -1)
        wanting = torch.ones(len(supports), dtype=torch.bool, device=features.device)
        if ledger.history:
            known = torch.tensor([a for a, _ in ledger.history], device=features.device)
            among = barycentric_spanner(restricted[:, known], self.factor)
            spanner = torch.where(among < 0, among, known[among.clamp_min(0)])
            wanting = spanner_coefficients(restricted, spanner).abs().amax((1, 2)) > self.factor
            # a place left empty is harmless only if no action at all reaches it
            empty = spanner_coefficients(restricted, spanner).abs().amax(1) > _SLACK
            wanting |= (empty & (spanner < 0)).any(1)
        if wanting.any():
            spanner[wanting] = barycentric_spanner(restricted[wanting], self.factor)
        rewards = {a: ledger.observe(a, repeats) for a in spanner[spanner >= 0].unique().tolist()}
        observed = torch.tensor([[rewards.get(a, 0.0) for a in row] for row in spanner.tolist()],
                                dtype=features.dtype, device=features.device)
        return torch.linalg.solve(spanner_basis(restricted, spanner), observed)


def eliminate(candidates: SparseCandidates, features: Tensor, ledger: Ledger, error: float,
              noise: Noise | None) -> BanditResult:
    """Optimistic elimination: one candidate predicts every reward up to ``error``.

    What the ledger holds already is used. The result is certified to ``2 (error + accuracy of the means)``.
    """
    repeats, accuracy = averaging(noise, len(features))
    tolerance = (error + accuracy) * (1 + _SLACK)
    value = candidates.values(features)

    def drop(action: int, reward: float) -> None:
        value[(candidates.predict(features[action]) - reward).abs() > tolerance] = -torch.inf

    for action, reward in ledger.history:
        drop(action, reward)
    asked = False
    while True:
        top = int(value.argmax())
        largest = float(value.flatten()[top])
        if largest == -math.inf:
            return ledger.result(ledger.best[0], Outcome.VIOLATED, candidates=float(len(candidates)), remaining=0.0)
        if asked and ledger.best[1] >= largest - tolerance:
            return ledger.result(ledger.best[0], Outcome.CERTIFIED, 2 * (error + accuracy),
                                 candidates=float(len(candidates)), remaining=float((value > -torch.inf).sum()))
        action = candidates.maximiser(top, features)
        reward = ledger.observe(action, repeats)
        asked = True   # of the most hopeful: what the ledger held may suffice for the bound and still be poor
        drop(action, reward)
        if reward < largest - tolerance:
            value.view(-1)[top] = -torch.inf   # whatever rounding says of its prediction


def _check(bandit: SparseEliminationBandit | SpannerBandit) -> None:
    _checks.count("sparsity", bandit.sparsity, low=1)
    _checks.positive("epsilon", bandit.epsilon)
    _checks.count("max_candidates", bandit.max_candidates, low=1)
    check_noise(bandit.noise)


def _sparse_enough(sparsity: int, features: Tensor) -> None:
    if sparsity > features.shape[1]:
        raise ValueError(f"sparsity must be at most the dimension {features.shape[1]}, got {sparsity}")
