import math

import pytest
import torch

from sparsepriors.regression import L2BallRandomiser, audit
from sparsepriors.regression.mechanisms import gaussian_mu

N = 40_000


def randomised(epsilon, generator, dim=5):
    randomiser = L2BallRandomiser(dim, 1.0, epsilon)
    v = torch.zeros(N, dim)
    v[:, 0] = 1.0
    return [randomiser.log_density(z, v) - randomiser.log_density(z, -v)
            for z in (randomiser.randomise(v, generator), randomiser.randomise(-v, generator))]


def test_an_audit_of_the_randomiser_finds_its_epsilon_from_below(generator):
    found = audit(*randomised(1.2, generator))
    assert 1.1 < found.epsilon <= 1.2
    assert found.estimate == pytest.approx(1.2, abs=0.06)
    assert found.trials == N // 2


def test_an_audit_of_gaussian_noise_counts_delta(generator):
    delta = 0.01
    mu = gaussian_mu(1.0, delta)
    first, second = torch.randn(2, N, generator=generator)
    assert 0.7 < audit(mu + first, second, delta=delta).epsilon <= 1.0


def test_delta_covers_what_is_revealed_rarely(generator):
    """Randomised response at epsilon = 1 that tells the truth for sure in 5 % of the cases: (1, 0.05), not (1, 0)."""
    coins, shown = torch.rand(2, N, generator=generator), torch.rand(2, N, generator=generator) < 0.05
    kept = coins < 1 / (1 + math.exp(-1))
    first, second = (torch.where(s, 2 * t, torch.where(k, t, -t))
                     for s, k, t in zip(shown, kept, (1.0, -1.0), strict=True))
    assert audit(first, second).epsilon > 4
    assert 0.9 < audit(first, second, delta=0.05).epsilon < 1.03


def test_too_little_noise_is_seen(generator):
    mu = 2 * gaussian_mu(1.0, 1e-3)
    first, second = torch.randn(2, N, generator=generator)
    assert audit(mu + first, second, delta=1e-3).epsilon > 1.3


def test_equal_inputs_show_nothing(generator):
    first, second = torch.randn(2, N, generator=generator)
    assert audit(first, second).epsilon < 0.1


def test_a_bound_is_rarely_above_the_truth():
    """95 % confidence: of 60 audits of a fair coin's randomised response more than 9 would be too many."""
    high = 0
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        coins = torch.rand(2, 2000, generator=generator)
        first, second = (coins[0] < 0.75).float(), (coins[1] < 0.25).float()
        high += audit(first, second).epsilon > math.log(3)
    assert high <= 9


def test_inputs_that_are_told_apart_for_sure_have_an_infinite_estimate():
    found = audit(torch.ones(1000), torch.zeros(1000))
    assert found.estimate == math.inf
    assert 4 < found.epsilon < 6   # what 500 trials can show


def test_scores_of_one_value_show_nothing():
    assert audit(torch.ones(200), torch.ones(200)).epsilon == 0.0


def test_a_delta_above_every_frequency_leaves_nothing():
    found = audit(torch.zeros(200), torch.zeros(200), delta=0.99)
    assert found.epsilon == 0.0


@pytest.mark.public_door
@pytest.mark.parametrize(("first", "second", "options", "message"), [
    (torch.zeros(99), torch.zeros(99), {}, "first must hold at least 100 scores"),
    (torch.zeros(100, 1), torch.zeros(100), {}, "first must hold"),
    (torch.zeros(100), torch.zeros(101), {}, "must have equal lengths, got 100 and 101"),
    (torch.full((100,), math.nan), torch.zeros(100), {}, "first holds NaN"),
    (torch.zeros(100), torch.zeros(100), {"delta": 1.0}, "delta must be below 1"),
    (torch.zeros(100), torch.zeros(100), {"confidence": -0.1}, "confidence"),
])
def test_bad_arguments_are_named(first, second, options, message):
    with pytest.raises(ValueError, match=message):
        audit(first, second, **options)
