"""Projections of points far from their set."""

import pytest
import torch

from sparsepriors.priors import L1Ball, Simplex


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("far", [1e3, 1e9, 1e15, 1e18])
def test_a_projection_onto_a_small_simplex_from_far_away_lies_in_it(far, dtype):
    x = torch.tensor([far, far, -far, 0.0], dtype=dtype)
    want = torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=dtype)
    for prior, point, projection in ((Simplex(1.0), x, want), (L1Ball(1.0), x * torch.tensor([1, -1, 0, 0]),
                                                              want * torch.tensor([1, -1, 1, 1]))):
        u = prior.prox(point)
        torch.testing.assert_close(u, projection)
        assert prior.value(u) == 0


def test_a_gap_between_large_entries_is_kept(generator):
    x = torch.randn(6, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(Simplex(2.0).prox(x + 2.0**40), Simplex(2.0).prox((x + 2.0**40) - 2.0**40))
