"""Tensors and one matrix per axis: the checks at the doors of the Kronecker methods, and the products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from sparsepriors import _checks


@dataclass(frozen=True)
class Modes:
    """Measurements and factors in one double precision dtype, with one batch axis leading."""

    y: Tensor
    factors: list[Tensor]
    batch: tuple[int, ...]
    dtype: torch.dtype
    """What the arguments promote to, which results are returned in."""

    @property
    def axes(self) -> int:
        """How many matrices the product has."""
        return len(self.factors)

    @property
    def columns(self) -> tuple[int, ...]:
        """The shape of one unknown."""
        return tuple(a.shape[-1] for a in self.factors)

    def items(self, x: Tensor) -> Tensor:
        """Give a result the batch axes of the caller."""
        return x.reshape((*self.batch, *x.shape[1:]))


def check_factors(y: Tensor, factors: Sequence[Tensor]) -> Modes:
    """Check measurements and factors against one another.

    Raises
    ------
    TypeError, ValueError
        If something is not a finite floating or complex tensor, an axis is empty, or the shapes do not fit.
    """
    _checks.inexact("y", y)
    if not isinstance(factors, Sequence) or not factors:
        raise TypeError(f"factors must be a non-empty sequence of matrices, got {factors!r:.100}")
    for i, a in enumerate(factors):
        if _checks.inexact(f"factors[{i}]", a).ndim < 2:
            raise ValueError(f"factors[{i}] must be a matrix (batch axes may lead), got shape {tuple(a.shape)}")
        if 0 in a.shape[-2:]:
            raise ValueError(f"factors[{i}] must have no empty axis, got shape {tuple(a.shape)}")
    rows = tuple(a.shape[-2] for a in factors)
    axes = len(rows)
    if y.ndim >= axes and tuple(y.shape[y.ndim - axes:]) == rows:
        batch = tuple(y.shape[:y.ndim - axes])
    elif y.ndim and y.shape[-1] == math.prod(rows):
        batch = tuple(y.shape[:-1])
    else:
        raise ValueError(f"y must have shape (..., {', '.join(map(str, rows))}), or flattened "
                         f"(..., {math.prod(rows)}), for factors with {rows} rows, got {tuple(y.shape)}")
    dtype = reduce(torch.promote_types, (a.dtype for a in factors), y.dtype)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    spread = []
    for i, a in enumerate(factors):
        if tuple(a.shape[:-2]) not in ((), batch):
            raise ValueError(f"factors[{i}] must have the batch axes of y, {batch}, or none, got {tuple(a.shape)}")
        spread.append(a.to(wide).expand((*batch, *a.shape[-2:])).reshape((-1, *a.shape[-2:])))
    return Modes(y.to(wide).reshape(-1, *rows), spread, batch, dtype)


def along_modes(x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Multiply matrix i, ``(batch, m_i, n_i)``, into axis i of ``(batch, n_1, ..., n_I)``."""
    for a in matrices:
        y = a @ x.reshape(len(x), a.shape[-1], -1)
        # The axis just done goes to the end; after the last matrix the order is the first again.
        x = y.reshape(len(x), a.shape[-2], *x.shape[2:]).movedim(1, -1)
    return x
