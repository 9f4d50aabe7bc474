"""The suite's own machinery: shapes are checked at run time, and stand aside where a test asks for it."""

import jaxtyping
import pytest
import torch

from sparsepriors.priors.base import Prior
from sparsepriors.runs import Claim
from sparsepriors.solvers.solution import Solution


class _Zero(Prior):
    def _value(self, x):
        return x.new_zeros(())

    def _prox(self, x, step):
        return x


def test_a_wrong_type_is_stopped_by_the_checker():
    with pytest.raises(jaxtyping.TypeCheckError):
        _Zero().prox("not a tensor")  # pyright: ignore[reportArgumentType]


@pytest.mark.public_door
def test_a_marked_test_meets_the_librarys_own_error():
    with pytest.raises(TypeError, match=r"x must be a torch\.Tensor, got str"):
        _Zero().prox("not a tensor")  # pyright: ignore[reportArgumentType]


def test_the_checker_is_on_again_after_a_marked_test():
    with pytest.raises(jaxtyping.TypeCheckError):
        _Zero().prox(torch.ones(3), step="one")  # pyright: ignore[reportArgumentType]


def test_an_int_may_stand_for_a_float():
    assert torch.equal(_Zero().prox(torch.ones(3), step=1), torch.ones(3))
    assert Claim("a", "text", "not reported", "l1", margin=1).margin == 1
    assert Solution(torch.ones(1), {}, 1, True, 0).certificate == 0


def test_draws_depend_on_the_test_alone(generator):
    assert torch.equal(torch.rand(3), torch.rand(3, generator=generator))
