"""Codes of few nonzeros: the largest scores, and products that touch only the rows that they name."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels import reference
from sparsepriors.kernels.dispatch import code_path, native_for

_REALS = (torch.float32, torch.float64)


def largest_positive(scores: Tensor, room: int, per_row: bool = True, *,
                     instruction_set: str | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The largest positive scores, of each row or of all rows together; of equal ones those that come first.

    A threshold is guessed, what reaches it is listed in one pass, and the exact one is selected among these.

    Parameters
    ----------
    scores
        ``(rows, n)``, float32 or float64.
    room
        How many are kept at most, of each row or in all.
    per_row
        Which of the two.
    instruction_set
        One of `instruction_sets`, by default the first.

    Returns
    -------
    tuple
        ``starts`` ``(rows + 1,)`` int64, ``indices`` ``(entries,)`` int32 and ``values``: the entries of row i, by
        increasing index, are those from ``starts[i]`` to ``starts[i + 1]``.

    Raises
    ------
    FloatingPointError
        If a score is NaN.
    TypeError, ValueError
        If the scores are not real with two axes, or ``room`` is negative.
    """
    _matrix("scores", scores)
    _checks.count("room", room)
    path = code_path(instruction_set)
    native = native_for(scores)
    if native is None or room == 0:
        if bool(torch.isnan(scores).any()):
            raise FloatingPointError("scores hold NaN entries, which have no rank")
        return reference.largest_positive(scores, room, per_row)
    scores = scores.detach().contiguous()
    rows, n = scores.shape
    most = rows * min(room, n) if per_row else min(room, rows * n)
    starts = torch.empty(rows + 1, dtype=torch.int64)
    indices, values = torch.empty(most, dtype=torch.int32), scores.new_empty(most)
    found = native.largest_positive(scores, room, per_row, starts, indices, values, torch.get_num_threads(), path)
    if found < 0:
        raise FloatingPointError("scores hold NaN entries, which have no rank")
    if found < most:
        indices, values = indices[:found].clone(), values[:found].clone()
    return starts, indices, values


def sum_rows(rows: Tensor, starts: Tensor, indices: Tensor, values: Tensor, *,
             instruction_set: str | None = None) -> Tensor:
    """``out[i]``, the sum of ``values[e] rows[indices[e]]`` over the entries e of i: a product with sparse codes.

    Parameters
    ----------
    rows
        ``(count, width)``, float32 or float64.
    starts, indices
        Entries, as `largest_positive` gives them.
    values
        ``(entries,)``, the dtype of ``rows``.
    instruction_set
        One of `instruction_sets`, by default the first.

    Raises
    ------
    TypeError, ValueError
        If dtypes or shapes do not belong together, or an index names no row.
    """
    _entries(starts, indices, "rows", rows, values)
    path = code_path(instruction_set)
    native = native_for(rows)
    if native is None:
        _named(starts, indices, len(rows))
        return reference.sum_rows(rows, starts, indices, values)
    out = rows.new_empty(len(starts) - 1, rows.shape[1])
    native.sum_rows(starts.contiguous(), indices.contiguous(), values.detach().contiguous(),
                    rows.detach().contiguous(), out, torch.get_num_threads(), path)
    return out


def scatter_rows(rows: Tensor, starts: Tensor, indices: Tensor, values: Tensor, count: int, *,
                 instruction_set: str | None = None) -> Tensor:
    """``out[j]``, the sum of ``values[e] rows[i]`` over the entries e of all i whose index is j: codes transposed.

    Parameters
    ----------
    rows
        ``(number of starts - 1, width)``, float32 or float64.
    starts, indices, values
        As in `sum_rows`; the rows of one result are added in their order, by any number of threads.
    count
        Rows of the result.
    instruction_set
        One of `instruction_sets`, by default the first.

    Raises
    ------
    TypeError, ValueError
        If dtypes or shapes do not belong together, or an index is not below ``count``.
    """
    _checks.count("count", count)
    _entries(starts, indices, "rows", rows, values)
    if len(rows) + 1 != len(starts):
        raise ValueError(f"starts must have an entry more than the {len(rows)} rows, got {len(starts)}")
    path = code_path(instruction_set)
    native = native_for(rows)
    if native is None:
        _named(starts, indices, count)
        return reference.scatter_rows(rows, starts, indices, values, count)
    out = rows.new_empty(count, rows.shape[1])
    native.scatter_rows(starts.contiguous(), indices.contiguous(), values.detach().contiguous(),
                        rows.detach().contiguous(), out, torch.get_num_threads(), path)
    return out


def dot_rows(left: Tensor, right: Tensor, starts: Tensor, indices: Tensor, *,
             instruction_set: str | None = None) -> Tensor:
    """``out[e]``, the product ``left[i] . right[indices[e]]`` for every entry e of every i.

    Parameters
    ----------
    left, right
        ``(number of starts - 1, width)`` and ``(count, width)``, both float32 or both float64.
    starts, indices
        Entries, as `largest_positive` gives them.
    instruction_set
        One of `instruction_sets`, by default the first.

    Raises
    ------
    TypeError, ValueError
        If dtypes or shapes do not belong together, or an index names no row.
    """
    _matrix("left", left)
    _entries(starts, indices, "right", right, None)
    _checks.same_dtype("right", right, left.dtype)
    if left.shape[1] != right.shape[1] or len(left) + 1 != len(starts):
        raise ValueError(f"left must be ({len(starts) - 1}, {right.shape[1]}), got {tuple(left.shape)}")
    path = code_path(instruction_set)
    native = native_for(left, right)
    if native is None:
        _named(starts, indices, len(right))
        return reference.dot_rows(left, right, starts, indices)
    out = left.new_empty(len(indices))
    native.dot_rows(starts.contiguous(), indices.contiguous(), left.detach().contiguous(),
                    right.detach().contiguous(), out, torch.get_num_threads(), path)
    return out


def _matrix(name: str, x: object) -> None:
    if not isinstance(x, Tensor) or x.dtype not in _REALS:
        raise TypeError(f"{name} must be a float32 or float64 tensor, got {getattr(x, 'dtype', type(x).__name__)}")
    if x.ndim != 2:
        raise ValueError(f"{name} must have two axes, got shape {tuple(x.shape)}")


def _entries(starts: Tensor, indices: Tensor, name: str, rows: Tensor, values: Tensor | None) -> None:
    _matrix(name, rows)
    vectors = [("starts", starts, torch.int64), ("indices", indices, torch.int32)]
    if values is not None:
        vectors.append(("values", values, rows.dtype))
    for label, v, dtype in vectors:
        _checks.same_dtype(label, v, dtype)
        if v.ndim != 1:
            raise ValueError(f"{label} must be a vector, got shape {tuple(v.shape)}")
    if not len(starts):
        raise ValueError("starts must have at least one entry, got none")
    if values is not None and len(values) != len(indices):
        raise ValueError(f"values must have an entry for each of {len(indices)} indices, got {len(values)}")


def _named(starts: Tensor, indices: Tensor, bound: int) -> None:
    if int(starts[0]) != 0 or int(starts[-1]) != len(indices) or bool((starts.diff() < 0).any()):
        raise ValueError("starts must grow from 0 to the number of entries")
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < bound:
        raise ValueError("indices must name rows that there are")
