"""Codes of few nonzeros by their entries."""

from __future__ import annotations

import torch
from torch import Tensor


def largest_positive(scores: Tensor, room: int, per_row: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """The largest positive scores, of each row or of all rows together; of equal ones those that come first.

    Parameters
    ----------
    scores
        ``(rows, n)``.
    room
        How many are kept at most, of each row or in all.
    per_row
        Which of the two.

    Returns
    -------
    tuple
        ``starts`` ``(rows + 1,)``, ``indices`` and ``values``: row i has the entries from ``starts[i]`` to
        ``starts[i + 1]``.
    """
    groups = scores if per_row else scores.reshape(1, -1)
    order = torch.sort(groups, dim=-1, descending=True, stable=True).indices[:, :room]
    keep = torch.zeros_like(groups, dtype=torch.bool).scatter(-1, order, True).reshape(scores.shape) & (scores > 0)
    starts = torch.zeros(len(scores) + 1, dtype=torch.int64, device=scores.device)
    starts[1:] = keep.sum(dim=1).cumsum(0)
    return starts, keep.nonzero()[:, 1].to(torch.int32), scores[keep]


def sum_rows(rows: Tensor, starts: Tensor, indices: Tensor, values: Tensor) -> Tensor:
    """``out[i]``, the sum of ``values[e] rows[indices[e]]`` over the entries e of i.

    Parameters
    ----------
    rows
        ``(count, width)``.
    starts, indices, values
        Entries, as `largest_positive` gives them.
    """
    out = rows.new_zeros(len(starts) - 1, rows.shape[1])
    return out.index_add_(0, _rows_of(starts), values[:, None] * rows[indices.long()])


def scatter_rows(rows: Tensor, starts: Tensor, indices: Tensor, values: Tensor, count: int) -> Tensor:
    """``out[j]``, the sum of ``values[e] rows[i]`` over the entries e of all i whose index is j.

    Parameters
    ----------
    rows
        ``(number of starts - 1, width)``.
    starts, indices, values
        Entries, as `largest_positive` gives them.
    count
        Rows of the result.
    """
    out = rows.new_zeros(count, rows.shape[1])
    return out.index_add_(0, indices.long(), values[:, None] * rows[_rows_of(starts)])


def dot_rows(left: Tensor, right: Tensor, starts: Tensor, indices: Tensor) -> Tensor:
    """``out[e]``, the product ``left[i] . right[indices[e]]`` for every entry e of every i.

    Parameters
    ----------
    left, right
        ``(number of starts - 1, width)`` and ``(count, width)``.
    starts, indices
        Entries, as `largest_positive` gives them.
    """
    return (left[_rows_of(starts)] * right[indices.long()]).sum(dim=1)


def _rows_of(starts: Tensor) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(starts) - 1, device=starts.device), starts.diff())
