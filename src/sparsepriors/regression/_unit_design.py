"""A design with its columns scaled to norm 1, as an operator that solvers take and by its columns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.operators.base import LinearOperator, Space
from sparsepriors.operators.dense import Matrix
from sparsepriors.regression._design import Design, design

_NOTHING = 1e-20   # of the square of what was taken from a column as its mean: what is left is rounding


@dataclass(frozen=True, eq=False, repr=False)
class UnitDesign(LinearOperator):
    """X diag(scale), float64; columns that are constant where they are centred, or zero, become zero."""

    inner: Design
    scale: Tensor

    @property
    def rows(self) -> int:
        """Of X."""
        return self.inner.rows

    @property
    def columns(self) -> int:
        """Of X."""
        return self.inner.columns

    @property
    def means(self) -> Tensor:
        """``(p,)``: what was taken from the columns of X."""
        return self.inner.means

    @property
    def domain(self) -> Space:
        return Space((self.columns,), torch.float64)

    @property
    def codomain(self) -> Space:
        return Space((self.rows,), torch.float64)

    def image(self, index: Tensor, x: Tensor) -> Tensor:
        """Of coefficients on some columns."""
        return self.inner.image(index, x * self.scale[index])

    def products(self, index: Tensor) -> Tensor:
        """Products of some columns with all columns."""
        columns = self.inner.some(index)
        found = [self.inner.correlate(column) for column in columns]   # a product of matrices would copy all columns
        if not found:
            return columns.new_zeros(0, self.columns)
        return self.scale[index, None] * torch.stack(found) * self.scale

    def _forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.columns)
        images = [self.image(at, row[at]) for row in rows for at in [row.nonzero()[:, 0]]]
        return torch.stack(images).reshape(*x.shape[:-1], self.rows) if images else x.new_zeros(*x.shape[:-1],
                                                                                              self.rows)

    def _adjoint(self, y: Tensor) -> Tensor:
        rows = [self.scale * self.inner.correlate(row) for row in y.reshape(-1, self.rows)]
        return torch.stack(rows).reshape(*y.shape[:-1], self.columns) if rows else y.new_zeros(*y.shape[:-1],
                                                                                             self.columns)


def unit_design(A: object, weights: Tensor | None, centre: bool) -> UnitDesign:
    """The columns of a matrix, centred and weighted as `design` does, scaled to norm 1.

    Raises
    ------
    TypeError, ValueError
        If it is no real matrix that `design` takes, or holds NaN.
    """
    matrix = A.matrix if isinstance(A, Matrix) else A
    if isinstance(matrix, Tensor) and matrix.dtype == torch.float32:
        A = matrix.double()
    inner = design(A, weights, centre)
    squares = inner.squared_norms()
    if not _checks.all_finite(squares):
        raise ValueError("A must be finite, found NaN or infinite entries, or columns too large to square")
    total = float(inner.rows if weights is None else weights.sum())
    some = squares > _NOTHING * total * inner.means.square()
    return UnitDesign(inner, torch.where(some, squares.clamp_min(torch.finfo(torch.float64).tiny).rsqrt(), 0.0))
