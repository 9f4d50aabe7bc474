import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import kstest, norm

from sparsepriors.regression.mechanisms import (
    GaussianMechanism,
    L2BallRandomiser,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_mu,
    pack_symmetric,
    unpack_symmetric,
)

EPSILONS = st.floats(0.05, 12.0)
DELTAS = st.floats(1e-9, 0.2)


@pytest.mark.parametrize("mu", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0])
def test_delta_is_the_integral_of_the_excess_density(mu, epsilon):
    def excess(x):
        return max(0.0, norm.pdf(x, mu) - math.exp(epsilon) * norm.pdf(x))

    kink = mu / 2 + epsilon / mu
    assert gaussian_delta(mu, epsilon) == pytest.approx(quad(excess, kink, kink + 40)[0], rel=1e-6, abs=1e-12)


@given(epsilon=EPSILONS, delta=DELTAS)
def test_calibration_spends_all_of_the_budget_and_no_more(epsilon, delta):
    mu = gaussian_mu(epsilon, delta)
    assert gaussian_delta(mu, epsilon) <= delta
    assert gaussian_delta(mu * (1 + 1e-6), epsilon) > delta
    assert gaussian_epsilon(mu, delta) == pytest.approx(epsilon, rel=1e-6, abs=1e-9)


@given(epsilon=st.floats(0.05, 1.0), delta=st.floats(1e-9, 0.01))
def test_the_classic_formula_holds_up_to_one_and_never_needs_less_noise(epsilon, delta):
    classic, analytic = (GaussianMechanism(2.0, epsilon, delta, c) for c in ("classic", "analytic"))
    assert classic.scale == pytest.approx(2 * math.sqrt(2 * math.log(1.25 / delta)) / epsilon)
    assert analytic.scale <= classic.scale


def test_the_classic_formula_is_refused_where_it_breaks_its_promise():
    with pytest.raises(ValueError, match=r"delta = 1e-05 at epsilon = 10, got 'classic', whose noise has delta = 2.27"):
        GaussianMechanism(1.0, 10.0, 1e-5, "classic")


def test_little_noise_is_no_privacy_at_epsilon_zero():
    assert gaussian_epsilon(1e-6, 0.1) == 0.0


def test_gaussian_noise_has_its_scale(generator):
    mechanism = GaussianMechanism(3.0, 1.0, 1e-4)
    v = torch.tensor([1.0, -2.0]).repeat(4000, 1)
    noise = (mechanism.randomise(v, generator) - v).reshape(-1) / mechanism.scale
    assert kstest(noise.numpy(), "norm").pvalue > 1e-3


@given(dim=st.integers(1, 600), epsilon=EPSILONS, share=st.floats(0, 1))
def test_the_randomiser_has_no_bias_and_leaks_epsilon_exactly(dim, epsilon, share):
    """Both from its law: the mean of a half sphere is known, and so are the densities on the two halves."""
    randomiser = L2BallRandomiser(dim, 2.5, epsilon)
    v = torch.zeros(dim, dtype=torch.float64)
    v[0] = 2.5 * share
    here, there = v.clone(), v.clone()
    here[0], there[0] = randomiser.norm, -randomiser.norm
    up, down = (float(randomiser.log_density(z, v).exp()) / 2 for z in (here, there))
    assert up + down == pytest.approx(1)
    # the mean first coordinate of the upper half of the unit sphere, 1 for a sphere of two points
    half = math.exp(math.lgamma(dim / 2) - math.lgamma((dim + 1) / 2)) / math.sqrt(math.pi)
    assert (up - down) * randomiser.norm * half == pytest.approx(float(v[0]), abs=1e-9)
    # no other input is further: the densities at the ends of the ball have the largest ratio
    v[0] = 2.5
    assert float(randomiser.log_density(here, v) - randomiser.log_density(here, -v)) == pytest.approx(epsilon)


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_messages_lie_on_the_sphere_and_follow_their_density(dim, share, generator):
    randomiser = L2BallRandomiser(dim, 2.0, 1.5)
    v = torch.zeros(40_000, dim)
    v[:, -1] = 2.0 * share
    z = randomiser.randomise(v, generator)
    torch.testing.assert_close(z.norm(dim=-1), torch.full((40_000,), randomiser.norm), rtol=1e-4, atol=0.0)
    side = float((z[:, -1] > 0).float().mean())
    at = torch.zeros(dim)
    at[-1] = randomiser.norm
    assert side == pytest.approx(float(randomiser.log_density(at, v[0]).exp()) / 2, abs=0.012)
    mean = z.mean(0)
    assert float((mean - v[0]).abs().max()) < 4.5 * randomiser.norm / math.sqrt(40_000)


