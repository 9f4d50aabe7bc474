"""Columns of a sparse matrix in compressed form, by way of a dense one."""

from __future__ import annotations

import torch
from torch import Tensor


def csc_products(values: Tensor, rows: Tensor, starts: Tensor, r: Tensor, index: Tensor | None = None,
                 squared: bool = False) -> Tensor:
    """Products ``X_index^T r`` of columns of a sparse matrix.

    Parameters
    ----------
    values, rows, starts
        Compressed columns: the entries of column j, at these rows, from ``starts[j]`` up to ``starts[j + 1]``.
    r
        ``(n, tasks)``.
    index
        ``(k,)``, the columns; all p of them by default.
    squared
        Whether entries are squared first.

    Returns
    -------
    Tensor
        ``(k, tasks)``.
    """
    x = _columns(values.square() if squared else values, rows, starts, len(r))
    return (x if index is None else x[:, index]).mT @ r


def csc_combination(values: Tensor, rows: Tensor, starts: Tensor, x: Tensor, index: Tensor | None, n: int) -> Tensor:
    """The sum ``X_index x`` of columns of a sparse matrix, which has n rows: ``(k, tasks)`` to ``(n, tasks)``.

    Parameters
    ----------
    values, rows, starts, index
        As for `csc_products`.
    """
    columns = _columns(values, rows, starts, n)
    return (columns if index is None else columns[:, index]) @ x


def csc_gram(values: Tensor, rows: Tensor, starts: Tensor, left: Tensor, right: Tensor, weights: Tensor) -> Tensor:
    """Products ``X_right^T diag(weights) X_left`` of columns of a sparse matrix: ``(right, left)``.

    Parameters
    ----------
    values, rows, starts
        As for `csc_products`.
    left, right
        Two lists of columns.
    weights
        ``(n,)``.
    """
    x = _columns(values, rows, starts, len(weights))
    return (x[:, right] * weights[:, None]).mT @ x[:, left]


def _columns(values: Tensor, rows: Tensor, starts: Tensor, n: int) -> Tensor:
    """The matrix whose compressed columns these are, dense; entries at one place add up."""
    lengths, p = starts.long().diff(), starts.numel() - 1
    columns = torch.repeat_interleave(torch.arange(p, device=values.device), lengths)
    inside = slice(int(starts[0]), int(starts[-1]))
    return values.new_zeros(n, p).index_put((rows[inside].long(), columns), values[inside], accumulate=True)
