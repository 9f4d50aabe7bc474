"""Masks of the largest scores, with exact counts and ties that go to the lower index."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import UInt8
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels import reference
from sparsepriors.kernels.dispatch import code_path, native_for

MAX_GROUP = 32
"""Largest M of an N:M group that the compiled kernel takes."""

MAX_LEVELS = 255
"""Most counts that `topk_levels` takes: a level is one byte."""


def topk_mask(scores: Tensor, k: int) -> Tensor:
    """Keep the ``k`` largest scores of the last axis; of equal scores those with the lower index.

    Parameters
    ----------
    scores
        ``(..., n)``, floating point.
    k
        How many to keep, 0 to n.

    Returns
    -------
    Tensor
        Boolean, the shape of ``scores``, exactly ``k`` True entries in every row.

    Raises
    ------
    FloatingPointError
        If a score is NaN.
    TypeError, ValueError
        If the scores are not floating point or ``k`` is out of range.
    """
    scores = _scores(scores)
    _checks.count("k", k, low=0, high=scores.shape[-1])
    rows = scores.flatten(0, -2) if scores.ndim > 1 else scores[None]
    native = native_for(rows)
    if native is None or _many_short(rows):
        _no_nan(bool(torch.isnan(scores).any()))
        short = rows.is_cpu and 0 < k < rows.shape[-1]
        return _by_threshold(rows, k).reshape(scores.shape) if short else reference.topk_mask(scores, k)
    keep = torch.empty(rows.shape, dtype=torch.bool)
    for row, out in zip(rows, keep, strict=True):
        _no_nan(native.topk_mask(row, k, out, torch.get_num_threads()))
    return keep.reshape(scores.shape)


def topk_levels(scores: Tensor, counts: Sequence[int]) -> UInt8[Tensor, "..."]:
    """Of how many counts k each score of the last axis is among the k largest, ties to the lower index.

    The masks of many sparsities at once, at little more than the cost of one: where the counts decrease,
    ``topk_levels(s, counts) > i`` equals ``topk_mask(s, counts[i])``.

    Parameters
    ----------
    scores
        ``(..., n)``, floating point.
    counts
        At most `MAX_LEVELS`, none larger than the one before it, each from 0 to n.

    Returns
    -------
    Tensor
        uint8, the shape of ``scores``.

    Raises
    ------
    FloatingPointError
        If a score is NaN.
    TypeError, ValueError
        If the scores are not floating point, or the counts are out of range or increase.
    """
    scores = _scores(scores)
    counts = [_checks.count("counts", k, low=0, high=scores.shape[-1]) for k in counts]
    if len(counts) > MAX_LEVELS:
        raise ValueError(f"counts must be at most {MAX_LEVELS}, got {len(counts)}")
    if any(b > a for a, b in pairwise(counts)):
        raise ValueError(f"counts must not increase, got {counts}")
    rows = scores.flatten(0, -2) if scores.ndim > 1 else scores[None]
    native = native_for(rows)
    if native is None or _many_short(rows):
        _no_nan(bool(torch.isnan(scores).any()))
        return reference.topk_levels(scores, counts)
    levels = torch.empty(rows.shape, dtype=torch.uint8)
    for row, out in zip(rows, levels, strict=True):
        _no_nan(native.topk_levels(row, counts, out, torch.get_num_threads()))
    return levels.reshape(scores.shape)


def _by_threshold(rows: Tensor, k: int) -> Tensor:
    """`topk_mask` of rows by the k-th largest score of each, a third of the time of a sort; 0 < k < their length."""
    threshold = rows.kthvalue(rows.shape[-1] - k + 1, dim=-1, keepdim=True).values
    keep = rows >= threshold
    tied = (keep.sum(-1) > k).nonzero()[:, 0]
    if len(tied):
        above, at = rows[tied] > threshold[tied], rows[tied] == threshold[tied]
        keep[tied] = above | (at & (at.cumsum(-1) <= k - above.sum(-1, keepdim=True)))
    return keep


def nm_mask(scores: Tensor, n: int, m: int, *, instruction_set: str | None = None) -> Tensor:
    """Keep the ``n`` largest of every ``m`` consecutive scores of the last axis, ties to the lower index.

    Parameters
    ----------
    scores
        ``(..., groups * m)``, floating point.
    n, m
        1 <= n <= m.
    instruction_set
        One of `instruction_sets`, by default the first.

    Returns
    -------
    Tensor
        Boolean, the shape of ``scores``.

    Raises
    ------
    FloatingPointError
        If a score is NaN.
    TypeError, ValueError
        If the scores are not floating point or do not fill whole groups, or n and m are out of range.
    """
    scores = _scores(scores)
    _checks.count("m", m, low=1)
    _checks.count("n", n, low=1, high=m)
    if scores.shape[-1] % m:
        raise ValueError(f"the last axis of scores must be a multiple of m = {m}, got {scores.shape[-1]}")
    path = code_path(instruction_set)
    native = native_for(scores)
    if native is None or m > MAX_GROUP or not scores.numel():
        _no_nan(bool(torch.isnan(scores).any()))
        return reference.nm_mask(scores, n, m)
    keep = torch.empty(scores.shape, dtype=torch.bool)
    _no_nan(native.nm_mask(scores, n, m, keep, torch.get_num_threads(), path))
    return keep


def _many_short(rows: Tensor) -> bool:
    """Whether rows are sorted together: the compiled kernels thread over one row."""
    return rows.shape[0] * 4096 > rows.numel() or not rows.numel()


def _scores(scores: object) -> Tensor:
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        got = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise TypeError(f"scores must be a floating point tensor, got {got}")
    if scores.ndim == 0:
        raise ValueError("scores must have at least one axis, got a scalar")
    scores = (scores.detach() if scores.requires_grad else scores).contiguous()
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


def _no_nan(found: bool) -> None:
    if found:
        raise FloatingPointError("scores hold NaN entries, which have no rank")
