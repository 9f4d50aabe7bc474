"""The guarantees of elimination: never worse than the certificate, whatever the misspecification."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from sparsepriors.data import LinearBandit, needle_bandit, trap_bandit
from sparsepriors.regression.bandits import (
    FiniteClassBandit,
    Noise,
    Outcome,
    SpannerBandit,
    SparseEliminationBandit,
    SweepBandit,
    elimination,
    sparse_net,
)

EPSILON = 0.15


def _bandit(seed: int, dim: int, sparsity: int, *, longest: float = 1.0, blank: int = 0) -> LinearBandit:
    """Features of norm up to ``longest``, the last ``blank`` columns zero; misspecification at its bound."""
    g = torch.Generator().manual_seed(seed)
    x = torch.nn.functional.normalize(torch.randn(80, dim, generator=g, dtype=torch.float64), dim=1)
    x *= longest * torch.rand(80, 1, generator=g, dtype=torch.float64)
    x[:, dim - blank:] = 0
    theta = torch.zeros(dim, dtype=torch.float64)
    theta[torch.randperm(dim, generator=g)[:sparsity]] = torch.randn(sparsity, generator=g, dtype=torch.float64)
    theta *= float(torch.rand((), generator=g)) / theta.norm()
    return LinearBandit(x, theta, EPSILON * torch.randint(-1, 2, (80,), generator=g).double())


PROBLEMS = {"seed": st.integers(0, 10_000), "dim": st.integers(2, 7), "sparsity": st.integers(1, 2)}


@settings(max_examples=60)
@given(**PROBLEMS, longest=st.sampled_from([0.5, 1.0, 3.0]))
def test_the_action_is_within_the_certificate(seed: int, dim: int, sparsity: int, longest: float) -> None:
    bandit = _bandit(seed, dim, sparsity, longest=longest)
    for algorithm in (SparseEliminationBandit(sparsity, EPSILON), SweepBandit(sparsity, EPSILON, 0.3)):
        oracle = bandit.oracle()
        found = algorithm.run(bandit.features, oracle)
        assert found.outcome is Outcome.CERTIFIED
        assert found.bound == pytest.approx(2 * (EPSILON + (algorithm.resolution or EPSILON)))
        assert bandit.suboptimality(found.action) <= found.bound
        assert found.n_queries == len(oracle.queried) == len(set(oracle.queried))
        assert found.n_queries <= min(len(bandit.features), found.extras["candidates"])
        assert found.history == tuple((a, float(bandit.rewards[a])) for a in oracle.queried)


@settings(max_examples=60)
@given(**PROBLEMS, blank=st.integers(0, 2), factor=st.sampled_from([1.1, 2.0]), chunk=st.sampled_from([1, 64]))
def test_the_spanners_error_is_within_its_certificate(seed: int, dim: int, sparsity: int, blank: int, factor: float,
                                                      chunk: int) -> None:
    bandit = _bandit(seed, dim, sparsity, blank=min(blank, dim - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(elimination, "_CHUNK", chunk)
        found = SpannerBandit(sparsity, EPSILON, factor).run(bandit.features, bandit.oracle())
    assert found.outcome is Outcome.CERTIFIED
    assert found.bound == pytest.approx(2 * (factor * sparsity + 1) * EPSILON)
    assert bandit.suboptimality(found.action) <= found.bound


def test_the_spanner_shares_actions_among_supports() -> None:
    bandit = trap_bandit(20, 400, 2, 0.1, generator=torch.Generator().manual_seed(0))
    found = SpannerBandit(2, 0.1).run(bandit.features, bandit.oracle())
    assert found.n_queries < 40                       # 190 supports of two actions each
    assert found.extras["candidates"] == 190
    exact = LinearBandit(bandit.features, bandit.theta, torch.zeros(400, dtype=torch.float64))
    found = SpannerBandit(2, 1e-6).run(exact.features, exact.oracle())
    assert exact.suboptimality(found.action) <= 1e-5


@pytest.mark.parametrize("chunk", [1, 2, 64])
def test_known_actions_do_not_hide_a_coordinate(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elimination, "_CHUNK", chunk)
    for best in range(5):
        rewards = [0.0] * 5
        rewards[best] = 1.0
        found = SpannerBandit(1, 1e-3).run(torch.eye(5), rewards.__getitem__)
        assert found.action == best
        assert found.n_queries == 5


def test_fewer_queries_than_the_sweep_on_the_trap() -> None:
    bandit = trap_bandit(30, 1500, 2, 0.2, generator=torch.Generator().manual_seed(1))
    quick = SparseEliminationBandit(2, 0.2).run(bandit.features, bandit.oracle())
    sweep = SweepBandit(2, 0.2).run(bandit.features, bandit.oracle())
    assert quick.n_queries * 5 < sweep.n_queries < 1500
    assert quick.n_queries <= 75


def test_noise_is_averaged_and_paid_for() -> None:
    bandit = trap_bandit(20, 300, 1, 0.15, generator=torch.Generator().manual_seed(2))
    noise = Noise(0.1, accuracy=0.075)
    wrong = 0
    for seed in range(20):
        oracle = bandit.oracle(0.1, torch.Generator().manual_seed(seed))
        found = SparseEliminationBandit(1, 0.15, noise=noise).run(bandit.features, oracle)
        assert found.bound == pytest.approx(2 * (0.15 + 0.15 + 0.075))
        assert found.n_queries == len(oracle.queried) == noise.repeats(300) * len(found.history)
        wrong += found.outcome is not Outcome.CERTIFIED or bandit.suboptimality(found.action) > found.bound
    assert wrong <= 1
    found = SpannerBandit(1, 0.15, noise=noise).run(bandit.features, bandit.oracle(0.1, torch.Generator()))
    assert found.bound == pytest.approx(2 * (2 * (0.15 + 0.075) + 0.15 + 0.075))


def test_rewards_that_no_candidate_explains_violate_the_model() -> None:
    features = torch.eye(3)
    for algorithm in (SparseEliminationBandit(1, 0.1), SpannerBandit(1, 0.01)):
        found = algorithm.run(features, [-0.5, 0.5, 0.9].__getitem__)
        assert found.outcome is Outcome.VIOLATED
        assert found.bound == math.inf
        assert found.action == max(found.history, key=lambda pair: pair[1])[0]


def test_the_budget_ends_elimination() -> None:
    bandit = trap_bandit(30, 300, 1, 0.1, generator=torch.Generator().manual_seed(0))
    full = SparseEliminationBandit(1, 0.1).run(bandit.features, bandit.oracle())
    short = SparseEliminationBandit(1, 0.1).run(bandit.features, bandit.oracle(), budget=full.n_queries - 1)
    assert short.outcome is Outcome.SPENT
    assert short.history == full.history[:-1]


def test_a_listed_class_finds_the_needle_and_nothing_else_does() -> None:
    counts = []
    for seed in range(30):
        bandit = needle_bandit(12, generator=torch.Generator().manual_seed(seed))
        found = FiniteClassBandit(bandit.features, 0.5).run(bandit.features, bandit.oracle())
        assert found.certified
        assert bandit.suboptimality(found.action) == 0
        counts.append(found.n_queries)
    assert 0.3 * 36 < sum(counts) / 30 < 0.7 * 36     # half of the 36 actions on average


@pytest.mark.public_door
def test_bad_arguments() -> None:
    features = torch.eye(3)
    for kind in (SparseEliminationBandit, SweepBandit, SpannerBandit):
        with pytest.raises(ValueError, match="epsilon must be finite and positive"):
            kind(1, 0.0)
        with pytest.raises(ValueError, match="sparsity must be at least 1"):
            kind(0, 0.1)
        with pytest.raises(TypeError, match="noise must be a Noise or None"):
            kind(1, 0.1, noise=0.1)
        with pytest.raises(ValueError, match="sparsity must be at most the dimension 3, got 4"):
            kind(4, 0.1).run(features, float)
        with pytest.raises(ValueError, match="max_candidates must"):
            kind(2, 0.1, max_candidates=2).run(features, float)
    with pytest.raises(ValueError, match="resolution must be finite and positive"):
        SparseEliminationBandit(1, 0.1, resolution=-1.0)
    with pytest.raises(ValueError, match="factor must be a finite number more than 1"):
        SpannerBandit(1, 0.1, factor=1.0)
    with pytest.raises(ValueError, match=r"thetas must have shape \(candidates, dim\)"):
        FiniteClassBandit(torch.ones(3), 0.1)
    with pytest.raises(ValueError, match="thetas must have shape"):
        FiniteClassBandit(torch.ones(2, 4), 0.1).run(features, float)


def test_the_candidates_of_the_elimination_are_the_net() -> None:
    bandit = _bandit(0, 6, 2)
    longest = float(torch.linalg.vector_norm(bandit.features, dim=1).max())
    found = SparseEliminationBandit(2, EPSILON, 0.2).run(bandit.features, bandit.oracle())
    assert found.extras["candidates"] == len(sparse_net(6, 2, 0.2 / longest))
    assert found.extras["remaining"] >= 1
