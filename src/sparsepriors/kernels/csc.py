"""Columns of a sparse matrix, compressed as SciPy keeps them: products, Gram matrices, sums."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels import reference
from sparsepriors.kernels.dispatch import native_for, threads


def csc_products(values: Tensor, rows: Tensor, starts: Tensor, r: Tensor, index: Tensor | None = None,
                 squared: bool = False) -> Tensor:
    """As `reference.csc_products`, compiled where it can be: on the CPU, as many threads as torch has.

    Parameters
    ----------
    values
        ``(nnz,)``, float64.
    rows, starts
        ``(nnz,)`` from 0 to n - 1 and ``(p + 1,)`` from 0 to nnz, not falling; int32 or int64, both alike.
    r
        ``(n, tasks)``, float64.
    index
        ``(k,)``, int64, from 0 to p - 1, or None for all columns.
    squared
        Whether entries are squared first.

    Raises
    ------
    TypeError, ValueError
        If a dtype is another one, the shapes do not belong together, or an index points outside.
    """
    _compressed(values, rows, starts)
    _matrix("r", r)
    _list("index", index, starts)
    native = native_for(values, r)
    if native is None:
        _bounds(rows, starts, len(r), index)
        return reference.csc_products(values, rows, starts, r, index, squared)
    count = starts.numel() - 1 if index is None else index.numel()
    out = torch.empty(count, r.shape[1], dtype=torch.float64)
    native.csc_products(values.contiguous(), rows.contiguous(), starts.contiguous(), r.contiguous(),
                        None if index is None else index.contiguous(), squared, out, threads())
    return out


def csc_combination(values: Tensor, rows: Tensor, starts: Tensor, x: Tensor, index: Tensor | None, n: int) -> Tensor:
    """As `reference.csc_combination`, compiled where it can be: on the CPU, one thread.

    Parameters
    ----------
    values, rows, starts, index
        As for `csc_products`.
    x
        ``(k, tasks)``, float64.
    n
        Rows of the matrix.

    Raises
    ------
    TypeError, ValueError
        As `csc_products`.
    """
    _compressed(values, rows, starts)
    _matrix("x", x)
    _list("index", index, starts)
    _checks.count("n", n, low=0)
    count = starts.numel() - 1 if index is None else index.numel()
    if len(x) != count:
        raise ValueError(f"x must have a row for each of {count} columns, got shape {tuple(x.shape)}")
    native = native_for(values, x)
    if native is None:
        _bounds(rows, starts, n, index)
        return reference.csc_combination(values, rows, starts, x, index, n)
    out = torch.empty(n, x.shape[1], dtype=torch.float64)
    native.csc_combination(values.contiguous(), rows.contiguous(), starts.contiguous(), x.contiguous(),
                           None if index is None else index.contiguous(), out)
    return out


def csc_gram(values: Tensor, rows: Tensor, starts: Tensor, left: Tensor, right: Tensor, weights: Tensor) -> Tensor:
    """As `reference.csc_gram`, compiled where it can be: on the CPU, as many threads as torch has.

    Parameters
    ----------
    values, rows, starts
        As for `csc_products`.
    left, right
        Two of what is ``index`` there.
    weights
        ``(n,)``, float64.

    Raises
    ------
    TypeError, ValueError
        As `csc_products`.
    """
    _compressed(values, rows, starts)
    for name, index in (("left", left), ("right", right)):
        if index is None:
            raise TypeError(f"{name} must be an int64 tensor, got None")
        _list(name, index, starts)
    if not isinstance(weights, Tensor) or weights.dtype != torch.float64:
        raise TypeError(f"weights must be a float64 tensor, got {getattr(weights, 'dtype', type(weights).__name__)}")
    if weights.ndim != 1:
        raise ValueError(f"weights must be a vector, got shape {tuple(weights.shape)}")
    native = native_for(values, weights)
    if native is None:
        _bounds(rows, starts, len(weights), left, right)
        return reference.csc_gram(values, rows, starts, left, right, weights)
    out = torch.empty(right.numel(), left.numel(), dtype=torch.float64)
    native.csc_gram(values.contiguous(), rows.contiguous(), starts.contiguous(), left.contiguous(),
                    right.contiguous(), weights.contiguous(), out, threads())
    return out


def _compressed(values: Tensor, rows: Tensor, starts: Tensor) -> None:
    if not isinstance(values, Tensor) or values.dtype != torch.float64:
        raise TypeError(f"values must be a float64 tensor, got {getattr(values, 'dtype', type(values).__name__)}")
    for name, v in (("rows", rows), ("starts", starts)):
        if not isinstance(v, Tensor) or v.dtype not in (torch.int32, torch.int64) or v.dtype != rows.dtype:
            raise TypeError("rows and starts must be int32 or int64, both alike, got "
                            f"{getattr(v, 'dtype', type(v).__name__)} for {name}")
    if values.ndim != 1 or values.shape != rows.shape or starts.ndim != 1 or not starts.numel():
        raise ValueError("values and rows must be equally long, starts not empty, got shapes "
                         f"{tuple(values.shape)}, {tuple(rows.shape)} and {tuple(starts.shape)}")


def _matrix(name: str, v: Tensor) -> None:
    if not isinstance(v, Tensor) or v.dtype != torch.float64:
        raise TypeError(f"{name} must be a float64 tensor, got {getattr(v, 'dtype', type(v).__name__)}")
    if v.ndim != 2:
        raise ValueError(f"{name} must be a matrix with a column for each task, got shape {tuple(v.shape)}")


def _list(name: str, index: Tensor | None, starts: Tensor) -> None:
    if index is None:
        return
    if not isinstance(index, Tensor) or index.dtype != torch.int64:
        raise TypeError(f"{name} must be an int64 tensor, got {getattr(index, 'dtype', type(index).__name__)}")
    if index.ndim != 1:
        raise ValueError(f"{name} must be a vector, got shape {tuple(index.shape)}")


def _bounds(rows: Tensor, starts: Tensor, n: int, *lists: Tensor | None) -> None:
    """What the compiled kernels look at on their way."""
    edges = starts.long()
    if bool((edges.diff() < 0).any()) or int(edges[0]) < 0 or int(edges[-1]) > rows.numel():
        raise ValueError("starts must rise within the entries")
    if rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) < n:
        raise ValueError("rows must be from 0 to n - 1")
    for index in lists:
        if index is not None and index.numel() and not 0 <= int(index.min()) <= int(index.max()) < len(edges) - 1:
            raise ValueError("a column must be from 0 to p - 1")
