"""Matrices taken apart into a part of low rank and a sparse one."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsepriors.priors import L1, LowRankPlusSparse, largest_entries
from sparsepriors.solvers import godec, grebsmo

F64 = torch.float64


def planted(seed, n=80, rank=5, share=0.01):
    """Rank 5 with entries of deviation 1, and spikes of size 1 at a hundredth of the places."""
    g = torch.Generator().manual_seed(seed)
    low_rank = torch.randn(n, rank, dtype=F64, generator=g) @ torch.randn(rank, n, dtype=F64, generator=g) / rank**0.5
    at = torch.randperm(n * n, generator=g)[:round(share * n * n)]
    sparse = torch.zeros(n * n, dtype=F64)
    sparse[at] = torch.randn(len(at), dtype=F64, generator=g).sign()
    return low_rank, sparse.reshape(n, n)


def recall(solution, W, sparse):
    rows, columns = largest_entries(solution.extras["S"], W - solution.extras["U"] @ solution.extras["V"],
                                    int((sparse != 0).sum()))
    return float((sparse[rows, columns] != 0).double().mean())


@settings(max_examples=10)
@given(seed=st.integers(0, 20))
def test_planted_parts_are_found_where_the_rank_and_the_size_of_the_spikes_are_known(seed):
    low_rank, sparse = planted(seed)
    found = grebsmo(low_rank + sparse, threshold=0.5, max_rank=5, tol=1e-8)
    assert found.converged
    assert recall(found, low_rank + sparse, sparse) == 1
    torch.testing.assert_close(found.extras["U"] @ found.extras["V"], low_rank, atol=1e-5, rtol=0)


def test_a_rank_that_grows_on_swallows_the_spikes():
    low_rank, sparse = planted(0)
    W = low_rank + sparse
    assert recall(grebsmo(W), W, sparse) < 0.1 < 0.9 < recall(grebsmo(W, threshold=0.5, max_rank=5), W, sparse)


def test_soft_thresholds_shrink_the_sparse_part():
    low_rank, sparse = planted(1)
    found = grebsmo(low_rank + sparse, threshold=0.3, max_rank=5, soft=True)
    assert recall(found, low_rank + sparse, sparse) == 1
    assert float(found.extras["S"].abs().max()) < 0.8


def test_parts_are_what_they_are_said_to_be():
    W = torch.randn(2, 12, 9, dtype=F64, generator=torch.Generator().manual_seed(0))
    seen = []
    found = grebsmo(W, rank_step=2, steps=3, threshold=0.5, callback=lambda s: seen.append(dict(s.metrics)))
    U, V, S = (found.extras[name] for name in "UVS")
    assert found.trace["rank"] == [1, 3, 5]
    assert [s["rank"] for s in seen] == [1, 3, 5]
    assert U.shape == (2, 12, 5)
    torch.testing.assert_close(U.mT @ U, torch.eye(5, dtype=F64).expand(2, 5, 5))
    torch.testing.assert_close(found.x, U @ V + S)
    assert ((S == 0) | (S.abs() >= 0.5)).all()
    assert ((W - found.x).abs() <= 0.5).all()
    gap = (W - found.x).norm(dim=(-2, -1)) / W.norm(dim=(-2, -1))
    assert found.certificate == pytest.approx(float(gap.max()))


def test_each_matrix_of_a_batch_is_solved_and_stops_by_itself():
    pairs = [planted(seed, n=40, rank=5) for seed in (3, 4)]
    W = torch.stack([a + b for a, b in pairs])
    W[0] = pairs[0][0]   # no spikes: done sooner
    options = {"threshold": 0.5, "max_rank": 5, "tol": 1e-7}
    both = grebsmo(W, generator=torch.Generator().manual_seed(5), **options)
    assert both.extras["iterations"][0] < both.extras["iterations"][1]
    assert both.converged
    for i in range(2):
        torch.testing.assert_close(both.x[i], W[i], atol=1e-4, rtol=0)
    again = grebsmo(W, generator=torch.Generator().manual_seed(5), **options)
    assert torch.equal(again.x, both.x)


def test_the_callback_stops():
    W = torch.randn(9, 9, generator=torch.Generator().manual_seed(0))
    assert grebsmo(W, callback=lambda s: s.iteration == 2).iterations == 2
    assert godec(W, LowRankPlusSparse(1, 3), callback=lambda s: s.iteration == 2).iterations == 2


@settings(max_examples=10)
@given(seed=st.integers(0, 100))
def test_godec_never_fits_worse_and_finds_what_is_planted(seed):
    low_rank, sparse = planted(seed, n=40, rank=2)
    prior = LowRankPlusSparse(2, int((sparse != 0).sum()))
    found = godec(low_rank + sparse, prior, tol=1e-9, max_iter=200)
    misfits = found.trace["misfit"]
    assert all(b <= a + 1e-12 for a, b in pairwise(misfits))
    torch.testing.assert_close(found.x, found.extras["L"] + found.extras["S"])
    if found.converged:
        torch.testing.assert_close(found.extras["S"], sparse, atol=1e-5, rtol=0)


def test_a_matrix_of_zeros_is_done_at_once():
    for found in (grebsmo(torch.zeros(4, 5)), godec(torch.zeros(4, 5), LowRankPlusSparse(1, 1))):
        assert found.converged
        assert found.iterations == 1
        assert not found.x.any()


@pytest.mark.public_door
def test_bad_arguments_are_named():
    W = torch.zeros(4, 5)
    with pytest.raises(ValueError, match="max_rank must be from 1 to 4, got 5"):
        grebsmo(W, max_rank=5)
    with pytest.raises(ValueError, match="inner must be at least 1"):
        grebsmo(W, inner=0)
    with pytest.raises(ValueError, match="threshold must be finite and nonnegative"):
        grebsmo(W, threshold=-1.0)
    with pytest.raises(ValueError, match="tol must be at least"):
        grebsmo(W, tol=1e-12)
    with pytest.raises(TypeError, match="W must be real"):
        grebsmo(W.to(torch.complex64))
    with pytest.raises(ValueError, match="rows and columns, got shape"):
        godec(torch.zeros(3, 0), LowRankPlusSparse())
    with pytest.raises(ValueError, match="NaN"):
        grebsmo(W / 0)
    with pytest.raises(TypeError, match="prior must be LowRankPlusSparse, got L1"):
        godec(W, L1(1.0))
