"""Coordinate descent and Newton's method on a Gram matrix, and what they ask of all columns at once."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels import reference
from sparsepriors.kernels.dispatch import code_path, native_for, threads
from sparsepriors.kernels.penalties import Penalty


def gram_descent(gram: Tensor, linear: Tensor, x: Tensor, q: Tensor, kind: int, weight: Tensor, second: Tensor,
                 factor: float, tol: float, max_epochs: int, accelerate: bool, *,
                 instruction_set: str | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.gram_descent`, compiled where it can be: float64 on the CPU, one thread.

    Parameters
    ----------
    gram
        ``(K, K)``, symmetric, K >= k; its first k rows and columns count, so that it can be held with room to grow.
    linear, x, q, weight, second
        ``(k,)``.
    kind
        A `Penalty`.
    factor, tol
        Positive; nonnegative.
    max_epochs
        At least 1.
    accelerate
        Whether to extrapolate.
    instruction_set
        One of `instruction_sets`, by default the first.

    Raises
    ------
    TypeError, ValueError
        If an argument is not float64, the shapes do not belong together, or a number is out of range.
    """
    vectors = {"linear": linear, "x": x, "q": q, "weight": weight, "second": second}
    _vectors(vectors)
    _square(gram, linear.numel())
    _numbers(kind, factor, tol, max_epochs)
    path = code_path(instruction_set)
    native = native_for(gram, *vectors.values())
    if native is None:
        return reference.gram_descent(gram, linear, x, q, kind, weight, second, factor, tol, max_epochs, accelerate)
    x, q = (v.detach().clone(memory_format=torch.contiguous_format) for v in (x, q))
    done, change = native.gram_descent(gram.contiguous(), linear.contiguous(), x, q, kind, weight.contiguous(),
                                       second.contiguous(), factor, tol, max_epochs, accelerate, path)
    return x, q, torch.tensor([done, change], dtype=torch.float64)


