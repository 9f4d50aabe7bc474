"""The checks at the public doors, where no other test meets them."""

import pytest
import torch

from sparsepriors import _checks


@pytest.mark.public_door
def test_a_complex_bound_is_refused():
    with pytest.raises(TypeError, match=r"step must be real and positive, got torch\.complex64"):
        _checks.positive("step", torch.ones(2, dtype=torch.complex64))


def test_empty_and_abstract_tensors_pass():
    _checks.nonnegative("x", torch.zeros(0))
    assert _checks.inexact("x", torch.zeros(0)).numel() == 0
    assert _checks.inexact("x", torch.full((2,), 1.0, device="meta")).is_meta


@pytest.mark.parametrize(("value", "bounds"), [(-1, "at least 0"), (9, "from 0 to 3")])
def test_a_count_says_its_range(value, bounds):
    with pytest.raises(ValueError, match=f"n must be {bounds}, got {value}"):
        _checks.count("n", value, high=None if value < 0 else 3)


def test_a_name_that_is_like_no_other_gets_no_hint():
    with pytest.raises(ValueError, match=r"mode must be one of 'a', 'b', got 'zzz'$"):
        _checks.one_of("mode", "zzz", ("a", "b"))
