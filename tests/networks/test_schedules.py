import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.networks.schedules import constant, cosine, repeated, staircase, trapezoid

milestones = st.lists(st.integers(0, 100), max_size=5, unique=True).map(sorted)


@given(st.integers(1, 200), st.floats(0, 1), st.floats(0, 1))
def test_a_cosine_rises_to_one_and_falls_to_its_final_factor(steps, share, final):
    warmup = int(share * (steps - 1))
    factor = cosine(steps, warmup=warmup, final=final)
    factors = [factor(step) for step in range(steps + 3)]
    rising, falling = factors[:warmup], factors[warmup:]
    assert all(a < b for a, b in zip(rising, rising[1:], strict=False))
    assert all(a >= b - 1e-12 for a, b in zip(falling, falling[1:], strict=False))
    assert all(0 < f <= 1 for f in rising)
    assert falling[0] == pytest.approx(1)
    assert factors[steps:] == pytest.approx([final] * 3)


@given(st.integers(1, 100), st.floats(0, 1))
def test_a_cosine_is_half_way_in_the_middle(half, final):
    assert cosine(2 * half, final=final)(half) == pytest.approx((1 + final) / 2)


@given(milestones, st.floats(0.01, 1))
def test_a_staircase_falls_once_at_each_milestone(milestones, factor):
    schedule = staircase(milestones, factor=factor)
    levels = [schedule(step) for step in range(102)]
    for step, (before, after) in enumerate(zip([1.0, *levels], levels, strict=False)):
        assert after == pytest.approx(before * (factor if step in milestones else 1))
    assert math.isclose(levels[-1], factor ** len(milestones))


@given(st.integers(1, 20), st.integers(0, 5), st.integers(0, 19))
def test_a_repeated_schedule_begins_anew(length, times, offset):
    base = cosine(20)
    assert repeated(base, length)(times * length + offset % length) == base(offset % length)
    assert constant()(times) == 1.0


@pytest.mark.public_door
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="warmup must be from 0 to 4"):
        cosine(5, warmup=5)
    with pytest.raises(ValueError, match=r"milestones\[1\] must be at least 4"):
        staircase([3, 3])
    with pytest.raises(ValueError, match="length must be at least 1"):
        repeated(constant(), 0)


@given(st.integers(1, 50), st.data())
def test_a_trapezoid_rises_stays_and_falls(steps: int, data: st.DataObject) -> None:
    warmup = data.draw(st.integers(0, steps - 1))
    decay = data.draw(st.integers(0, steps - warmup))
    factors = [trapezoid(steps, warmup=warmup, decay=decay, final=0.1)(i) for i in range(steps + 1)]
    rise = [factors[i] for i in range(warmup)]
    assert rise == pytest.approx([(i + 1) / warmup for i in range(warmup)])
    assert factors[warmup:steps - decay] == [1.0] * (steps - decay - warmup)
    fall = factors[steps - decay:]
    assert all(a > b for a, b in zip(fall, fall[1:], strict=False))
    assert factors[steps] == pytest.approx(0.1 if decay else 1.0)
