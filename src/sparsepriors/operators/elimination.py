"""Elimination of a few coordinates from many: a unimodular map up to scale, kept as its small block."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.operators.base import LinearOperator, Space


@dataclass(frozen=True, eq=False, repr=False)
class Elimination(LinearOperator):
    """y = E x on vectors: ``y_I = x_I / residuals``, ``y_R = x_R - coefficients y_I``, the rest unchanged.

    If the columns I of a matrix X are ``residuals * z + X_R coefficients``, then the columns I of X E are z: E takes
    from each of them what the columns R explain and divides by what is left. A residual of zero stands for a column
    that they explain completely; y is zero there. Products cost ``|I| |R|``.

    Parameters
    ----------
    size
        Of x.
    columns, pivots
        ``(|I|,)`` and ``(|R|,)`` int64: I and R, which have no index in common.
    coefficients
        ``(|R|, |I|)``, floating.
    residuals
        ``(|I|,)``, nonnegative.
    """

    size: int
    columns: Tensor
    pivots: Tensor
    coefficients: Tensor
    residuals: Tensor

    def __post_init__(self) -> None:
        _checks.count("size", self.size)
        for name, index in (("columns", self.columns), ("pivots", self.pivots)):
            if not isinstance(index, Tensor) or index.dtype != torch.int64 or index.ndim != 1:
                raise TypeError(f"{name} must be a vector of int64")
            if index.numel() and not (int(index.min()) >= 0 and int(index.max()) < self.size):
                raise ValueError(f"{name} must lie between 0 and {self.size - 1}")
        both = torch.cat([self.columns, self.pivots])
        if both.unique().numel() != both.numel():
            raise ValueError("columns and pivots must have no index twice or in common")
        _checks.inexact("coefficients", self.coefficients)
        _checks.inexact("residuals", self.residuals)
        _checks.nonnegative("residuals", self.residuals)
        shape = (self.pivots.numel(), self.columns.numel())
        if tuple(self.coefficients.shape) != shape or tuple(self.residuals.shape) != shape[1:]:
            raise ValueError(f"coefficients and residuals must have shapes {shape} and {shape[1:]}, got "
                             f"{tuple(self.coefficients.shape)} and {tuple(self.residuals.shape)}")
        _checks.same_dtype("residuals", self.residuals, self.coefficients.dtype)

    @property
    def domain(self) -> Space:
        return Space((self.size,), self.coefficients.dtype)

    def solve(self, y: Tensor) -> Tensor:
        """E^-1 y: ``(..., size)`` to the same; where a residual is zero, x is zero and y's entry is left to R.

        Raises
        ------
        TypeError, ValueError
            As `forward`.
        """
        self._check("y", y, self.out_shape, self.out_dtype)
        inside = y[..., self.columns]
        x = y.index_copy(-1, self.columns, self.residuals * inside)
        return x.index_add(-1, self.pivots, inside @ self.coefficients.mT)

    def _inverse_residuals(self) -> Tensor:
        some = self.residuals > 0
        return torch.where(some, 1 / torch.where(some, self.residuals, 1.0), 0.0)

    def _forward(self, x: Tensor) -> Tensor:
        inside = x[..., self.columns] * self._inverse_residuals()
        y = x.index_copy(-1, self.columns, inside)
        return y.index_add(-1, self.pivots, -(inside @ self.coefficients.mT))

    def _adjoint(self, y: Tensor) -> Tensor:
        inside = y[..., self.columns] - y[..., self.pivots] @ self.coefficients
        return y.index_copy(-1, self.columns, inside * self._inverse_residuals())
