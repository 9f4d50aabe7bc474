"""Masks: the compiled kernels against the reference, counts, ties and bad input."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors import kernels
from sparsepriors.kernels import reference

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def draw(shape, seed, dtype):
    """Integers, so that ties are everywhere, with both zeros and some infinities."""
    g = torch.Generator().manual_seed(seed)
    s = torch.randint(-3, 4, shape, generator=g).to(dtype) / 2
    s[torch.rand(shape, generator=g) < 0.1] = -0.0
    s[torch.rand(shape, generator=g) < 0.02] = torch.inf
    return s


@given(st.integers(0, 10**6), st.integers(0, 400), st.floats(0, 1), st.sampled_from(DTYPES))
def test_topk_is_the_reference(seed, n, share, dtype):
    s = draw((n,), seed, dtype)
    k = round(share * n)
    mask = kernels.topk_mask(s, k)
    assert mask.dtype == torch.bool
    assert int(mask.sum()) == k
    assert torch.equal(mask, reference.topk_mask(s.float(), k))


@pytest.mark.parametrize("dtype", DTYPES[:2])
@pytest.mark.parametrize("n", [1, 65535, 65536, 65537, 200_000])
@pytest.mark.parametrize("threads", [1, 2])
def test_topk_over_many_pieces(n, dtype, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for k in (0, 1, n // 3, n):
            s = draw((n,), n, dtype)
            assert torch.equal(kernels.topk_mask(s, k), reference.topk_mask(s, k))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("instruction_set", kernels.instruction_sets() or (None,))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 2), (2, 4), (4, 4), (3, 8), (2, 5), (7, 16), (5, 32), (9, 33)])
@pytest.mark.parametrize("groups", [0, 1, 7, 4099])
def test_nm_is_the_reference(instruction_set, dtype, n, m, groups):
    s = draw((groups * m,), n * m + groups, dtype)
    mask = kernels.nm_mask(s, n, m, instruction_set=instruction_set)
    assert torch.equal(mask, reference.nm_mask(s.float(), n, m))
    assert (mask.reshape(-1, m).sum(dim=1) == n).all()


def test_ties_go_to_the_lower_index():
    assert kernels.topk_mask(torch.ones(5), 2).tolist() == [True, True, False, False, False]
    assert kernels.nm_mask(torch.zeros(8), 1, 4).tolist() == [True, False, False, False] * 2
    assert kernels.topk_mask(torch.tensor([-0.0, 0.0, 1.0]), 2).tolist() == [True, False, True]


@given(seed=st.integers(0, 10**6), n=st.integers(1, 70), rows=st.integers(1, 9), values=st.sampled_from([2, 5, 10**6]),
       share=st.floats(0, 1), dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
def test_many_short_rows_are_the_reference_with_ties_and_infinities(seed, n, rows, values, share, dtype):
    g = torch.Generator().manual_seed(seed)
    s = torch.randint(values, (rows, n), generator=g).to(dtype)
    s[torch.rand(rows, n, generator=g) < 0.1] = torch.inf
    s[torch.rand(rows, n, generator=g) < 0.1] *= -1
    k = round(share * n)
    assert torch.equal(kernels.topk_mask(s, k), reference.topk_mask(s, k))


def test_strided_scores_and_batches():
    s = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(kernels.nm_mask(s.T.contiguous().T, 2, 4), kernels.nm_mask(s, 2, 4))
    assert torch.equal(kernels.topk_mask(s, 3), torch.stack([kernels.topk_mask(row, 3) for row in s]))


@pytest.mark.public_door
@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda: kernels.topk_mask(torch.ones(4), 5), ValueError, "k must be from 0 to 4"),
    (lambda: kernels.topk_mask(torch.ones(4), 1.5), TypeError, "k must be an integer"),
    (lambda: kernels.topk_mask(torch.ones(4, dtype=torch.int64), 1), TypeError, "floating point"),
    (lambda: kernels.topk_mask(torch.tensor(1.0), 1), ValueError, "at least one axis"),
    (lambda: kernels.topk_mask(torch.tensor([1.0, torch.nan]), 1), FloatingPointError, "NaN"),
    (lambda: kernels.nm_mask(torch.ones(6), 2, 4), ValueError, "multiple of m = 4"),
    (lambda: kernels.nm_mask(torch.ones(8), 5, 4), ValueError, "n must be from 1 to 4"),
    (lambda: kernels.nm_mask(torch.tensor([1.0, torch.nan]), 1, 2), FloatingPointError, "NaN"),
    (lambda: kernels.nm_mask([1.0, 2.0], 1, 2), TypeError, "list"),
])
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()


@given(st.integers(0, 10**6), st.sampled_from([1, 50, 5000, 70_000]), st.lists(st.floats(0, 1), max_size=12),
       st.sampled_from(DTYPES))
def test_levels_are_the_masks_of_every_count(seed, n, shares, dtype):
    s = draw((n,), seed, dtype)
    if seed % 2:   # few ties
        s = torch.randn(n, generator=torch.Generator().manual_seed(seed)).to(dtype)
    counts = sorted((round(share * n) for share in shares), reverse=True)
    levels = kernels.topk_levels(s, counts)
    assert levels.dtype == torch.uint8
    for i, k in enumerate(counts):
        assert torch.equal(levels > i, kernels.topk_mask(s, k))
