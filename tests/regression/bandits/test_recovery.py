"""Sparse recovery from random actions."""

from __future__ import annotations

import pytest
import torch

from sparsepriors.data import LinearBandit
from sparsepriors.regression.bandits import L1RecoveryBandit, LassoBandit, Noise, Outcome, restricted_eigenvalue


def _bandit(epsilon: float, seed: int = 0) -> LinearBandit:
    g = torch.Generator().manual_seed(seed)
    x = (2 * torch.randint(2, (800, 40), generator=g) - 1).double() / 40**0.5
    theta = torch.zeros(40, dtype=torch.float64)
    theta[:2] = torch.tensor([0.8, -0.6])
    return LinearBandit(x, theta, epsilon * (2 * torch.rand(800, generator=g, dtype=torch.float64) - 1))


def test_without_misspecification_a_few_random_actions_suffice() -> None:
    bandit = _bandit(0.0)
    for algorithm in (L1RecoveryBandit(2, 1e-6), L1RecoveryBandit(2, 1e-6, seed=1), LassoBandit(50, folds=2)):
        oracle = bandit.oracle()
        found = algorithm.run(bandit.features, oracle)
        assert found.outcome is Outcome.ESTIMATED
        assert bandit.suboptimality(found.action) < 1e-4
        assert found.n_queries == len(set(oracle.queried)) <= 60


def test_the_estimate_explains_what_was_seen_and_noise_is_averaged() -> None:
    bandit = _bandit(0.02)
    found = L1RecoveryBandit(2, 0.02, queries=80, noise=Noise(0.1, 0.02)).run(
        bandit.features, bandit.oracle(0.1, torch.Generator().manual_seed(0)))
    assert len(found.history) == 80
    assert found.n_queries == 80 * Noise(0.1, 0.02).repeats(80)
    assert bandit.suboptimality(found.action) <= 0.1
    assert 0 < found.extras["quality"] < 1


def test_an_epsilon_too_small_violates_the_model() -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = L1RecoveryBandit(1, 0.1, queries=3).run(features, [0.0, 1.0, 0.0].__getitem__)
    assert found.outcome is Outcome.VIOLATED
    assert found.action == 1


def test_the_restricted_eigenvalue_of_known_designs() -> None:
    g = torch.Generator().manual_seed(0)
    assert restricted_eigenvalue(6**0.5 * torch.eye(6), 3, generator=g) == pytest.approx(1)
    unit = torch.nn.functional.normalize(torch.randn(500, 8, generator=g), dim=1)
    assert restricted_eigenvalue(unit, 2, generator=g) <= 1 / 8
    twice = torch.eye(4)[:, [0, 1, 1, 2]]
    assert restricted_eigenvalue(twice, 2, generator=g) == pytest.approx(0, abs=1e-12)
    c = 0.3
    pair = 2**0.5 * torch.tensor([[1.0, c], [0.0, (1 - c * c) ** 0.5]])
    assert restricted_eigenvalue(pair, 2, generator=g) == pytest.approx(1 - c)


@pytest.mark.public_door
def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="sparsity must be at most the dimension 2"):
        L1RecoveryBandit(3, 0.1).run(torch.eye(2), float)
    with pytest.raises(ValueError, match="epsilon must be finite and positive"):
        L1RecoveryBandit(1, 0.0)
    with pytest.raises(ValueError, match="queries must be at least 1"):
        L1RecoveryBandit(1, 0.1, queries=0)
    with pytest.raises(ValueError, match="queries must be at least 5"):
        LassoBandit(4)
    with pytest.raises(ValueError, match="features must have at least folds = 5 actions"):
        LassoBandit(8).run(torch.eye(4), float)
    with pytest.raises(ValueError, match="sparsity must be from 1 to 2"):
        restricted_eigenvalue(torch.eye(2), 3, generator=torch.Generator())
