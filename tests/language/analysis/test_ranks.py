import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from sparsepriors.language.analysis import rank_report


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_a_product_of_thin_matrices_has_their_rank_and_its_shuffled_entries_have_not(rank, seed):
    generator = torch.Generator().manual_seed(seed)
    delta = (torch.randn(20, rank, generator=generator, dtype=torch.float64)
             @ torch.randn(rank, 16, generator=generator, dtype=torch.float64))
    found = rank_report(delta, generator=generator)
    assert (found.rank, found.full) == (rank, 16)
    assert found.null_rank == 16
    assert 1 <= found.stable_rank <= rank + 1e-9
    assert found.null_stable_rank is not None
    assert found.null_top_energy is not None
    assert found.stable_rank < found.null_stable_rank
    assert 0 < found.null_top_energy < found.top_energy <= 1 + 1e-12


def test_numbers_by_hand():
    found = rank_report(torch.diag(torch.tensor([2.0, 1.0, 1.0, 0.0])), null=False)
    assert (found.rank, found.full, found.null_rank) == (3, 4, None)
    assert found.stable_rank == pytest.approx(6 / 4)
    assert found.top_energy == pytest.approx(4 / 6)
    assert rank_report(torch.diag(torch.tensor([2.0, 1.0])), tol=1.5, null=False).rank == 1


def test_a_sparse_random_matrix_has_full_rank_by_the_usual_tolerance(generator):
    delta = torch.randn(64, 64, generator=generator) * (torch.rand(64, 64, generator=generator) < 0.2)
    assert rank_report(delta, null=False).rank == int(torch.linalg.matrix_rank(delta)) == 64


def test_more_axes_are_taken_as_one(generator):
    delta = torch.randn(6, 2, 3, generator=generator)
    assert rank_report(delta, null=False) == rank_report(delta.flatten(1), null=False)


@pytest.mark.public_door
def test_bad_input():
    for wrong in (torch.zeros(3, 3), torch.ones(3)):
        with pytest.raises(ValueError, match="delta must be a matrix that is not zero"):
            rank_report(wrong)
    with pytest.raises(ValueError, match="tol"):
        rank_report(torch.ones(2, 2), tol=-1.0)
