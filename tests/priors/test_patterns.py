"""Patterns: exact counts, ties, axes, and what is refused."""

import itertools
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.priors import (
    NM,
    AtLeastNM,
    Balanced,
    Block,
    Channel,
    OutputBlocks,
    Pattern,
    Prior,
    Unstructured,
    pack_mask,
    unpack_mask,
)


def scores(*shape, seed=0):
    return torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(seed)).double()


@given(st.integers(1, 60), st.floats(0, 1), st.integers(0, 999))
def test_unstructured_keeps_the_exact_count(n, density, seed):
    s = scores(n, seed=seed)
    mask = Unstructured(density).mask(s)
    assert int(mask.sum()) == max(1, round(n * density))
    assert s[mask].min() >= (s[~mask].max() if (~mask).any() else -torch.inf)
    assert int(Unstructured(density, allow_empty=True).mask(s).sum()) == round(n * density)


def test_halves_round_to_even():
    assert [int(Unstructured(0.5).mask(torch.ones(n)).sum()) for n in (1, 3, 5, 7)] == [1, 2, 2, 4]


@pytest.mark.parametrize("shape", [(6, 8), (4, 8, 3, 3), (8,)])
def test_nm_groups_run_along_the_inputs(shape):
    s = scores(*shape)
    mask = NM(2, 4).mask(s)
    axis = min(1, len(shape) - 1)
    groups = mask.movedim(axis, -1).reshape(-1, 4)
    assert (groups.sum(dim=1) == 2).all()
    assert NM(2, 4).density == 0.5


def row_by_row(s, n, m):
    """The rule for convolutions, entry by entry: input channels run fastest, then the kernel's last axis."""
    mask = torch.ones(s.shape, dtype=torch.bool)
    for out in range(s.shape[0]):
        order = [(out, i, *k) for k in itertools.product(*map(range, s.shape[2:])) for i in range(s.shape[1])]
        for first in range(0, len(order) - m + 1, m):
            group = sorted(order[first:first + m], key=lambda at: -s[at])  # sorted is stable: ties by order
            for at in group[n:]:
                mask[at] = False
    return mask


@given(st.integers(1, 3), st.integers(1, 6), st.lists(st.integers(1, 4), min_size=0, max_size=3),
       st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 5), (4, 8)]), st.integers(0, 999))
def test_nm_of_a_convolution_takes_channels_first_then_kernel_positions(out, channels, kernel, nm, seed):
    s = scores(out, channels, *kernel, seed=seed)
    pattern = NM(*nm, pad="tail", dims=s.ndim)
    mask = pattern.mask(s)
    assert torch.equal(mask, row_by_row(s, *nm))
    assert torch.equal(pattern.mask(s.expand(2, *s.shape))[1], mask)
    if s[0].numel() % nm[1] == 0:
        assert torch.equal(NM(*nm).mask(s), mask)
    if channels % nm[1] == 0:
        assert torch.equal(NM(*nm, dim=1).mask(s), mask)


def test_nm_cuts_a_convolution_whose_channels_m_does_not_divide():
    s = scores(6, 2, 2, 3)
    mask = NM(2, 4).mask(s)
    assert (mask.permute(0, 2, 3, 1).reshape(-1, 4).sum(dim=1) == 2).all()
    assert NM(2, 4).value(torch.where(mask, s, 0)) == 0


@given(st.integers(1, 3), st.integers(1, 6), st.lists(st.integers(1, 3), min_size=0, max_size=2),
       st.sampled_from([(1, 2), (2, 4), (3, 5)]), st.integers(0, 999))
def test_flat_groups_run_on_from_one_row_to_the_next(out, channels, kernel, nm, seed):
    s = scores(out, channels, *kernel, seed=seed)
    pattern = NM(*nm, pad="tail", layout="flat", dims=s.ndim)
    mask = pattern.mask(s)
    line = s.movedim(1, -1).reshape(1, -1)
    expected = row_by_row(line, *nm).reshape(s.movedim(1, -1).shape).movedim(-1, 1)
    assert torch.equal(mask, expected)
    assert torch.equal(pattern.mask(s.expand(2, *s.shape))[1], mask)
    if s[0].numel() % nm[1] == 0:
        assert torch.equal(NM(*nm).mask(s), mask)
    if s.numel() % nm[1] == 0:
        assert int(NM(*nm, layout="flat").mask(s).sum()) * nm[1] == s.numel() * nm[0]


