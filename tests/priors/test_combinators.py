"""What priors made of priors take over from their parts."""

import pytest
import torch

from sparsepriors.priors import L1, GroupL2, PlusQuadratic, SquaredL2


@pytest.mark.parametrize("total", [L1(0.3) + SquaredL2(0.5, dims=1), SquaredL2(0.5, dims=1) + L1(0.3),
                                   L1(0.3, dims=1) + SquaredL2(0.5), (2 * L1(0.3)) + SquaredL2(0.5, dims=1)])
def test_a_sum_is_of_the_unknowns_that_one_of_its_parts_names(total, generator):
    x = torch.randn(3, 5, generator=generator)
    weight = 0.6 if total.prior != L1(0.3, dims=1) else 0.3
    torch.testing.assert_close(total.value(x), weight * x.abs().sum(-1) + 0.25 * x.square().sum(-1))


def test_a_sum_of_groups_keeps_its_batch(generator):
    total = GroupL2(0.4, axis=-1) + SquaredL2(0.5, dims=2)
    assert isinstance(total, PlusQuadratic)
    assert total.value(torch.randn(3, 4, 5, generator=generator)).shape == (3,)
