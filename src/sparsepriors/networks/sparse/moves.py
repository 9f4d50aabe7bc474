"""Masks in motion: dropping kept weights and growing others, and how far masks lie apart."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from sparsepriors import _checks, kernels

Masks = Mapping[str, Tensor]


def drop(mask: Tensor, score: Tensor, count: int) -> Tensor:
    """The mask without its ``count`` kept entries of least score; of equal ones those of higher index go."""
    left = int(mask.sum()) - _checks.count("count", count, high=int(mask.sum()))
    return _top(torch.where(mask, score, -torch.inf), left)


def grow(mask: Tensor, score: Tensor, count: int) -> Tensor:
    """The mask with the ``count`` entries of largest score that it did not keep; ties go to the lower index."""
    room = mask.numel() - int(mask.sum())
    _checks.count("count", count, high=room)
    return mask | _top(torch.where(mask, -torch.inf, score), count)


def dropped(kept: int, fraction: float) -> int:
    """How many of ``kept`` weights a move drops: the fraction of them, rounded down."""
    return math.floor(fraction * kept)


def redistributed(total: int, shares: Mapping[str, float], room: Mapping[str, int]) -> dict[str, int]:
    """Counts by name that add up to ``total``, in proportion to ``shares`` where there is room, the rest elsewhere.

    Raises
    ------
    ValueError
        If there is less room than ``total``.
    """
    if total > sum(room.values()):
        raise ValueError(f"{total} entries do not fit into {sum(room.values())}")
    counts = dict.fromkeys(shares, 0)
    while (left := total - sum(counts.values())) > 0:
        free = {n: s for n, s in shares.items() if counts[n] < room[n]}
        whole = sum(free.values())
        exact = {n: left * (s / whole if whole > 0 else 1 / len(free)) for n, s in free.items()}
        for n, e in exact.items():
            counts[n] += min(int(e), room[n] - counts[n])
        if all(int(e) == 0 for e in exact.values()):   # only remainders are left: one each, the largest first
            for n in sorted(exact, key=lambda n: -exact[n])[:left]:
                counts[n] += 1
    return counts


def sad(a: Masks, b: Masks) -> int:
    """Sparse architecture divergence: the number of entries in which two sets of masks differ (arXiv:2102.04010)."""
    _same(a, b)
    return sum(int(torch.count_nonzero(a[n] != b[n])) for n in a)


def jaccard(a: Masks, b: Masks) -> float:
    """Entries kept by both over entries kept by either; 1 for two that keep nothing."""
    _same(a, b)
    both = sum(int((a[n] & b[n]).sum()) for n in a)
    either = sum(int((a[n] | b[n]).sum()) for n in a)
    return both / either if either else 1.0


def cosine(a: Masks, b: Masks) -> float:
    """The cosine of two sets of masks as vectors of zeros and ones; 0 if one keeps nothing (arXiv:2306.03805)."""
    _same(a, b)
    both = sum(int((a[n] & b[n]).sum()) for n in a)
    size = math.sqrt(sum(int(m.sum()) for m in a.values())) * math.sqrt(sum(int(m.sum()) for m in b.values()))
    return both / size if size else 0.0


def in_time_density(fired: Masks) -> float:
    """Share of the weights that some mask has kept: the in-time over-parameterisation rate of Liu et al. (2021)."""
    return sum(int(m.sum()) for m in fired.values()) / sum(m.numel() for m in fired.values())


def _top(score: Tensor, count: int) -> Tensor:
    return kernels.topk_mask(score.flatten(), count).reshape(score.shape)


def _same(a: Masks, b: Masks) -> None:
    _checks.instance("a", a, Mapping)
    _checks.instance("b", b, Mapping)
    if a.keys() != b.keys() or any(a[n].shape != b[n].shape for n in a):
        raise ValueError("the two sets of masks must be of the same weights, got "
                         f"{sorted(set(a) ^ set(b)) or [n for n in a if a[n].shape != b[n].shape]}")