def test_nm_tail_stays_dense():
    mask = NM(1, 4, pad="tail").mask(scores(3, 10))
    assert mask[:, 8:].all()
    assert (mask[:, :8].reshape(3, 2, 4).sum(dim=-1) == 1).all()


@pytest.mark.parametrize("pattern", [NM(2, 4, dim=1), Block(0.5, (1, 2)), Channel(0.5, dim=1), Balanced(0.5),
                                     Unstructured(0.4)], ids=repr)
def test_projection_is_the_nearest_point(pattern):
    """Against every support of the same size that the pattern could have."""
    x = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    near = float((pattern.project(x) - x).norm())
    count = int(pattern.mask(x).sum())
    rivals = 0
    for support in itertools.combinations(range(8), count):
        rival = torch.zeros(8, dtype=torch.bool)
        rival[list(support)] = True
        y = torch.where(rival.reshape(2, 4), x, 0)
        if float(pattern.value(y)) == 0:
            rivals += 1
            assert near <= float((y - x).norm()) + 1e-12
    assert rivals >= 2


@given(st.integers(1, 4), st.integers(1, 6), st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 5), (4, 8)]), st.floats(0, 1),
       st.sampled_from(["rows", "flat"]), st.integers(0, 999))
def test_at_least_nm_is_the_best_support_with_n_in_every_group_and_the_count_of_the_density(out, groups, nm, share,
                                                                                          layout, seed):
    n, m = nm
    s = scores(out, groups * m, seed=seed)
    least = NM(n, m, layout=layout)
    density = n / m + (1 - n / m) * share
    pattern = least.towards(density)
    assert pattern == AtLeastNM(n, m, density, layout=layout)
    mask = pattern.mask(s)
    assert int(mask.sum()) == max(out * groups * n, round(s.numel() * density))
    assert (mask.reshape(-1, m).sum(1) >= n).all()
    assert (least.mask(s) <= mask).all()
    # Nothing left out is worth more than what is kept beyond the n best of its group.
    beyond = mask & ~least.mask(s)
    if beyond.any() and not mask.all():
        assert s[beyond].min() >= s[~mask].max()
    assert torch.equal(least.towards(n / m).mask(s), least.mask(s))
    assert least.towards(1.0).mask(s).all()
    assert torch.equal(AtLeastNM(n, m, density, layout=layout, dims=2).mask(s.expand(3, *s.shape))[1], mask)


def test_a_tail_that_stays_dense_may_ask_for_more_than_the_density():
    assert AtLeastNM(1, 4, 0.3, pad="tail").mask(scores(3, 10)).sum(1).tolist() == [4, 4, 4]


def test_block_channel_balanced_counts():
    s = scores(8, 12, seed=5)
    blocks = Block(0.25, (4, 3)).mask(s).unflatten(0, (2, 4)).unflatten(2, (4, 3)).sum(dim=(1, 3))
    assert sorted(blocks.flatten().tolist()) == [0] * 6 + [12] * 2
    assert sorted(Channel(0.5).mask(s).sum(dim=1).tolist()) == [0] * 4 + [12] * 4
    assert Balanced(0.25).mask(s).sum(dim=1).tolist() == [3] * 8
    assert Balanced(0.25, dim=0).mask(s).sum(dim=0).tolist() == [2] * 12


def test_output_blocks_share_their_support_and_short_axes_stay_free():
    s = scores(8, 5, 1, 1, seed=5)
    mask = OutputBlocks(0.3, 4).mask(s)
    assert torch.equal(mask[::4].repeat_interleave(4, dim=0), mask)
    assert int(mask.sum()) == 4 * round(0.3 * 10)
    assert torch.equal(OutputBlocks(0.3, 4, least=9).mask(s), Unstructured(0.3).mask(s))
    with pytest.raises(ValueError, match="first axis must be a multiple of size = 3, got 8"):
        OutputBlocks(0.3, 3).mask(s)
    with pytest.raises(ValueError, match="least must be at least 0"):
        OutputBlocks(0.3, least=-1)


