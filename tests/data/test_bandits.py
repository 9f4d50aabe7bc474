"""Instances of misspecified linear bandits: what they promise of features, rewards and misspecification."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from sparsepriors.data import LinearBandit, digits_bandit, needle_bandit, sign_bandit, trap_bandit
from sparsepriors.data.bandits import DECOYS, SPARSE_ACTIONS


@settings(max_examples=10)
@given(dim=st.integers(1, 40), more=st.integers(0, 50), sparsity=st.integers(1, 4), epsilon=st.floats(0.01, 0.5),
       seed=st.integers(0, 1000))
def test_the_trap_is_a_misspecified_sparse_bandit(dim: int, more: int, sparsity: int, epsilon: float,
                                                  seed: int) -> None:
    sparsity = min(sparsity, dim)
    actions = dim + DECOYS + SPARSE_ACTIONS + more
    bandit = trap_bandit(dim, actions, sparsity, epsilon, generator=torch.Generator().manual_seed(seed))
    assert bandit.features.shape == (actions, dim)
    norms = torch.linalg.vector_norm(bandit.features, dim=1)
    torch.testing.assert_close(norms[:dim], torch.ones(dim, dtype=torch.float64))
    torch.testing.assert_close(norms[dim:], torch.full((actions - dim,), 0.98, dtype=torch.float64))
    assert bandit.sparsity == sparsity
    assert bandit.epsilon == epsilon
    assert float(bandit.theta.norm()) == pytest.approx(1)
    nonzero = bandit.features[dim + DECOYS:dim + DECOYS + SPARSE_ACTIONS].count_nonzero(1)
    assert bool((nonzero == sparsity).all())
    assert float(bandit.features[dim + DECOYS] @ bandit.theta) >= 0.97
    assert bandit.suboptimality(int(bandit.rewards.argmax())) == 0


def test_least_squares_on_the_unit_vectors_is_wrong_by_epsilon_root_dim_on_decoys() -> None:
    dim, epsilon = 64, 0.1
    bandit = trap_bandit(dim, 400, 2, epsilon, generator=torch.Generator().manual_seed(0))
    estimate = bandit.rewards[:dim]
    decoys = slice(dim, dim + DECOYS)
    error = bandit.features[decoys] @ estimate - bandit.rewards[decoys]
    assert float(error.mean()) == pytest.approx(epsilon * math.sqrt(dim) * 0.9 * 0.98 + epsilon, rel=0.1)


def test_signs_are_good_features() -> None:
    bandit = sign_bandit(20, 3000, 3, 0.2, generator=torch.Generator().manual_seed(0))
    assert bool((bandit.features.abs() == 1).all())
    assert bandit.sparsity == 3
    assert bandit.epsilon == 0.2
    assert float(bandit.theta.norm()) == pytest.approx(1)
    gram = bandit.features.mT @ bandit.features / 3000
    assert float((gram - torch.eye(20)).abs().max()) < 0.1
    assert abs(float(bandit.misspecification.mean())) < 0.02


@pytest.mark.parametrize("dim", [4, 7, 12, 18])
def test_only_the_needle_shows_where_it_is(dim: int) -> None:
    bandit = needle_bandit(dim, rate=1.1, generator=torch.Generator().manual_seed(dim))
    inner = bandit.features @ bandit.features.mT
    assert float((inner - torch.eye(len(inner))).abs().max()) <= 0.5 + 1e-12
    assert len(inner) == max(2, math.floor(math.exp(1.1 * 0.25 * dim)))
    assert bandit.epsilon == pytest.approx(0.5)
    rewards = bandit.rewards
    needle = int(rewards.argmax())
    assert torch.equal(bandit.theta, bandit.features[needle])
    assert float(rewards[needle]) == pytest.approx(1.5)
    assert float(rewards.abs().sum() - rewards[needle]) < 1e-12


def test_a_packing_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="rate must be less for dim = 6"):
        needle_bandit(6, rate=5.0, generator=torch.Generator())


def test_digits_reward_few_pixels_up_to_epsilon() -> None:
    bandit = digits_bandit(0.1, 3, generator=torch.Generator().manual_seed(0))
    assert bandit.features.shape == (1797, 64)
    torch.testing.assert_close(torch.linalg.vector_norm(bandit.features, dim=1), torch.ones(1797, dtype=torch.float64))
    assert bandit.sparsity == 3
    assert bandit.epsilon == pytest.approx(0.1)
    linear = bandit.features @ bandit.theta
    free = bandit.misspecification.abs() < 0.1 - 1e-9
    assert 0 < int(free.sum()) < 1797
    torch.testing.assert_close(bandit.rewards[free], torch.tanh(2 * linear[free]))
    assert bool(bandit.features[:, bandit.theta != 0].any(0).all())   # no blank pixel


def test_the_oracle_counts_and_adds_noise() -> None:
    bandit = LinearBandit(torch.eye(3), torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.1, -0.1]))
    oracle = bandit.oracle()
    assert [oracle(a) for a in (2, 0, 2)] == bandit.rewards[[2, 0, 2]].tolist()
    assert oracle.queried == [2, 0, 2]
    noisy = bandit.oracle(0.5, torch.Generator().manual_seed(0))
    drawn = torch.tensor([noisy(1) for _ in range(2000)])
    assert float(drawn.mean()) == pytest.approx(0.1, abs=0.05)
    assert float(drawn.std()) == pytest.approx(0.5, rel=0.1)


@pytest.mark.public_door
def test_bad_arguments() -> None:
    generator = torch.Generator()
    with pytest.raises(ValueError, match="actions must be at least 225"):
        trap_bandit(5, 224, 1, 0.1, generator=generator)
    with pytest.raises(ValueError, match="sparsity must be from 1 to 5"):
        trap_bandit(5, 500, 6, 0.1, generator=generator)
    with pytest.raises(ValueError, match="sparsity must be from 1 to 5"):
        sign_bandit(5, 10, 0, 0.1, generator=generator)
    with pytest.raises(ValueError, match="epsilon must be less than 1"):
        needle_bandit(4, 1.0, generator=generator)
    with pytest.raises(ValueError, match="sparsity must be from 1"):
        digits_bandit(0.1, 64, generator=generator)
    with pytest.raises(ValueError, match=r"features must have shape \(actions, dim\)"):
        LinearBandit(torch.zeros(3), torch.zeros(3), torch.zeros(3))
    with pytest.raises(ValueError, match=r"theta must have shape \(2,\), got \(3,\)"):
        LinearBandit(torch.zeros(3, 2), torch.zeros(3), torch.zeros(3))
    bandit = LinearBandit(torch.eye(2), torch.ones(2), torch.zeros(2))
    with pytest.raises(ValueError, match="generator must be given"):
        bandit.oracle(0.1)
    with pytest.raises(ValueError, match="action must be from 0 to 1"):
        bandit.oracle()(2)
    with pytest.raises(ValueError, match="action must be from 0 to 1"):
        bandit.suboptimality(-1)
