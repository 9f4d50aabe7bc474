import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from sparsepriors.regression import GradientMechanism, Message, MomentMechanism, MomentServer, ThresholdingServer
from sparsepriors.regression.mechanisms import GaussianMechanism, gaussian_mu, unpack_symmetric

MECHANISM = MomentMechanism(4, 1.0, 1e-3, radius=2.0, tau_y=1.5, tau_x=1.2)
SHAPES = [{"tau_x": 1.2}, {"tau_x": None}, {"tau_x": 1.2, "covariance": False}, {"tau_x": None, "covariance": False}]


def distance(m, one, other):
    """Of two users' messages without noise, in units of the noise."""
    total = 0.0
    a, b = (m.clean(x[None], y[None]) for x, y in (one, other))
    total += float((a.cross - b.cross).square().sum()) / m.scales[0]**2
    if m.covariance:
        total += float((a.second - b.second).square().sum()) / m.scales[1]**2
    return math.sqrt(total)


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), size=st.floats(0.1, 30.0), power=st.floats(0.1, 5.0), bound=st.floats(0.05, 20.0))
def test_no_two_users_are_further_apart_than_the_accounting_says(shape, seed, size, power, bound):
    m = replace(MECHANISM, bound=bound, **shape)
    g = torch.Generator().manual_seed(seed)
    x, other = (size * torch.randn(2, 4, generator=g, dtype=torch.float64).sign()
                * torch.rand(2, 4, generator=g, dtype=torch.float64)**power)
    y = 3 * torch.randn(2, generator=g, dtype=torch.float64)
    assert distance(m, (x, y[0]), (other, y[1])) <= gaussian_mu(1.0, 1e-3) * (1 + 1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bound", [0.05, 1.0, 20.0])
def test_some_two_users_are_as_far_apart_as_it_says(shape, bound):
    m = replace(MECHANISM, bound=bound, **shape)
    y = torch.tensor([9.0, -9.0], dtype=torch.float64)
    if m.tau_x is not None:  # equal where entries are clipped, orthogonal in the ball
        x = torch.full((4,), 1e3, dtype=torch.float64)
        one, other = x.clone(), x.clone()
        one[0], other[1] = 1e9, 1e9
    else:
        b, a = (m.cross_sensitivity / m.scales[0])**2, (m.second_sensitivity / (m.scales[1] or math.inf))**2
        cosine = min(1.0, b / (4 * a)) if a else 1.0
        one = torch.tensor([9.0, 0, 0, 0], dtype=torch.float64)
        other = 9 * torch.tensor([cosine, math.sqrt(1 - cosine**2), 0, 0], dtype=torch.float64)
    assert distance(m, (one, y[0]), (other, y[1])) == pytest.approx(gaussian_mu(1.0, 1e-3), rel=1e-3)
    assert m.report.exact_epsilon == pytest.approx(1.0)
    assert m.report.exact_delta == pytest.approx(1e-3)


@pytest.mark.parametrize("tau_x", [1.2, None])
def test_the_share_of_the_noise_is_the_best_one(tau_x):
    """Moving noise from one message to the other at the same cost makes theta worse."""
    m = replace(MECHANISM, tau_x=tau_x)
    cross, second = m.scales
    best = math.hypot(cross, second / math.sqrt(2))
    for factor in (0.9, 1.1):
        low, high = 0.1, 10.0   # the cross noise that costs the same with the other noise at factor
        for _ in range(80):
            middle = math.sqrt(low * high)
            enough = m._mu(cross * middle, second * factor) < m._mu(cross, second)
            low, high = (low, middle) if enough else (middle, high)
        assert math.hypot(cross * high, second * factor / math.sqrt(2)) > best
    assert m.noise_in_theta() == pytest.approx(best)


def test_the_published_noise_is_the_formula_s_and_costs_less_than_it_promises():
    m = MomentMechanism(4, 1.0, 1e-3, radius=2.0, tau_y=1.5, tau_x=1.2, noise="published")
    factor = math.sqrt(32 * math.log(2.5 / 1e-3))
    assert m.scales == pytest.approx((factor * 2 * 1.2 * 1.5, factor * 4))
    assert m.report.exact_epsilon < 0.7
    assert m.report.exact_delta < 1e-5
    alone = replace(m, covariance=False)
    assert alone.scales == (GaussianMechanism(2 * 2 * 1.2 * 1.5, 1.0, 1e-3, "classic").scale, 0.0)
    assert m.noise_in_theta() == pytest.approx(math.hypot(*m.scales))


@pytest.mark.parametrize("users", [1, 9])
@pytest.mark.parametrize("noise", ["exact", "published"])
def test_the_total_has_the_noise_of_the_users_messages_added(noise, users, generator):
    """Independent normal noises add up to one: clean sums plus sqrt(n) times the noise of one user."""
    m = replace(MECHANISM, noise=noise)
    X, y = torch.randn(users, 4, generator=generator), torch.randn(users, generator=generator)
    clean = m.clean(X, y)
    assert clean.second is not None
    second = unpack_symmetric(clean.second)
    rows, columns = torch.triu_indices(4, 4).unbind()
    # what unpacking makes of exact noise on the isometric packing, and the published noise on the triangle
    off = 1.0 if noise == "published" else math.sqrt(0.5)
    scale = torch.where(rows == columns, 1.0, off) * m.scales[1]
    drawn = []
    for _ in range(80):
        message = m.randomise(X[0], float(y[0]), generator) if users == 1 else m.total(X, y, generator)
        server = MomentServer(4)
        server.aggregate(message)
        assert server.users == users
        assert server.covariance is not None
        matrix = (server.covariance * users - second)[rows, columns] / scale
        drawn += [(server.cross * users - clean.cross) / m.scales[0], matrix]
    assert kstest((torch.cat(drawn) / math.sqrt(users)).numpy(), "norm").pvalue > 1e-3


def test_a_server_adds_messages():
    server = MomentServer(2)
    server.aggregate(Message(torch.tensor([float(i), 1.0]), torch.full((3,), float(i))) for i in range(4))
    assert server.users == 4
    again = MomentServer(2)
    again.aggregate(server.total)
    assert again.users == 4
    torch.testing.assert_close(again.covariance, server.covariance)
    torch.testing.assert_close(server.cross, torch.tensor([1.5, 1.0]).double())
    torch.testing.assert_close(server.covariance, torch.tensor([[1.5, 1.5 / math.sqrt(2)], [1.5 / math.sqrt(2), 1.5]]))


def test_the_mean_of_many_messages_is_the_moment(generator):
    n = 200_000
    X = torch.randn(n, 3, generator=generator)
    y = X[:, 0] + 0.1 * torch.randn(n, generator=generator)
    server = MomentServer(3)
    server.aggregate(MomentMechanism(3, 20.0, 0.1, 8.0, 8.0, 8.0).total(X, y, generator))
    torch.testing.assert_close(server.cross, torch.tensor([1.0, 0, 0], dtype=torch.float64), atol=0.1, rtol=0.0)
    torch.testing.assert_close(server.covariance, torch.eye(3, dtype=torch.float64), atol=0.25, rtol=0.0)


def test_rounds_on_exact_gradients_solve_least_squares(generator):
    """At a huge epsilon the randomiser keeps the direction; its spread is averaged out."""
    n = 100_000
    X = torch.randn(n, 3, generator=generator)
    y = 0.8 * X[:, 0] - 0.5 * X[:, 2]
    mechanism = GradientMechanism(3, 30.0, 6.0)
    server = ThresholdingServer(3, 2, step=0.5, bound=2.0)
    for _ in range(12):
        server.aggregate(mechanism.total(X, y, server.coef, generator), n)
    torch.testing.assert_close(server.coef, torch.tensor([0.8, 0, -0.5], dtype=torch.float64), atol=0.08, rtol=0.0)
    assert server.rounds == 12


def test_coefficients_stay_in_the_ball_and_few():
    server = ThresholdingServer(5, 2, step=1.0, bound=1.0)
    server.aggregate(torch.tensor([-30.0, 1, 2, -40, 3]), 10)
    torch.testing.assert_close(server.coef, torch.tensor([0.6, 0, 0, 0.8, 0]).double())


def test_one_user_s_gradient_lies_on_the_sphere(generator):
    mechanism = GradientMechanism(4, 1.0, 2.0, tau_x=1.0, tau_y=1.0)
    z = mechanism.randomise(torch.full((4,), 1e6), 1e6, torch.zeros(4), generator)
    assert float(z.norm()) == pytest.approx(mechanism.report.scales["gradient"], rel=1e-5)
    assert mechanism.report.exact_epsilon == 1.0
    assert mechanism.report.interactive


def test_clipping_comes_before_the_gradient():
    """Entries of x at 1, y at 1: without noise to speak of, the mean of the messages is -x y = -1 each."""
    mechanism = GradientMechanism(2, 40.0, 3.0, tau_x=1.0, tau_y=1.0)
    total = mechanism.total(torch.full((60_000, 2), 50.0), torch.full((60_000,), 70.0), torch.zeros(2),
                            torch.Generator().manual_seed(0))
    torch.testing.assert_close(total / 60_000, torch.tensor([-1.0, -1.0]).double(), atol=0.1, rtol=0.0)


@pytest.mark.public_door
@pytest.mark.parametrize(("build", "message"), [
    (lambda: replace(MECHANISM, epsilon=0.0), "epsilon"),
    (lambda: replace(MECHANISM, delta=1.0), "delta must lie strictly between 0 and 1"),
    (lambda: replace(MECHANISM, dim=4097), "dim must be at most 4096 where x x.T is sent, got 4097"),
    (lambda: replace(MECHANISM, radius=0.0), "radius"),
    (lambda: replace(MECHANISM, tau_x=-1.0), "tau_x"),
    (lambda: replace(MECHANISM, tau_y=math.inf), "tau_y"),
    (lambda: replace(MECHANISM, noise="classic"), "noise must be one of"),
    (lambda: replace(MECHANISM, noise="published", tau_x=None), "tau_x must be given for noise='published'"),
    (lambda: replace(MECHANISM, noise="published", epsilon=20.0, delta=1e-5), "calibration must keep delta"),
    (lambda: MECHANISM.randomise(torch.zeros(3), 1.0, torch.Generator()), "x must have shape"),
    (lambda: MECHANISM.randomise(torch.zeros(4), math.nan, torch.Generator()), "y holds NaN"),
    (lambda: MECHANISM.total(torch.zeros(0, 4), torch.zeros(0), torch.Generator()), "at least one user"),
    (lambda: MECHANISM.total(torch.zeros(3, 4), torch.zeros(2), torch.Generator()), "y must have shape"),
    (lambda: MomentServer(4).cross, "the server must have heard a user"),
    (lambda: MomentServer(4).aggregate(Message(torch.zeros(3), None)), "message.cross must have shape"),
    (lambda: MomentServer(4).aggregate(Message(torch.zeros(4), torch.zeros(9))), "message.second must have shape"),
    (lambda: MomentServer(4).aggregate([Message(torch.zeros(4), torch.zeros(10)), Message(torch.zeros(4), None)]),
     "messages must all bring x x.T or none"),
    (lambda: GradientMechanism(3, 1.0, 1.0, tau_x=0.0), "tau_x"),
    (lambda: GradientMechanism(3, 1.0, 1.0).randomise(torch.zeros(3), 1.0, torch.zeros(2), torch.Generator()), "coef"),
    (lambda: ThresholdingServer(3, 4), "k must be from 1 to 3, got 4"),
    (lambda: ThresholdingServer(3, 1).aggregate(torch.zeros(3), 0), "users must be at least 1"),
    (lambda: ThresholdingServer(3, 1).aggregate(torch.zeros(2), 1), "total must have shape"),
])
def test_bad_arguments_are_named(build: Any, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_more_features_are_fine_without_the_covariance():
    assert MomentMechanism(5000, 1.0, 1e-3, 70.0, 3.0, 3.0, covariance=False).report.exact_epsilon == pytest.approx(1.0)
