"""Hooks of `fit`: activity follows its target, sorted latents are the same autoencoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparsepriors.dictionaries import MatchingPursuit, SparseAutoencoder, fit
from sparsepriors.dictionaries.hooks import FollowActivity, SortLatents
from sparsepriors.dictionaries.learning import random_atoms
from sparsepriors.networks.train_loop import Hook
from sparsepriors.priors import L1, Matryoshka


def signals() -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    on = torch.rand(1000, 12, generator=g) < 0.2
    return (on * (1 + torch.rand(1000, 12, generator=g))) @ random_atoms(12, 8, g)


def made(prior, seed: int = 1) -> SparseAutoencoder:
    return SparseAutoencoder(8, 16, prior, generator=torch.Generator().manual_seed(seed))


def test_penalties_follow_their_activity() -> None:
    saes = [made(L1(0.01)), made(L1(1.0))]
    follow = FollowActivity(saes, [2.0, 4.0], ramp=20, rate=0.05)
    done = fit(saes, signals(), steps=250, batch=100, lr=1e-2, hooks=[follow])
    for i, target in enumerate((2, 4)):
        assert np.mean(done.trace[f"{i}/l0"][-60:]) == pytest.approx(target, rel=0.15)
    assert follow.factors[0] > 1 > follow.factors[1]
    assert not any(s._forward_hooks for s in saes)


class _Codes(Hook):
    """Codes and moments of one signal before and after a sort."""

    def __init__(self, sae: SparseAutoencoder, x: torch.Tensor) -> None:
        self.sae, self.x, self.seen = sae, x, []

    def after_step(self, loop) -> None:
        moment = loop.optimizer.state[self.sae.W_dec]["exp_avg"].clone()
        self.seen.append((self.sae.encode(self.x).detach(), self.sae.W_dec.detach().clone(), moment))


def test_sorting_changes_the_order_and_nothing_else() -> None:
    sae, x = made(Matryoshka(L1(0.05), draws=3)), signals()
    first, sort, second = _Codes(sae, x[:1]), SortLatents(sae, every=1), _Codes(sae, x[:1])
    fit(sae, x, steps=30, batch=100, lr=1e-2, hooks=[first, sort, second])
    for (codes, atoms, moments), (after, atoms_after, moments_after) in zip(first.seen, second.seen, strict=True):
        torch.testing.assert_close(codes @ atoms, after @ atoms_after)
        order = (atoms_after @ atoms.mT).argmax(dim=1)
        assert order.sort().values.tolist() == list(range(16))
        torch.testing.assert_close(moments[order], moments_after)
    assert bool((sort.size.diff() <= 0).all())


@pytest.mark.public_door
@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda: FollowActivity([made(L1(1.0))], [1.0, 2.0]), ValueError, "one for each"),
    (lambda: FollowActivity([made(L1(1.0))], -1.0), ValueError, "target"),
    (lambda: FollowActivity([made(L1(1.0))], 1.0, rate=1.0), ValueError, "rate must be below 1"),
    (lambda: SortLatents(made(MatchingPursuit(2))), TypeError, "must have an encoder"),
    (lambda: SortLatents(made(L1(1.0)), memory=1.0), ValueError, "memory must be below 1"),
])
def test_bad_arguments_are_named(call, error, words) -> None:
    with pytest.raises(error, match=words):
        call()
