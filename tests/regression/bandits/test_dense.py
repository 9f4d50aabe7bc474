"""The algorithms that know nothing of sparsity: exact without misspecification, and as wrong as is known with it."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from sparsepriors.data import LinearBandit, trap_bandit
from sparsepriors.regression.bandits import LeastSquaresBandit, MisspecifiedLinUCB, Outcome


def _bandit(seed: int, epsilon: float, dim: int = 5, actions: int = 60) -> LinearBandit:
    g = torch.Generator().manual_seed(seed)
    x = torch.nn.functional.normalize(torch.randn(actions, dim, generator=g, dtype=torch.float64), dim=1)
    theta = torch.nn.functional.normalize(torch.randn(dim, generator=g, dtype=torch.float64), dim=0)
    return LinearBandit(x, theta, epsilon * (2 * torch.rand(actions, generator=g, dtype=torch.float64) - 1))


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), epsilon=st.floats(0.001, 0.3))
def test_least_squares_is_within_epsilon_root_dim(seed: int, epsilon: float) -> None:
    bandit = _bandit(seed, epsilon)
    found = LeastSquaresBandit(epsilon).run(bandit.features, bandit.oracle())
    assert found.outcome is Outcome.ESTIMATED
    # each prediction is wrong by at most epsilon sqrt(1.1 dim); phases drop nothing within twice the width
    assert bandit.suboptimality(found.action) <= 2 * epsilon * (math.sqrt(1.1 * 5) + 1) + 1e-9


def test_least_squares_falls_into_the_trap() -> None:
    bandit = trap_bandit(64, 600, 2, 0.2, generator=torch.Generator().manual_seed(0))
    found = LeastSquaresBandit(0.2).run(bandit.features, bandit.oracle())
    assert found.n_queries == 64
    assert bandit.suboptimality(found.action) > 4 * 0.2


def test_least_squares_under_noise_and_without_features() -> None:
    bandit = _bandit(1, 0.05)
    found = LeastSquaresBandit(0.05, std=0.1).run(bandit.features, bandit.oracle(0.1, torch.Generator().manual_seed(0)))
    assert found.n_queries > len(found.history)
    assert bandit.suboptimality(found.action) <= 0.2
    assert LeastSquaresBandit(0.1).run(torch.zeros(3, 2), float).n_queries == 0


@pytest.mark.parametrize("std", [0.0, 0.1])
def test_linucb_learns_a_linear_bandit(std: float) -> None:
    bandit = _bandit(2, 0.0)
    found = MisspecifiedLinUCB(0.0, 150, std=std).run(
        bandit.features, bandit.oracle(std, torch.Generator().manual_seed(0)))
    assert found.n_queries == 150
    assert bandit.suboptimality(found.action) <= (0.15 if std else 1e-9)


def test_linucbs_updates_are_those_of_ridge_regression() -> None:
    bandit = _bandit(3, 0.1)
    found = MisspecifiedLinUCB(0.1, 40, width=0.3, ridge=0.5).run(bandit.features, bandit.oracle())
    played: list[int] = []
    oracle = bandit.oracle()
    for t in range(1, 41):
        x = bandit.features[played]
        v = 0.5 * torch.eye(5, dtype=torch.float64) + x.mT @ x
        theta = torch.linalg.solve(v, x.mT @ bandit.rewards[played])
        norm = ((bandit.features @ torch.linalg.inv(v)) * bandit.features).sum(1).sqrt()
        bonus = 0.3 * (math.sqrt(0.5) + 0.1 * math.sqrt(t)) * norm
        played.append(int((bandit.features @ theta + bonus).argmax()))
        oracle(played[-1])
    assert [a for a, _ in found.history] == list(dict.fromkeys(played))


@pytest.mark.public_door
def test_bad_arguments() -> None:
    for make in (lambda f: LeastSquaresBandit(0.1, failure=f), lambda f: MisspecifiedLinUCB(0.1, 5, failure=f)):
        with pytest.raises(ValueError, match="failure must be less than 1"):
            make(1.0)
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        MisspecifiedLinUCB(0.1, 0)
    with pytest.raises(ValueError, match="epsilon must be finite and positive"):
        LeastSquaresBandit(0.0)
