"""Selection where the guessed threshold is wrong, and products with the codes that it makes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors import kernels
from sparsepriors.kernels import codes as compiled_codes
from sparsepriors.kernels import reference


def same(scores: torch.Tensor, room: int, per_row: bool) -> None:
    for found, wanted in zip(kernels.largest_positive(scores, room, per_row),
                             reference.largest_positive(scores, room, per_row), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("factor", [0.3, 3.0])
def test_rows_that_grow_or_fall_mislead_the_guess_of_the_next(factor: float) -> None:
    scores = torch.rand(40, 50, generator=torch.Generator().manual_seed(0))
    same(scores * factor ** torch.arange(40.0)[:, None], 7, True)


@pytest.mark.parametrize("room", [10_000, 40_000])
def test_a_sample_that_misses_what_matters(room: int) -> None:
    """Large scores on exactly the places that a sample of 2^14 looks at, and then on all others."""
    count, sample = 1 << 18, 1 << 14
    stride = count // sample
    at = torch.arange(sample)
    places = at * stride + (at * 97) % stride
    scores = torch.rand(count, generator=torch.Generator().manual_seed(0)) + 0.1
    scores[places] += 10
    same(scores.reshape(256, 1024), room, False)
    same((11.5 - scores).reshape(256, 1024), room, False)


@given(st.integers(0, 2**31), st.integers(1, 20), st.integers(1, 12), st.integers(1, 9), st.booleans())
def test_products_with_entries_are_those_with_dense_codes(seed: int, rows: int, n: int, width: int,
                                                          per_row: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(rows, n, generator=g, dtype=torch.float64).round(decimals=1)   # with ties
    atoms, left = (torch.randn(k, width, generator=g, dtype=torch.float64) for k in (n, rows))
    starts, indices, values = kernels.largest_positive(scores, 3, per_row)
    codes = torch.zeros_like(scores)
    places = torch.repeat_interleave(torch.arange(rows), starts.diff()), indices.long()
    codes[places] = values
    assert int((codes > 0).sum()) == len(values)
    torch.testing.assert_close(kernels.sum_rows(atoms, starts, indices, values), codes @ atoms)
    torch.testing.assert_close(kernels.scatter_rows(left, starts, indices, values, n), codes.mT @ left)
    torch.testing.assert_close(kernels.dot_rows(left, atoms, starts, indices), (left @ atoms.mT)[places])


@pytest.mark.public_door
@pytest.mark.parametrize("compiled", [True, False])
def test_entries_that_do_not_fit_are_refused(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(compiled_codes, "native_for", lambda *tensors: None)
    rows, left = torch.ones(4, 3), torch.ones(2, 3)
    starts, indices, values = torch.tensor([0, 1, 3]), torch.tensor([0, 1, 3], dtype=torch.int32), torch.ones(3)
    assert kernels.sum_rows(rows, starts, indices, values).tolist() == [[1.0] * 3, [2.0] * 3]
    for call, words in (
            (lambda: kernels.sum_rows(rows, starts[None], indices, values), "starts must be a vector"),
            (lambda: kernels.sum_rows(rows, starts[:0], indices, values), "starts must have at least one entry"),
            (lambda: kernels.sum_rows(rows, starts, indices, values[:2]), "values must have an entry for each of 3"),
            (lambda: kernels.sum_rows(rows[:3], starts, indices, values), "indices must name rows"),
            (lambda: kernels.sum_rows(rows, starts + 1, indices, values), "starts must"),
            (lambda: kernels.sum_rows(rows, torch.tensor([0, 4, 3]), indices, values), "starts must"),
            (lambda: kernels.sum_rows(rows, torch.tensor([0, 1, 2]), indices, values), "starts must"),
            (lambda: kernels.scatter_rows(rows, starts, indices, values, 4), "an entry more than the 4 rows"),
            (lambda: kernels.scatter_rows(left, starts, indices, values, 3), "indices must name rows"),
            (lambda: kernels.scatter_rows(left, starts, indices, values, -1), "count must be at least 0"),
            (lambda: kernels.dot_rows(rows, rows, starts, indices), r"left must be \(2, 3\), got \(4, 3\)"),
            (lambda: kernels.dot_rows(left, rows[:3], starts, indices), "indices must name rows")):
        with pytest.raises(ValueError, match=words):
            call()
    for room in (0, 1):
        with pytest.raises(FloatingPointError, match="NaN"):
            kernels.largest_positive(torch.full((2, 2), torch.nan), room)
