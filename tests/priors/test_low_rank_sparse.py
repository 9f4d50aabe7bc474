from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsepriors.priors import LowRankPlusSparse, largest_entries

F64 = torch.float64


def planted(seed, n=30, rank=2, count=6):
    g = torch.Generator().manual_seed(seed)
    low_rank = torch.randn(n, rank, dtype=F64, generator=g) @ torch.randn(rank, n, dtype=F64, generator=g)
    at = torch.randperm(n * n, generator=g)[:count]
    sparse = torch.zeros(n * n, dtype=F64)
    sparse[at] = 5 * torch.randn(count, dtype=F64, generator=g).sign()
    return low_rank, sparse.reshape(n, n)


@pytest.mark.parametrize("seed", range(5))
def test_planted_parts_are_found(seed):
    low_rank, sparse = planted(seed)
    prior = LowRankPlusSparse(2, 6, iterations=100)
    found = prior.split(low_rank + sparse)
    torch.testing.assert_close(found[0], low_rank, atol=1e-6, rtol=0)
    torch.testing.assert_close(found[1], sparse, atol=1e-6, rtol=0)
    rows, columns = LowRankPlusSparse(2, 6).support(low_rank + sparse)
    assert (sparse[rows, columns] != 0).all()


@settings(max_examples=15)
@given(seed=st.integers(0, 200), rank=st.integers(0, 4), count=st.integers(0, 12))
def test_parts_keep_their_bounds_and_more_alternations_never_fit_worse(seed, rank, count):
    x = torch.randn(3, 5, 4, dtype=F64, generator=torch.Generator().manual_seed(seed))
    misfits = []
    for iterations in (1, 2, 5, 20):
        low_rank, sparse = LowRankPlusSparse(rank, count, iterations).split(x)
        assert (torch.linalg.matrix_rank(low_rank, atol=1e-9) <= rank).all()
        assert ((sparse != 0).sum(dim=(-2, -1)) <= count).all()
        misfits.append((x - low_rank - sparse).norm(dim=(-2, -1)))
    for before, after in pairwise(misfits):
        assert (after <= before + 1e-9).all()


def test_entries_come_by_the_first_matrix_then_by_the_second_then_in_order():
    first = torch.tensor([[0.0, 0.0, -3.0], [0.0, 2.0, 0.0]])
    second = torch.tensor([[1.0, -5.0, 0.0], [1.0, 0.0, 4.0]])
    rows, columns = largest_entries(first, second, 5)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 2), (1, 1), (0, 1), (1, 2), (0, 0)]
    assert largest_entries(first, second, 0).shape == (2, 0)


@pytest.mark.public_door
def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="rank must be at least 0"):
        LowRankPlusSparse(-1, 2)
    with pytest.raises(ValueError, match="dims must be 2, got 3"):
        LowRankPlusSparse(1, 2, dims=3)
    with pytest.raises(ValueError, match="count must be from 0 to 6, got 7"):
        largest_entries(torch.zeros(2, 3), torch.zeros(2, 3), 7)
    with pytest.raises(ValueError, match="matrices of one shape"):
        largest_entries(torch.zeros(2, 3), torch.zeros(3, 2), 1)
    with pytest.raises(ValueError, match="count must be from 0 to 4"):
        LowRankPlusSparse(1, 5).support(torch.zeros(2, 2))
