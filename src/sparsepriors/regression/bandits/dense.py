"""Algorithms that know nothing of sparsity: what the sparse ones are compared with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
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
from sparsepriors.regression.optimal_design import g_optimal_design

_DESIGN = 0.1   # how far the design may be from the optimum, as a share of it


@dataclass(frozen=True)
class LeastSquaresBandit(BanditAlgorithm):
    """Phased elimination with least squares on a G-optimal core set: within O(epsilon sqrt(dim)) of the best.

    Lattimore, Szepesvari, Weisz (2020), Learning with good feature representations in bandits and in RL with a
    generative model, section 4. Each phase queries the core set of the actions left, in proportion to the design's
    weights under noise, once each without; actions predicted to be worse than the best by more than twice the width
    ``accuracy + 2 epsilon sqrt(rank)`` are dropped. Under noise the accuracy is halved from phase to phase, from 1
    until it falls below epsilon; without noise phases end when nothing is dropped.

    Parameters
    ----------
    epsilon
        Positive bound of the misspecification.
    std
        Standard deviation of the noise of one query.
    failure
        Probability that a confidence interval fails, in (0, 1).
    """

    epsilon: float
    std: float = 0.0
    failure: float = 0.05

    def __post_init__(self) -> None:
        _checks.positive("epsilon", self.epsilon)
        _checks.nonnegative("std", self.std)
        _checks.positive("failure", self.failure)
        if self.failure >= 1:
            raise ValueError(f"failure must be less than 1, got {self.failure}")

    def _run(self, features: Tensor, ledger: Ledger) -> BanditResult:
        if not features.any():
            return ledger.result(0, Outcome.ESTIMATED)
        left = torch.arange(len(features), device=features.device)
        accuracy = 1.0
        while True:
            predicted, rank = self._phase(features[left], left, ledger, accuracy)
            best = int(left[predicted.argmax()])
            width = (accuracy if self.std else 0.0) + 2 * self.epsilon * math.sqrt(rank)
            keep = predicted >= predicted.max() - 2 * width
            last = bool(keep.all()) if not self.std else accuracy <= self.epsilon
            left, accuracy = left[keep], accuracy / 2
            if last or len(left) == 1 or not features[left].any():
                return ledger.result(best, Outcome.ESTIMATED)

    def _phase(self, x: Tensor, actions: Tensor, ledger: Ledger, accuracy: float) -> tuple[Tensor, int]:
        """Predictions of all actions from queries of their core set, and the rank."""
        design = g_optimal_design(x, tol=_DESIGN)
        core = design.core
        shares = design.weights[core]
        if self.std:
            total = (2 * self.std**2 * design.variance / accuracy**2
                     * math.log(2 * len(x) * (1 + math.log2(1 / accuracy)) ** 2 / self.failure))
            repeats = (shares * total).ceil().long().clamp_min(1)
            shares = repeats / repeats.sum()
        else:
            repeats = torch.ones_like(core)
        y = torch.tensor([ledger.observe(int(actions[a]), int(n)) for a, n in zip(core, repeats, strict=True)],
                         dtype=x.dtype, device=x.device)
        root = shares.sqrt()
        theta = torch.linalg.pinv(root[:, None] * x[core], rtol=1e-9) @ (root * y)
        return x @ theta, design.rank


@dataclass(frozen=True)
class MisspecifiedLinUCB(BanditAlgorithm):
    """LinUCB with a bonus that grows with the misspecification; returns the best mean observed.

    Round t queries the action with the largest ``<x, theta_t> + width (beta_t + epsilon sqrt(t)) ||x||_{V^-1}``, with
    theta_t the ridge estimate, V its matrix, and
    ``beta_t = sqrt(ridge) + std sqrt(log det(V / ridge) + 2 log(1 / failure))`` (Abbasi-Yadkori, Pal and
    Szepesvari, 2011).

    Parameters
    ----------
    epsilon
        Nonnegative bound of the misspecification; 0 is LinUCB as it is used.
    rounds
        Queries.
    width
        Positive factor of the bonus, 1 in theory and often less in practice.
    ridge
        Positive.
    std, failure
        Noise of one query, and the probability that the confidence set fails.
    """

    epsilon: float
    rounds: int
    width: float = 1.0
    ridge: float = 1.0
    std: float = 0.0
    failure: float = 0.05

    def __post_init__(self) -> None:
        _checks.nonnegative("epsilon", self.epsilon)
        _checks.count("rounds", self.rounds, low=1)
        _checks.positive("width", self.width)
        _checks.positive("ridge", self.ridge)
        _checks.nonnegative("std", self.std)
        _checks.positive("failure", self.failure)
        if self.failure >= 1:
            raise ValueError(f"failure must be less than 1, got {self.failure}")

    def _run(self, features: Tensor, ledger: Ledger) -> BanditResult:
        x_inverse = features / self.ridge                # rows: V^-1 x
        norms = features.square().sum(1) / self.ridge    # x^T V^-1 x
        predicted = torch.zeros_like(norms)
        log_det = 0.0
        for t in range(1, self.rounds + 1):
            beta = math.sqrt(self.ridge) + self.std * math.sqrt(log_det + 2 * math.log(1 / self.failure))
            bonus = self.width * (beta + self.epsilon * math.sqrt(t)) * norms.clamp_min(0).sqrt()
            action = int((predicted + bonus).argmax())
            reward = ledger.ask(action)
            across = x_inverse @ features[action]        # x^T V^-1 x_a for every x
            scale = 1 + float(norms[action])
            predicted += across * (reward - float(predicted[action])) / scale
            log_det += math.log(scale)
            norms -= across.square() / scale
            x_inverse -= torch.outer(across, x_inverse[action]) / scale
        return ledger.result(ledger.best[0], Outcome.ESTIMATED)


@dataclass(frozen=True)
class ExhaustiveBandit(BanditAlgorithm):
    """Query every action, in random order, and return the best observed.

    Parameters
    ----------
    noise
        How noise is averaged out; None for exact rewards.
    seed
        Draws the order.
    """

    noise: Noise | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_noise(self.noise)
        _checks.count("seed", self.seed)

    def _run(self, features: Tensor, ledger: Ledger) -> BanditResult:
        repeats, accuracy = averaging(self.noise, len(features))
        for action in choose(len(features), len(features), torch.Generator().manual_seed(self.seed)):
            ledger.observe(action, repeats)
        return ledger.result(ledger.best[0], Outcome.CERTIFIED, 2 * accuracy)
