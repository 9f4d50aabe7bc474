"""The budget, the ledger and the result, through an algorithm that queries all."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from sparsepriors.regression.bandits import ExhaustiveBandit, FiniteClassBandit, L1RecoveryBandit, Noise, Outcome
from sparsepriors.regression.bandits.base import BudgetSpentError, Ledger

FEATURES = torch.eye(4)


def test_observations_are_asked_once_and_topped_up() -> None:
    asked = []

    def query(action: int) -> float:
        asked.append(action)
        return float(len(asked))

    ledger = Ledger(query, budget=5)
    assert ledger.observe(2) == 1
    assert ledger.observe(2) == 1
    assert ledger.observe(2, 3) == 2
    assert asked == [2, 2, 2]
    assert ledger.observe(0) == 4
    with pytest.raises(BudgetSpentError):
        ledger.observe(1, 2)
    assert ledger.ask(0) == 5
    with pytest.raises(BudgetSpentError):
        ledger.ask(0)
    assert ledger.n_queries == 5
    assert ledger.history == ((2, 2.0), (0, 4.5))
    assert ledger.best == (0, 4.5)


def test_the_budget_ends_a_run_with_the_best_observed() -> None:
    rewards = [3.0, 1.0, 4.0, 1.5]
    full = ExhaustiveBandit().run(FEATURES, rewards.__getitem__)
    assert (full.action, full.outcome, full.n_queries, full.bound, full.certified) == (2, "certified", 4, 0.0, True)
    assert dict(full.history) == dict(enumerate(rewards))
    short = ExhaustiveBandit().run(FEATURES, rewards.__getitem__, budget=2)
    assert short.outcome is Outcome.SPENT
    assert not short.certified
    assert short.n_queries == 2
    assert short.history == full.history[:2]
    assert rewards[short.action] == max(r for _, r in short.history)


def test_means_are_as_accurate_as_asked_for() -> None:
    noise = Noise(std=0.5, accuracy=0.2, failure=0.1)
    n = noise.repeats(20)
    assert n == math.ceil(2 * 0.25 * math.log(400) / 0.04)
    means = 0.5 * torch.randn(400, 20, n, generator=torch.Generator().manual_seed(0)).mean(-1)
    failures = float((means.abs() > 0.2).any(1).double().mean())
    assert failures <= 0.1
    assert Noise(0.0, 1.0).repeats(10) == 1


@pytest.mark.public_door
def test_bad_arguments() -> None:
    algorithm = ExhaustiveBandit(Noise(1.0, 0.1))
    with pytest.raises(ValueError, match=r"features must have shape \(actions, dim\)"):
        algorithm.run(torch.zeros(3), float)
    with pytest.raises(TypeError, match="features must be real"):
        algorithm.run(torch.ones(2, 2, dtype=torch.complex64), float)
    with pytest.raises(TypeError, match="query must be callable"):
        algorithm.run(FEATURES, 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="budget must be at least 1"):
        algorithm.run(FEATURES, float, budget=0)
    with pytest.raises(ValueError, match="budget must suffice for the repetitions of one observation, got 5"):
        algorithm.run(FEATURES, float, budget=5)
    with pytest.raises(ValueError, match=r"query\(\d\) must return a finite reward, got nan"):
        ExhaustiveBandit().run(FEATURES, lambda _: math.nan)
    with pytest.raises(ValueError, match="Noise.failure must be less than 1"):
        Noise(1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="Noise.accuracy must be finite and positive"):
        Noise(1.0, 0.0)
    for kind in (ExhaustiveBandit, partial(L1RecoveryBandit, 1, 0.1), partial(FiniteClassBandit, FEATURES, 0.1)):
        with pytest.raises(TypeError, match="noise must be a Noise or None, got float"):
            kind(noise=0.1)
    with pytest.raises(ValueError, match="seed must be at least 0"):
        ExhaustiveBandit(seed=-1)
