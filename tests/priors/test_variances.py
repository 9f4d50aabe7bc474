"""Kronecker variances: what the three rules promise."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from torch import Tensor

from sparsepriors.priors import KroneckerVariances
from sparsepriors.priors.variances import product

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def objective(moments: Tensor, factors: tuple[Tensor, ...]) -> float:
    gamma = product(factors)
    alive = gamma > 0
    return float((gamma[alive].log() + moments[alive] / gamma[alive]).sum())


@given(shape=SHAPES, seed=st.integers(0, 99))
def test_a_product_is_found_exactly_by_every_rule(shape, seed):
    torch.manual_seed(seed)
    truth = product([torch.rand(n, dtype=torch.float64) + 0.1 for n in shape])
    for rule in ("alternating", "svd"):
        found = KroneckerVariances(rule, inner_tol=1e-12).fit(truth)
        torch.testing.assert_close(product(found), truth)
        for head in found[:-1]:
            assert float(head.norm()) == pytest.approx(1)


@given(shape=SHAPES, seed=st.integers(0, 99))
@settings(max_examples=25)
def test_rounds_never_raise_the_objective_and_end_at_its_minimum(shape, seed):
    torch.manual_seed(seed)
    moments = torch.rand(shape, dtype=torch.float64) ** 4 + 1e-3
    sweep = KroneckerVariances("sweep")
    factors = sweep.start(shape)
    costs = [objective(moments, factors)]
    for _ in range(5):
        factors = sweep.fit(moments, factors)
        costs.append(objective(moments, factors))
    assert all(b <= a + 1e-9 for a, b in pairwise(costs))
    best = KroneckerVariances(inner_tol=1e-10).fit(moments)
    logs = [f.log().requires_grad_() for f in best]
    gamma = product([f.exp() for f in logs])
    slopes = torch.autograd.grad((gamma.log() + moments / gamma).sum(), logs)
    assert max(float(s.abs().max()) for s in slopes) < 1e-6      # convex in the logarithms: this is the minimum


@given(n=st.integers(1, 5), m=st.integers(1, 5), seed=st.integers(0, 99))
def test_the_svd_rule_is_the_best_rank_one(n, m, seed):
    moments = np.random.default_rng(seed).random((n, m)) ** 3
    a, b = KroneckerVariances("svd").fit(torch.from_numpy(moments))
    left, values, right = np.linalg.svd(moments)
    np.testing.assert_allclose(torch.outer(a, b), values[0] * np.outer(left[:, 0], right[0]), atol=1e-10)


def test_a_batch_is_fitted_item_by_item(generator):
    moments = torch.rand(2, 3, 4, 3, 2, dtype=torch.float64, generator=generator)
    for prior in (KroneckerVariances(), KroneckerVariances("sweep"), KroneckerVariances("svd"),
                  KroneckerVariances(coupling=(0.5, 0.0, 0.8))):
        together = prior.fit(moments, prior.start((4, 3, 2), (2, 3)))
        for i in range(2):
            for j in range(3):
                alone = prior.fit(moments[i, j], prior.start((4, 3, 2)))
                for a, b in zip(together, alone, strict=True):
                    torch.testing.assert_close(a[i, j], b)


def test_zeros_stay_zero_and_do_not_count(generator):
    moments = torch.rand(4, 3, dtype=torch.float64, generator=generator) + 0.1
    kept = torch.tensor([True, False, True, True])
    moments[~kept] = 0
    whole = KroneckerVariances().fit(moments, (kept.double(), torch.ones(3, dtype=torch.float64)))
    part = KroneckerVariances().fit(moments[kept])
    torch.testing.assert_close(product(whole)[kept], product(part), atol=1e-5, rtol=1e-4)
    assert float(whole[0][1]) == 0


def test_a_coupled_factor_is_the_nearest_mixture_of_neighbours(generator):
    moments = torch.rand(6, 1, dtype=torch.float64, generator=generator)
    moments[2] = 5.0
    prior = KroneckerVariances("sweep", coupling=(0.8, 0.0), floor=1e-5)
    found = product(prior.fit(moments, (torch.ones(6, dtype=torch.float64), torch.ones(1, dtype=torch.float64))))
    mixing = np.eye(6) + 0.8 * (np.eye(6, k=1) + np.eye(6, k=-1))
    want = mixing @ nnls(mixing, moments[:, 0].numpy())[0] + 1e-5
    # The second factor then rescales the whole to the moments.
    want *= np.mean(moments[:, 0].numpy() / want)
    np.testing.assert_allclose(found[:, 0], want, rtol=1e-9)
    assert found[1, 0] > 0.7 * found[2, 0] * 0.8 > moments[1, 0]     # a neighbour of a large one is large
    torch.testing.assert_close(prior.start((6, 1))[0][:2], torch.tensor([1.8, 2.6], dtype=torch.float64) / math.sqrt(
        2 * 1.8**2 + 4 * 2.6**2))


def test_it_has_a_json_form():
    prior = KroneckerVariances("sweep", coupling=(0.5, 0.0), inner_max=9)
    assert KroneckerVariances.from_dict(prior.to_dict()) == prior


@pytest.mark.public_door
@pytest.mark.parametrize(("words", "error", "message"), [
    ({"rule": "als"}, ValueError, "rule must be one of"),
    ({"inner_tol": 0.0}, ValueError, "inner_tol must be finite and positive"),
    ({"inner_max": 0}, ValueError, "inner_max must be at least 1"),
    ({"floor": -1.0}, ValueError, "floor must be finite and nonnegative"),
    ({"coupling": (0.5, -0.1)}, ValueError, r"coupling\[1\] must be finite and nonnegative"),
    ({"coupling": 0.5}, TypeError, "coupling must be a tuple"),
    ({"coupling": (0.5,), "rule": "svd"}, ValueError, "coupling must be None for the rule 'svd'"),
])
def test_bad_parameters_are_named(words, error, message):
    with pytest.raises(error, match=message):
        KroneckerVariances(**words)


@pytest.mark.public_door
def test_bad_moments_are_named():
    prior, ones = KroneckerVariances(), torch.ones(2, 3)
    with pytest.raises(ValueError, match="moments must be finite and nonnegative"):
        prior.fit(-ones)
    with pytest.raises(ValueError, match="moments holds NaN"):
        prior.fit(ones * math.nan)
    with pytest.raises(ValueError, match=r"factors must have one entry per axis"):
        prior.fit(ones, (torch.ones(2), torch.ones(3), torch.ones(1)))
    with pytest.raises(ValueError, match=r"factors\[1\] must have shape \(3,\)"):
        prior.fit(ones, (torch.ones(2), torch.ones(2)))
    with pytest.raises(ValueError, match=r"factors\[0\] must be finite and nonnegative"):
        prior.fit(ones, (-torch.ones(2), torch.ones(3)))
    with pytest.raises(ValueError, match="no empty one"):
        prior.start((2, 0))
    with pytest.raises(ValueError, match="coupling must have one number for each of 2 axes"):
        KroneckerVariances(coupling=(0.5,)).fit(ones)
