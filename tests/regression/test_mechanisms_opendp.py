"""The mechanisms beside those of OpenDP, an independent implementation that is meant for deployment."""

from __future__ import annotations

import math
from typing import Any

import opendp.prelude
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from sparsepriors.regression.mechanisms import GaussianMechanism, L2BallRandomiser

EPSILONS = st.floats(0.1, 6.0)
dp: Any = opendp.prelude   # its annotations are those of the generated bindings, wider than what comes back


@pytest.fixture(scope="module", autouse=True)
def _measurements_of_contributors():
    before = set(dp.GLOBAL_FEATURES)
    dp.enable_features("contrib")
    yield
    dp.disable_features(*({"contrib"} - before))


def gaussian(scale: float):
    vectors = dp.vector_domain(dp.atom_domain(T=float, nan=False))
    return dp.m.make_gaussian(vectors, dp.l2_distance(T=float), scale=scale)


@given(sensitivity=st.floats(0.1, 50.0), epsilon=EPSILONS, delta=st.floats(1e-8, 1e-2))
@settings(max_examples=30)
def test_opendp_s_bound_on_our_noise_is_a_little_above_what_it_spends(sensitivity, epsilon, delta):
    mechanism = GaussianMechanism(sensitivity, epsilon, delta)
    theirs = gaussian(mechanism.scale)
    assert theirs.map(sensitivity) == pytest.approx(mechanism.mu**2 / 2)   # in zero-concentrated privacy
    spent = dp.c.make_zCDP_to_approxDP(theirs).map(sensitivity)
    # Ours is exact; theirs goes through a bound on all moments.
    assert epsilon * (1 - 1e-9) <= spent.epsilon(delta) <= 1.6 * epsilon + 0.1
    assert delta * (1 - 1e-9) <= spent.delta(epsilon)


def test_the_noise_has_the_law_of_opendp_s(generator):
    mechanism = GaussianMechanism(2.0, 1.0, 1e-4)
    ours = mechanism.randomise(torch.zeros(3000, dtype=torch.float64), generator)
    same: Any = ks_2samp(ours.numpy(), gaussian(mechanism.scale)([0.0] * 3000))
    assert same.pvalue > 1e-6


@given(epsilon=EPSILONS)
@settings(max_examples=30)
def test_in_one_dimension_directions_are_randomised_response(epsilon):
    end = torch.ones(1, dtype=torch.float64)
    randomiser = L2BallRandomiser(1, 1.0, epsilon)
    truth = float(randomiser.log_density(end, end).exp()) / 2
    assert dp.m.make_randomized_response_bool(prob=truth).map(1) == pytest.approx(epsilon)
    assert truth == pytest.approx(math.exp(epsilon) / (1 + math.exp(epsilon)))