def gram_group_descent(gram: Tensor, linear: Tensor, x: Tensor, q: Tensor, starts: Tensor, curvature: Tensor, kind: int,
                       weight: Tensor, second: Tensor, factor: float, tol: float, max_epochs: int, accelerate: bool, *,
                       instruction_set: str | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.gram_group_descent`, compiled where it can be: float64 on the CPU, one thread.

    Parameters
    ----------
    gram
        ``(K, K)``, symmetric, K >= k, as in `gram_descent`.
    linear, x, q
        ``(k, tasks)``.
    starts
        ``(groups + 1,)`` int64, from 0 to k, not falling.
    curvature, weight, second
        ``(groups,)``.
    kind
        A `Penalty`, of the norms of groups.
    factor, tol
        Positive; nonnegative.
    max_epochs
        At least 1.
    accelerate
        Whether to extrapolate.
    instruction_set
        One of `instruction_sets`, by default the first.

    Raises
    ------
    TypeError, ValueError
        If an argument has another dtype, the shapes do not belong together, or a number is out of range.
    """
    for name, v in {"linear": linear, "x": x, "q": q}.items():
        if not isinstance(v, Tensor) or v.dtype != torch.float64:
            raise TypeError(f"{name} must be a float64 tensor, got {getattr(v, 'dtype', type(v).__name__)}")
        if v.ndim != 2 or v.shape != linear.shape:
            raise ValueError(f"{name} must be (k, tasks) like linear, got {tuple(v.shape)}")
    _vectors({"curvature": curvature, "weight": weight, "second": second})
    _square(gram, linear.shape[0])
    _groups(starts, curvature.numel(), len(linear))
    _numbers(kind, factor, tol, max_epochs)
    path = code_path(instruction_set)
    native = native_for(gram, linear, x, q, curvature, weight, second)
    if native is None:
        return reference.gram_group_descent(gram, linear, x, q, starts, curvature, kind, weight, second, factor, tol,
                                            max_epochs, accelerate)
    x, q = (v.detach().clone(memory_format=torch.contiguous_format) for v in (x, q))
    done, change = native.gram_group_descent(gram.contiguous(), linear.contiguous(), x, q, starts.contiguous(),
                                             curvature.contiguous(), kind, weight.contiguous(), second.contiguous(),
                                             factor, tol, max_epochs, accelerate, path)
    return x, q, torch.tensor([done, change], dtype=torch.float64)


def block_descent(columns: Tensor, squares: Tensor, x: Tensor, r: Tensor, starts: Tensor, kind: int, weight: Tensor,
                  second: Tensor, factor: float, tol: float, max_epochs: int, accelerate: bool, *,
                  instruction_set: str | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.block_descent`, compiled where it can be: float64 on the CPU, one thread.

    Parameters
    ----------
    columns
        ``(k, n)``; those of a group are orthogonal to one another.
    squares
        ``(k,)``, their squared lengths.
    x, r
        ``(k, tasks)`` and ``(n, tasks)``.
    starts, kind, weight, second, factor, tol, max_epochs, accelerate, instruction_set
        As for `gram_group_descent`.

    Raises
    ------
    TypeError, ValueError
        If an argument has another dtype, the shapes do not belong together, or a number is out of range.
    """
    for name, v in {"columns": columns, "x": x, "r": r}.items():
        if not isinstance(v, Tensor) or v.dtype != torch.float64:
            raise TypeError(f"{name} must be a float64 tensor, got {getattr(v, 'dtype', type(v).__name__)}")
        if v.ndim != 2:
            raise ValueError(f"{name} must be a matrix, got shape {tuple(v.shape)}")
    if x.shape[0] != columns.shape[0] or r.shape != (columns.shape[1], x.shape[1]):
        raise ValueError("columns must be (k, n), x (k, tasks) and r (n, tasks), got shapes "
                         f"{tuple(columns.shape)}, {tuple(x.shape)} and {tuple(r.shape)}")
    _vectors({"squares": squares}, columns.shape[0])
    _vectors({"weight": weight, "second": second})
    _groups(starts, weight.numel(), columns.shape[0])
    _numbers(kind, factor, tol, max_epochs)
    path = code_path(instruction_set)
    native = native_for(columns, squares, x, r, weight, second)
    if native is None:
        return reference.block_descent(columns, squares, x, r, starts, kind, weight, second, factor, tol, max_epochs,
                                       accelerate)
    x, r = (v.detach().clone(memory_format=torch.contiguous_format) for v in (x, r))
    done, change = native.block_descent(columns.contiguous(), squares.contiguous(), x, r, starts.contiguous(), kind,
                                        weight.contiguous(), second.contiguous(), factor, tol, max_epochs, accelerate,
                                        path)
    return x, r, torch.tensor([done, change], dtype=torch.float64)


def gram_newton(gram: Tensor, linear: Tensor, x: Tensor, kind: int, weight: Tensor, second: Tensor, factor: float,
                max_steps: int, *, instruction_set: str | None = None) -> tuple[Tensor, Tensor]:
    """As `reference.gram_newton`, compiled where it can be: float64 on the CPU, one thread.

    Parameters
    ----------
    gram
        ``(K, K)``, symmetric, K >= k, as in `gram_descent`.
    linear, x, weight, second
        ``(k,)``.
    kind
        `Penalty.elastic` or `Penalty.positive`.
    factor
        Positive.
    max_steps
        At least 1.
    instruction_set
        One of `instruction_sets`, by default the first.

    Raises
    ------
    TypeError, ValueError
        If an argument is not float64, the shapes do not belong together, or a number is out of range.
    """
    vectors = {"linear": linear, "x": x, "weight": weight, "second": second}
    _vectors(vectors)
    _square(gram, linear.numel())
    _checks.count("kind", kind, low=int(Penalty.elastic), high=int(Penalty.positive))
    _checks.positive("factor", factor)
    _checks.count("max_steps", max_steps, low=1)
    path = code_path(instruction_set)
    native = native_for(gram, *vectors.values())
    if native is None:
        return reference.gram_newton(gram, linear, x, kind, weight, second, factor, max_steps)
    x, q = x.detach().clone(memory_format=torch.contiguous_format), torch.empty(linear.shape, dtype=torch.float64)
    native.gram_newton(gram.contiguous(), linear.contiguous(), x, q, kind, weight.contiguous(), second.contiguous(),
                       factor, max_steps, path)
    return x, q


def optimality(x: Tensor, q: Tensor, curvature: Tensor, kind: int, weight: Tensor, second: Tensor, factor: float,
               residual: float, projection: float, *,
               instruction_set: str | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.optimality`, compiled where it can be: float64 on the CPU, one thread.

    Parameters
    ----------
    x, q, curvature, weight, second
        ``(p,)``.
    kind
        A `Penalty`.
    factor
        Positive.
    residual, projection
        ``r.r`` and ``r.y``.
    instruction_set
        One of `instruction_sets`, by default the first.

    Raises
    ------
    TypeError, ValueError
        If a tensor is not float64, the lengths differ, or a number is out of range.
    """
    vectors = {"x": x, "q": q, "curvature": curvature, "weight": weight, "second": second}
    _vectors(vectors)
    _checks.count("kind", kind, low=0, high=len(Penalty) - 1)
    _checks.positive("factor", factor)
    path = code_path(instruction_set)
    native = native_for(*vectors.values())
    if native is None:
        return reference.optimality(x, q, curvature, kind, weight, second, factor, residual, projection)
    violation = torch.empty(x.shape, dtype=torch.float64)
    active = torch.ones(x.shape, dtype=torch.bool)
    numbers = native.optimality(x.contiguous(), q.contiguous(), curvature.contiguous(), kind, weight.contiguous(),
                                second.contiguous(), factor, residual, projection, violation, active, path)
    return violation, active, torch.tensor(numbers, dtype=torch.float64)


def column_products(columns: Tensor, r: Tensor, keep: Tensor | None = None, *,
                    instruction_set: str | None = None) -> Tensor:
    """As `reference.column_products`, compiled where it can be: on the CPU, as many threads as torch has.

    Parameters
    ----------
    columns
        ``(p, n)``, float32 or float64.
    r
        ``(n,)``, float64.
    keep
        ``(p,)`` booleans, or None for all.
    instruction_set
        One of `instruction_sets`, by default the first.

    Raises
    ------
    TypeError, ValueError
        If a dtype is another one or the shapes do not belong together.
    """
    if not isinstance(columns, Tensor) or columns.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"columns must be float32 or float64, got {getattr(columns, 'dtype', type(columns).__name__)}")
    if not isinstance(r, Tensor) or r.dtype != torch.float64:
        raise TypeError(f"r must be a float64 tensor, got {getattr(r, 'dtype', type(r).__name__)}")
    if columns.ndim != 2 or r.shape != columns.shape[1:]:
        raise ValueError(f"columns must be (p, n) and r (n,), got {tuple(columns.shape)} and {tuple(r.shape)}")
    if keep is not None and (not isinstance(keep, Tensor) or keep.dtype != torch.bool
                             or keep.shape != columns.shape[:1]):
        raise ValueError(f"keep must hold {columns.shape[0]} booleans")
    path = code_path(instruction_set)
    native = native_for(columns, r)
    if native is None:
        return reference.column_products(columns, r, keep)
    out = torch.empty(columns.shape[:1], dtype=torch.float64)
    native.column_products(columns.contiguous(), r.contiguous(), None if keep is None else keep.contiguous(), out,
                           threads(), path)
    return out


