import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsepriors.imaging.sampling import cartesian_lines, polynomial_density, variable_density

SHAPE = (64, 48)
shapes = st.lists(st.integers(1, 16), min_size=1, max_size=3).map(tuple)
accelerations = st.floats(1, 10)
powers = st.floats(0, 6)
seeds = st.integers(0, 2**31)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def distances(shape):
    """Of every point from the zero frequency, an axis reaching from -1 to 1."""
    axes = [(torch.arange(n, dtype=torch.float64) - n // 2) / (n / 2) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt()


@given(shapes, powers)
def test_the_density_falls_with_the_distance_from_one_to_zero(shape, power):
    density = polynomial_density(shape, power)
    order = distances(shape).reshape(-1).argsort()
    sorted_ = density.reshape(-1)[order]
    assert (sorted_.diff() <= 1e-9).all()
    assert density[tuple(n // 2 for n in shape)] == 1
    assert (density >= 0).all()
    if math.prod(shape) > 1 and power > 0:
        assert sorted_[-1] == 0


@given(shapes, powers)
def test_the_density_is_the_same_on_both_sides_of_the_zero_frequency(shape, power):
    shape = tuple(n | 1 for n in shape)
    density = polynomial_density(shape, power)
    for axis in range(len(shape)):
        torch.testing.assert_close(density.flip(axis), density)


@given(shapes, accelerations, powers, st.floats(0, 1), seeds, st.integers(1, 3))
def test_a_mask_has_the_exact_count_its_whole_middle_and_its_seed(shape, acceleration, power, share, seed, tries):
    n, centre = math.prod(shape), share / acceleration

    def draw():
        return variable_density(shape, acceleration, generator=seeded(seed), power=power, centre=centre, tries=tries)

    mask = draw()
    assert mask.shape == shape
    wanted = int(mask.sum())
    assert wanted == max(round(n / acceleration), 1)
    assert abs(wanted / n - 1 / acceleration) <= (0.5 if n > acceleration / 2 else 1) / n + 1e-12
    radius = distances(shape)
    within = min(round(centre * n), wanted)
    if within:
        farthest = radius.reshape(-1).kthvalue(within).values
        assert mask[radius < farthest - 1e-9].all()
    assert torch.equal(draw(), mask)


@given(st.integers(2, 24), st.integers(1, 24), st.floats(1, 6), seeds)
def test_lines_are_read_out_in_full(height, width, acceleration, seed):
    lines = cartesian_lines((height, width), acceleration, generator=seeded(seed), centre=0.5 / acceleration)
    assert lines.shape == (height, width)
    assert (lines == lines[:, :1]).all()
    assert int(lines[:, 0].sum()) == max(round(height / acceleration), 1)
    one = variable_density((height,), acceleration, generator=seeded(seed), centre=0.5 / acceleration)
    assert torch.equal(lines[:, 0], one)


@settings(max_examples=20)
@given(seeds)
def test_more_tries_never_alias_more_coherently(seed):
    def lobe(tries):
        mask = variable_density((24, 20), 4, generator=seeded(seed), tries=tries)
        spread = torch.fft.fftn(mask.double()).abs().reshape(-1)
        return float(spread[1:].max() / spread[0])

    lobes = [lobe(tries) for tries in (1, 2, 5)]
    assert lobes == sorted(lobes, reverse=True)


def test_points_are_drawn_as_often_as_the_density_says_and_as_their_mirror_images(generator):
    shape, draws = (15, 13), 400
    often = torch.stack([variable_density(shape, 6, generator=generator, power=2, centre=0.0)
                         for _ in range(draws)]).double().mean(0)
    rank = torch.corrcoef(torch.stack([often.reshape(-1), polynomial_density(shape, 2).reshape(-1)]))[0, 1]
    assert rank > 0.95
    p = (often + often.flip(0, 1)) / 2
    deviation = (p * (1 - p) * 2 / draws).sqrt()  # of the difference of two such frequencies
    assert ((often - often.flip(0, 1)).abs() <= 5 * deviation + 2 / draws).all()
    # Without a preference every point is as likely as every other.
    even = torch.stack([variable_density(shape, 6, generator=generator, power=0, centre=0.0)
                        for _ in range(draws)]).double().mean(0)
    share = round(195 / 6) / 195
    assert ((even - share).abs() <= 5 * math.sqrt(share * (1 - share) / draws)).all()


def test_different_seeds_give_different_masks():
    masks = {tuple(variable_density(SHAPE, 4, generator=seeded(s)).reshape(-1).tolist()) for s in range(8)}
    assert len(masks) == 8


@pytest.mark.public_door
@pytest.mark.parametrize(("shape", "arguments", "message"), [
    ((), {}, "at least one axis"),
    ((4, 0), {}, "no zero"),
    ((8, 8), {"acceleration": 0.5}, "acceleration must be at least 1"),
    ((8, 8), {"acceleration": 4, "centre": 0.3}, "centre at most 1 / acceleration"),
    ((8, 8), {"power": -1.0}, "power must be finite and nonnegative"),
    ((8, 8), {"tries": 0}, "tries must be at least 1"),
])
def test_bad_input_is_named(shape, arguments, message):
    with pytest.raises(ValueError, match=message):
        variable_density(shape, **{"acceleration": 2.0, "generator": seeded(0), **arguments})


@pytest.mark.public_door
def test_lines_want_two_axes():
    with pytest.raises(ValueError, match="two entries"):
        cartesian_lines((8,), 2.0, generator=seeded(0))