def test_no_negative_zeros_are_stored():
    x = -torch.ones(8)
    assert not torch.signbit(NM(2, 4).project(x)[2:4]).any()


def test_complex_scores_count_by_modulus():
    z = torch.tensor([3j, 1.0, -2.0, 0.5], dtype=torch.complex64)
    assert NM(2, 4).mask(z).tolist() == [True, False, True, False]


@given(st.integers(0, 40), st.integers(0, 99))
def test_bits_round_trip(n, seed):
    mask = scores(n, seed=seed) > 0
    bits = pack_mask(mask)
    assert bits.numel() == -(-n // 8)
    assert torch.equal(unpack_mask(bits, (n,)), mask)


def test_at_changes_the_density_and_nothing_else():
    assert Block(0.5, (2, 2), "l1").at(0.1) == Block(0.1, (2, 2), "l1")
    pattern = Channel(0.3, 1, dims=2)
    assert Prior.from_dict(json.loads(json.dumps(pattern.to_dict()))) == pattern
    assert isinstance(pattern, Pattern)


@pytest.mark.public_door
@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda: Unstructured(1.5), ValueError, r"density must be in \[0, 1\], got 1.5"),
    (lambda: Unstructured(-0.1), ValueError, r"density must be in \[0, 1\], got -0.1"),
    (lambda: Unstructured(float("nan")), ValueError, "density"),
    (lambda: NM(5, 4), ValueError, "n must be from 1 to 4, got 5"),
    (lambda: NM(0, 4), ValueError, "n must be from 1 to 4, got 0"),
    (lambda: NM(2, 4, pad="zero"), ValueError, "pad must be one of"),
    (lambda: NM(2, 4).mask(torch.ones(3, 6)), ValueError, "rows of 6 entries cannot be cut into groups of m = 4"),
    (lambda: NM(2, 4).mask(torch.ones(3, 6, 3, 3)), ValueError, "rows of 54 entries cannot be cut into groups of m"),
    (lambda: NM(2, 4, dim=1).mask(torch.ones(3, 2, 4)), ValueError, "rows of 2 entries cannot be cut into groups"),
    (lambda: NM(2, 4, layout="flat").mask(torch.ones(3, 6)), ValueError, "rows of 18 entries cannot be cut into"),
    (lambda: NM(2, 4, layout="ring"), ValueError, "layout must be one of"),
    (lambda: NM(2, 4).at(0.3), TypeError, "fixes its own density"),
    (lambda: NM(2, 4).towards(0.3), ValueError, r"density must be in \[0.5, 1\], for 2 of every 4"),
    (lambda: AtLeastNM(2, 4, 1.1), ValueError, r"density must be in \[0.5, 1\]"),
    (lambda: AtLeastNM(2, 4).mask(torch.ones(3, 6)), ValueError, "rows of 6 entries cannot be cut into groups of m"),
    (lambda: NM(2, 4, dim=3).mask(torch.ones(4, 4)), ValueError, "dim = 3 is not an axis"),
    (lambda: Block(0.5, (3, 3)).mask(torch.ones(4, 4)), ValueError, r"multiples of the block \(3, 3\)"),
    (lambda: Block(0.5, pool="mean"), ValueError, "pool must be one of"),
    (lambda: Channel(0.5, dim=2).mask(torch.ones(4, 4)), ValueError, "dim = 2 is not an axis"),
    (lambda: Unstructured(0.5).mask(torch.tensor([1.0, float("nan")])), FloatingPointError, "NaN or infinite"),
    (lambda: Unstructured(0.5).mask(torch.ones(3, dtype=torch.int64)), TypeError, "floating point"),
    (lambda: pack_mask(torch.ones(3)), TypeError, "boolean"),
    (lambda: unpack_mask(torch.zeros(3, dtype=torch.uint8), (4,)), ValueError, "must be 1 bytes"),
])
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()
