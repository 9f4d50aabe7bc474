"""Which pattern the zeros of a weight lie in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsepriors import _checks

GROUPS = (4, 8, 16, 32, 64, 128)
_BLOCKS = (16, 8, 4)
_LEAST = 4096


@dataclass(frozen=True)
class PatternGuess:
    """A pattern that holds without exception.

    Attributes
    ----------
    kind
        ``"dense"``, ``"channel"``, ``"block"``, ``"n:m"`` or ``"unstructured"``.
    n, m
        Of N:M; of blocks ``m`` is the side.
    axis
        Along which the groups of N:M run, or which the removed channels number.
    sure
        Whether the weight has the 4,096 entries below which chance can look like a pattern.
    """

    kind: str
    n: int | None = None
    m: int | None = None
    axis: int | None = None
    sure: bool = True


def detect_pattern(weight: Tensor) -> PatternGuess:
    """The narrowest pattern that the nonzero entries keep; -0.0 is a zero.

    N:M is reported if every complete group along an axis has at most n nonzeros, with the smallest n and m, and n / m
    is at most 1.05 times the density and accounts for four fifths of the zeros, so that the pattern and not chance
    makes them. Of two axes the one that a
    layer sums over, 1, comes first. A convolution counts as (out, in) with kernel positions apart.

    Raises
    ------
    ValueError
        If the weight has fewer than two axes or no entry.
    """
    _checks.instance("weight", weight, Tensor)
    if weight.ndim < 2 or weight.numel() == 0:
        raise ValueError(f"weight must have at least two axes and one entry, got shape {tuple(weight.shape)}")
    alive = weight.detach() != 0
    sure = weight.numel() >= _LEAST
    density = float(alive.double().mean())
    if density == 1:
        return PatternGuess("dense", sure=sure)
    for axis in (0, 1):
        rows = alive.movedim(axis, 0).flatten(1).any(1)
        inside = alive.movedim(axis, 0)[rows]
        if not bool(rows.all()) and bool(rows.any()) and bool(inside.all()):
            return PatternGuess("channel", axis=axis, sure=sure)
    matrix = alive if alive.ndim == 2 else alive.flatten(2).movedim(2, 0).flatten(0, 1)
    for side in _BLOCKS:
        if not matrix.shape[0] % side and not matrix.shape[1] % side:
            tiles = matrix.unflatten(0, (-1, side)).unflatten(2, (-1, side))
            some, whole = tiles.any(dim=3).any(dim=1), tiles.all(dim=3).all(dim=1)
            if bool((some == whole).all()):
                return PatternGuess("block", m=side, axis=None, sure=sure)
    for axis in (1, 0):
        lines = alive.movedim(axis, -1)
        for m in GROUPS:
            length = lines.shape[-1] // m * m
            if length == 0:
                continue
            n = int(lines[..., :length].unflatten(-1, (-1, m)).sum(-1).max())
            if 0 < n < m and n / m <= 1.05 * density and 1 - n / m >= 0.8 * (1 - density):
                return PatternGuess("n:m", n, m, axis, sure)
    return PatternGuess("unstructured", sure=sure)


def nonzeros(weight: Tensor) -> int:
    """Entries that are neither 0, -0.0 nor too small for a normal number."""
    return int((weight.detach().abs() >= torch.finfo(weight.dtype).tiny).sum())