def _numbers(kind: int, factor: float, tol: float, max_epochs: int) -> None:
    _checks.count("kind", kind, low=0, high=len(Penalty) - 1)
    _checks.positive("factor", factor)
    _checks.nonnegative("tol", tol)
    _checks.count("max_epochs", max_epochs, low=1)


def _groups(starts: Tensor, groups: int, k: int) -> None:
    if not isinstance(starts, Tensor) or starts.dtype != torch.int64:
        raise TypeError(f"starts must be an int64 tensor, got {getattr(starts, 'dtype', type(starts).__name__)}")
    edges = starts.tolist()
    if starts.shape != (groups + 1,) or edges != sorted(edges) or (edges[0], edges[-1]) != (0, k):
        raise ValueError(f"starts must rise from 0 to {k} in {groups + 1} numbers, got shape {tuple(starts.shape)}")


def _vectors(vectors: dict[str, Tensor], k: int | None = None) -> None:
    """Float64 vectors of this length, or as long as the first; else an error that names the one that is not."""
    for name, v in vectors.items():
        if not isinstance(v, Tensor) or v.dtype != torch.float64:
            raise TypeError(f"{name} must be a float64 tensor, got {getattr(v, 'dtype', type(v).__name__)}")
        k = v.numel() if k is None else k
        if v.shape != (k,):
            raise ValueError(f"{name} must have shape ({k},), got {tuple(v.shape)}")


def _square(gram: Tensor, k: int) -> None:
    if not isinstance(gram, Tensor) or gram.dtype != torch.float64:
        raise TypeError(f"gram must be a float64 tensor, got {getattr(gram, 'dtype', type(gram).__name__)}")
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or gram.shape[0] < k:
        raise ValueError(f"gram must be square with at least {k} rows, got shape {tuple(gram.shape)}")
