"""What every bandit algorithm shares: the questions asked, the budget, and the result."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import torch
from jaxtyping import Float
from torch import Tensor

from sparsepriors import _checks

Query = Callable[[int], float]
"""Takes an action and gives its reward, with noise if there is any."""


class Outcome(StrEnum):
    """How a run ended."""

    CERTIFIED = "certified"
    """The action is within ``bound`` of the best, if sparsity, epsilon and noise were stated rightly."""
    ESTIMATED = "estimated"
    """The action is the best by an estimate that carries no guarantee for these features."""
    VIOLATED = "model violated"
    """No parameter explains the observations: epsilon or the sparsity was stated too small."""
    SPENT = "budget spent"
    """The budget ended first; the action is the best observed."""


@dataclass(frozen=True)
class BanditResult:
    """The action found and how.

    Attributes
    ----------
    action
        Index of a row of the features.
    outcome
        How the run ended.
    n_queries
        Calls of ``query``, repetitions included.
    history
        Every action queried with the mean of its observations, in the order of their first queries.
    bound
        With ``CERTIFIED``, the suboptimality that is not exceeded; else infinite.
    extras
        Numbers that an algorithm reports beside, by name.
    """

    action: int
    outcome: Outcome
    n_queries: int
    history: tuple[tuple[int, float], ...]
    bound: float = math.inf
    extras: dict[str, float] = field(default_factory=dict)

    @property
    def certified(self) -> bool:
        """Whether there is a guarantee."""
        return self.outcome is Outcome.CERTIFIED


class BudgetSpentError(Exception):
    """Raised by `Ledger.observe` when the next observation would exceed the budget."""


class Ledger:
    """Asks, counts, and remembers the mean of each action's observations."""

    def __init__(self, query: Query, budget: int | None) -> None:
        self._query = query
        self._budget = budget
        self._sums: dict[int, float] = {}
        self._counts: dict[int, int] = {}
        self.n_queries = 0

    def ask(self, action: int) -> float:
        """One more observation of an action."""
        if self._budget is not None and self.n_queries >= self._budget:
            raise BudgetSpentError
        reward = float(self._query(action))
        if not math.isfinite(reward):
            raise ValueError(f"query({action}) must return a finite reward, got {reward}")
        self._sums[action] = self._sums.get(action, 0.0) + reward
        self._counts[action] = self._counts.get(action, 0) + 1
        self.n_queries += 1
        return reward

    def observe(self, action: int, repeats: int = 1) -> float:
        """The mean of at least ``repeats`` observations; what was asked before counts."""
        missing = repeats - self._counts.get(action, 0)
        if self._budget is not None and self.n_queries + missing > self._budget:
            raise BudgetSpentError   # before a mean of too few is formed
        for _ in range(missing):
            self.ask(action)
        return self._sums[action] / self._counts[action]

    @property
    def history(self) -> tuple[tuple[int, float], ...]:
        """Actions and mean observations, in the order of the first queries."""
        return tuple((a, s / self._counts[a]) for a, s in self._sums.items())

    @property
    def best(self) -> tuple[int, float]:
        """The action with the largest mean observation, and that."""
        return max(self.history, key=lambda pair: pair[1])

    def result(self, action: int, outcome: Outcome, bound: float = math.inf, **extras: float) -> BanditResult:
        """What is returned to the user."""
        return BanditResult(action, outcome, self.n_queries, self.history, bound, extras)


class BanditAlgorithm(ABC):
    """Finds a good action of a misspecified linear bandit with few queries."""

    def run(self, features: Float[Tensor, "actions dim"], query: Query, budget: int | None = None) -> BanditResult:
        """Query until an action is found.

        Parameters
        ----------
        features
            One row for each action, real.
        query
            Called with an action's index, returns its reward as a finite number.
        budget
            Most calls of ``query``; as many as needed if None.

        Raises
        ------
        TypeError
            If ``features`` is not a real tensor, or ``query`` not callable.
        ValueError
            If ``features`` is not a matrix with an action, an option of the algorithm does not fit it, the budget
            does not suffice for one observation, or a reward is not finite.
        """
        _checks.inexact("features", features)
        if features.is_complex():
            raise TypeError(f"features must be real, got {features.dtype}")
        if features.ndim != 2 or not features.numel():
            raise ValueError(f"features must have shape (actions, dim), neither zero, got {tuple(features.shape)}")
        if not callable(query):
            raise TypeError(f"query must be callable, got {type(query).__name__}")
        if budget is not None:
            _checks.count("budget", budget, low=1)
        ledger = Ledger(query, budget)
        try:
            return self._run(features.detach().double(), ledger)
        except BudgetSpentError:
            if not ledger.history:
                raise ValueError(f"budget must suffice for the repetitions of one observation, got {budget}") from None
            return ledger.result(ledger.best[0], Outcome.SPENT)

    @abstractmethod
    def _run(self, features: Tensor, ledger: Ledger) -> BanditResult:
        """The algorithm; a `BudgetSpentError` passes through it."""


@dataclass(frozen=True)
class Noise:
    """Normal noise of the queries, and how well it is averaged out.

    Parameters
    ----------
    std
        Standard deviation of one query.
    accuracy
        Positive: how far a mean of repeated queries may lie from the reward.
    failure
        Probability, in (0, 1), that one of all means lies farther.
    """

    std: float
    accuracy: float
    failure: float = 0.05

    def __post_init__(self) -> None:
        _checks.nonnegative_number("Noise.std", self.std)
        _checks.positive_number("Noise.accuracy", self.accuracy)
        _checks.positive_number("Noise.failure", self.failure)
        if self.failure >= 1:
            raise ValueError(f"Noise.failure must be less than 1, got {self.failure}")

    def repeats(self, means: int) -> int:
        """Queries of an action so that ``means`` means are accurate at once (union bound)."""
        return max(1, math.ceil(2 * self.std**2 * math.log(2 * means / self.failure) / self.accuracy**2))


def check_noise(noise: object) -> None:
    """Raise `TypeError` unless ``noise`` is a `Noise` or None."""
    if noise is not None and not isinstance(noise, Noise):
        raise TypeError(f"noise must be a Noise or None, got {type(noise).__name__}")


def averaging(noise: Noise | None, means: int) -> tuple[int, float]:
    """Queries for one observation, and how far it may lie from the reward."""
    return (1, 0.0) if noise is None else (noise.repeats(means), noise.accuracy)


def choose(n: int, k: int, generator: torch.Generator) -> list[int]:
    """``k`` different numbers below ``n``, or all of them where there are fewer."""
    return torch.randperm(n, generator=generator)[:k].tolist()
