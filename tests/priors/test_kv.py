"""Rules for cached keys and values: exact counts, what they rank by, and when two of them are one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.priors import (
    ChannelStructured,
    PerChannelMagnitude,
    PerChannelOutputAware,
    PerTokenMagnitude,
    PerTokenOutputAware,
)
from sparsepriors.priors.kv import window_sums

densities = st.floats(0.02, 1.0)


def _draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(1, 9), st.integers(1, 64), densities, st.integers(0, 99))
def test_every_token_keeps_the_same_count_and_the_largest(count: int, channels: int, density: float, seed: int) -> None:
    x = _draw(2, 3, count, channels, seed=seed)
    pruned = PerTokenMagnitude(density).project(x)
    kept = pruned != 0
    assert (kept.sum(-1) == max(1, round(channels * density))).all()
    largest_lost = x.abs().masked_fill(kept, 0).amax(-1)
    assert (x.abs().masked_fill(~kept, torch.inf).amin(-1) >= largest_lost).all()


@pytest.mark.parametrize(("channels", "sparsity", "ours", "theirs"), [
    (128, 0.5, 64, 65), (128, 0.7, 38, 40), (64, 0.5, 32, 33), (64, 0.7, 19, 21), (64, 0.0, 64, 64)])
def test_the_published_code_keeps_more(channels: int, sparsity: float, ours: int, theirs: int) -> None:
    x = _draw(5, channels)
    for official, count in ((False, ours), (True, theirs)):
        rule = PerTokenMagnitude(1 - sparsity, official_rounding=official)
        assert (rule.mask(x.abs()).sum(-1) == count).all()


def test_ties_go_to_the_lower_channel_but_not_in_the_published_code() -> None:
    x = torch.tensor([[1.0, -1.0, 1.0, 2.0]])
    assert PerTokenMagnitude(0.5).project(x).tolist() == [[1, 0, 0, 2]]
    assert PerTokenMagnitude(0.5, official_rounding=True).project(x).tolist() == [[1, -1, 1, 2]]


@given(densities, st.integers(0, 99))
def test_attention_scales_all_entries_of_a_token_alike(density: float, seed: int) -> None:
    """The published remark: of values, per-token output-aware pruning is per-token magnitude pruning."""
    x, attention = _draw(2, 3, 7, 16, seed=seed), _draw(2, 3, 7, seed=seed + 1).abs() + 0.01
    torch.testing.assert_close(PerTokenOutputAware(density).prune(x, attention=attention),
                               PerTokenMagnitude(density).project(x), rtol=0, atol=0)


def test_large_queries_save_small_keys() -> None:
    x = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    queries = torch.tensor([[1.0, 1.0, 1.0], [0.1, 1.0, 5.0]])
    assert PerTokenOutputAware(1 / 3).prune(x, queries=queries).tolist() == [[3, 0, 0], [0, 0, 1]]


@given(st.integers(1, 4), st.integers(0, 3), st.integers(1, 5), densities, st.integers(0, 99))
def test_every_channel_of_a_group_keeps_the_same_count(groups: int, rest: int, group: int, density: float,
                                                       seed: int) -> None:
    rest = min(rest, group - 1)
    x = _draw(2, groups * group + rest, 6, seed=seed)
    kept = PerChannelMagnitude(density, group=group).project(x) != 0
    assert kept[:, groups * group:].all()
    whole = kept[:, :groups * group].unflatten(1, (groups, group))
    assert (whole.sum(2) == max(1, round(group * density))).all()


def test_attention_saves_small_values() -> None:
    x = torch.tensor([[3.0, 3.0], [1.0, 1.0], [5.0, 0.1], [1.0, 9.0]])
    attention = torch.tensor([0.1, 1.0, 1.0, 1.0])
    aware = PerChannelOutputAware(0.5, group=2)
    assert aware.prune(x, attention=attention).tolist() == [[0, 0], [1, 1], [5, 0], [0, 9]]
    assert PerChannelMagnitude(0.5, group=2).project(x).tolist() == [[3, 3], [0, 0], [5, 0], [0, 9]]


@given(densities, st.integers(0, 99))
def test_structured_pruning_removes_whole_channels(density: float, seed: int) -> None:
    x, queries = _draw(2, 3, 9, 8, seed=seed), _draw(2, 3, 1, 8, seed=seed + 1).square()
    kept = ChannelStructured(density).prune(x, queries=queries) != 0
    assert (kept.all(-2) | ~kept.any(-2)).all()
    assert (kept[..., 0, :].sum(-1) == max(1, round(8 * density))).all()
    score = x.square().mean(-2) * queries[..., 0, :]
    best = score.argmax(-1, keepdim=True)
    assert kept[..., 0, :].gather(-1, best).all()


@given(st.integers(1, 12), st.integers(1, 15), st.integers(0, 99))
def test_window_sums_are_sums_over_the_next_tokens(count: int, window: int, seed: int) -> None:
    x = _draw(2, count, 3, seed=seed)
    expected = torch.stack([x[:, t:t + window].sum(1) for t in range(count)], dim=1)
    torch.testing.assert_close(window_sums(x, window), expected)


@pytest.mark.public_door
def test_bad_arguments_are_refused() -> None:
    x = _draw(2, 4, 8)
    with pytest.raises(ValueError, match=r"density must be in \[0, 1\], got 1.5"):
        PerTokenMagnitude(1.5)
    with pytest.raises(ValueError, match="ranks entries by queries or attention, which must be given"):
        PerTokenOutputAware(0.5).prune(x)
    with pytest.raises(ValueError, match="ranks entries by attention"):
        PerChannelOutputAware(0.5).prune(x, queries=x)
    with pytest.raises(ValueError, match=r"queries must broadcast to \(2, 4, 8\), got \(2, 3, 8\)"):
        PerTokenOutputAware(0.5).prune(x, queries=x[:, :3])
    with pytest.raises(ValueError, match="at least the axes"):
        PerTokenMagnitude(0.5).project(x[0, 0])
    with pytest.raises(ValueError, match="group must be at least 1"):
        PerChannelMagnitude(0.5, group=0)
    with pytest.raises(ValueError, match="window must be at least 1"):
        PerTokenOutputAware(0.5, window=0)
