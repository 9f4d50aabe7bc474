"""Priors of codes: activations are proxes, thresholds follow batches, jumps have the published gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.priors import L1, BatchTopK, JumpReLU, Matryoshka, TopK


@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 9))
def test_activations_are_proxes(seed: int, rows: int, k: int) -> None:
    pre = torch.randn(rows, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(TopK(k).activate(pre, {}), TopK(k, dims=1).prox(pre))
    batch = BatchTopK(k / 2)
    assert torch.equal(batch.activate(pre, batch.state(7), training=True), batch.prox(pre))
    jump = JumpReLU(0.4)
    torch.testing.assert_close(jump.activate(pre, {"threshold": torch.full((7,), 0.4, dtype=torch.float64)}),
                               jump.prox(pre))


@given(st.integers(0, 2**31))
def test_weights_rank_codes_and_do_not_change_them(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    pre, weights = torch.randn(5, 8, dtype=torch.float64, generator=g), 0.1 + torch.rand(8, generator=g).double()
    for prior, state in ((TopK(2), {}), (BatchTopK(1.5), BatchTopK(1.5).state(8)),
                         (JumpReLU(), {"threshold": torch.full((8,), 0.3, dtype=torch.float64)})):
        direct = prior.activate(pre, state, training=True, weights=weights)
        scaled = prior.activate(pre * weights, state, training=True) / weights
        torch.testing.assert_close(direct, scaled)


def test_a_threshold_follows_the_smallest_code_of_a_batch() -> None:
    prior = BatchTopK(2, momentum=0.9, start=1)
    state = prior.state(8)
    prior.observe(5.0, state)                       # before the start
    assert float(state["threshold"]) < 0
    with pytest.raises(RuntimeError, match="no threshold yet"):
        prior.activate(torch.ones(2, 8), state)
    for least in (2.0, math.inf, 1.0):              # a batch without codes says nothing
        prior.observe(least, state)
    assert float(state["threshold"]) == pytest.approx(0.9 * 2 + 0.1)
    prior.rescale(state, 0.5)
    assert float(state["threshold"]) == pytest.approx(0.95)
    codes = prior.activate(torch.tensor([[0.9, 0.96, -3.0]]), state)
    torch.testing.assert_close(codes, torch.tensor([[0.0, 0.96, 0.0]]))


def test_k_falls_over_the_first_batches() -> None:
    prior = BatchTopK(2, k_start=10, anneal=4)
    state = prior.state(100)
    rooms = []
    for _ in range(6):
        rooms.append(prior.room(5, state, training=True))
        prior.observe(1.0, state)
    assert rooms == [(50, False), (40, False), (30, False), (20, False), (10, False), (10, False)]
    assert prior.room(5, state) is None


def test_a_jump_has_the_published_gradient() -> None:
    threshold = torch.tensor([0.5, 0.5, 0.5, 0.5], requires_grad=True)
    pre = torch.tensor([[0.3, 0.46, 0.54, 0.9]], requires_grad=True)
    prior = JumpReLU(weight=2.0, bandwidth=0.2)
    codes = prior.activate(pre, {"threshold": threshold})
    torch.testing.assert_close(codes, torch.tensor([[0.0, 0.0, 0.54, 0.9]]))
    codes.backward(torch.tensor([[1.0, 10.0, 100.0, 1000.0]]))
    torch.testing.assert_close(pre.grad, torch.tensor([[0.0, 0.0, 100.0, 1000.0]]))
    torch.testing.assert_close(threshold.grad, -0.5 / 0.2 * torch.tensor([0.0, 10.0, 100.0, 0.0]))
    threshold.grad = None
    penalty = prior.penalty(codes, pre.detach(), torch.ones(4), {"threshold": threshold})
    assert float(penalty.detach()) == 4.0
    penalty.backward()
    torch.testing.assert_close(threshold.grad, -2.0 / 0.2 * torch.tensor([0.0, 1.0, 1.0, 0.0]))
    towards = JumpReLU(weight=2.0, target=4.0).penalty(codes, pre.detach(), torch.ones(4), {"threshold": threshold})
    assert float(towards.detach()) == 2.0 * 0.25
    with torch.no_grad():
        threshold.copy_(torch.tensor([0.1, -0.2, 0.0, 1.0]))
    prior.constrain({"threshold": threshold})
    assert threshold.tolist() == pytest.approx([0.1, 0.0, 0.0, 1.0])


def test_prefixes_are_nested_and_drawn_ones_are_mostly_short() -> None:
    assert Matryoshka(TopK(2), (3, 8)).nested(20) == (3, 8, 20)
    drawn = Matryoshka(L1(), draws=3)
    g = torch.Generator().manual_seed(0)
    found = [drawn.nested(101, g) for _ in range(3000)]
    assert all(len(set(p)) == 4 and list(p) == sorted(p) and p[-1] == 101 for p in found)
    single = Matryoshka(L1(), draws=1)
    first = torch.tensor([single.nested(101, g)[0] for _ in range(3000)])
    # P(length <= l) = (l / 101)^0.5 up to the normalisation of the last length
    for length in (1, 10, 50):
        assert float((first <= length).double().mean()) == pytest.approx((length / 100) ** 0.5, abs=0.03)
    assert drawn.nested(2, g) == (1, 2)


@pytest.mark.public_door
def test_bad_parameters_are_refused() -> None:
    for make, error, words in (
            (lambda: TopK(0), ValueError, "k must be at least 1"),
            (lambda: TopK(2.5), TypeError, "k must be an integer"),
            (lambda: BatchTopK(0.0), ValueError, "k must be finite and positive"),
            (lambda: BatchTopK(2, momentum=1.0), ValueError, "momentum must be below 1"),
            (lambda: BatchTopK(2, k_start=5), ValueError, "k_start and anneal go together"),
            (lambda: BatchTopK(2, anneal=5), ValueError, "k_start and anneal go together"),
            (lambda: BatchTopK(2, k_start=-1.0, anneal=5), ValueError, "k_start must be"),
            (lambda: JumpReLU(0.0), ValueError, "threshold must be finite and positive"),
            (lambda: JumpReLU(bandwidth=0.0), ValueError, "bandwidth must be"),
            (lambda: JumpReLU(weight=-1.0), ValueError, "weight must be"),
            (lambda: JumpReLU(target=0.0), ValueError, "target must be"),
            (lambda: Matryoshka("l1", (2,)), TypeError, "prior must be a Prior"),
            (lambda: Matryoshka(L1(), (4, 4)), ValueError, r"prefixes\[1\] must be at least 5"),
            (lambda: Matryoshka(L1()), ValueError, "give either prefixes or draws"),
            (lambda: Matryoshka(L1(), (4,), 2), ValueError, "give either prefixes or draws"),
            (lambda: Matryoshka(L1(), (4,)).nested(4), ValueError, "shorter than the 4 latents"),
            (lambda: Matryoshka(L1(), draws=2).nested(4), ValueError, "generator must be given"),
            (lambda: TopK(2).prox(torch.tensor(1.0)), ValueError, "needs an axis of latents"),
            (lambda: BatchTopK(2, dims=0).prox(torch.ones(3)), ValueError, "needs an axis of latents")):
        with pytest.raises(error, match=words):
            make()