def test_large_dimensions_do_not_overflow():
    assert L2BallRandomiser(100_000, 1.0, 1.0).norm == pytest.approx(
        math.sqrt(math.pi * 50_000) / math.tanh(0.5), rel=1e-4)


@given(dim=st.integers(1, 7), seed=st.integers(0, 1000))
def test_packing_keeps_the_norm_and_the_matrix(dim, seed):
    a = torch.randn(2, dim, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    a = a + a.mT
    packed = pack_symmetric(a)
    torch.testing.assert_close(packed.norm(dim=-1), torch.linalg.matrix_norm(a))
    torch.testing.assert_close(unpack_symmetric(packed), a)


@pytest.mark.public_door
@pytest.mark.parametrize(("build", "message"), [
    (lambda: GaussianMechanism(1.0, 0.0, 0.1), "epsilon must be finite and positive, got 0"),
    (lambda: GaussianMechanism(1.0, -1.0, 0.1), "epsilon"),
    (lambda: GaussianMechanism(1.0, math.nan, 0.1), "epsilon"),
    (lambda: GaussianMechanism(1.0, 1.0, 0.0), "delta must be finite and positive, got 0"),
    (lambda: GaussianMechanism(1.0, 1.0, 1.0), "delta must lie strictly between 0 and 1, got 1"),
    (lambda: GaussianMechanism(0.0, 1.0, 0.1), "sensitivity"),
    (lambda: GaussianMechanism(1.0, 1.0, 0.1, "exact"), "calibration must be one of"),
    (lambda: gaussian_mu(1e13, 0.1), "epsilon must leave noise to calibrate"),
    (lambda: L2BallRandomiser(0, 1.0, 1.0), "dim must be at least 1"),
    (lambda: L2BallRandomiser(2, -1.0, 1.0), "radius"),
    (lambda: L2BallRandomiser(2, 1.0, 0.0), "epsilon"),
    (lambda: L2BallRandomiser(2, 1.0, 1.0).randomise(torch.tensor([1.0, 1.0]), torch.Generator()),
     "v must lie in the ball of radius 1, got a norm of 1.41421"),
    (lambda: L2BallRandomiser(2, 1.0, 1.0).randomise(torch.tensor([math.nan, 1.0]), torch.Generator()), "NaN"),
    (lambda: L2BallRandomiser(2, 1.0, 1.0).randomise(torch.zeros(3), torch.Generator()), "v must have shape"),
    (lambda: L2BallRandomiser(2, 1.0, 1.0).log_density(torch.zeros(3), torch.zeros(2)), "z must have shape"),
    (lambda: unpack_symmetric(torch.zeros(4)), "packed must have dim"),
])
def test_bad_arguments_are_named(build: Any, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_noise_is_reproducible_and_in_the_precision_given():
    mechanism = L2BallRandomiser(4, 1.0, 1.0)
    a, b = (mechanism.randomise(torch.zeros(3, 4), torch.Generator().manual_seed(1)) for _ in range(2))
    assert a.dtype == torch.float32
    np.testing.assert_array_equal(a.numpy(), b.numpy())
