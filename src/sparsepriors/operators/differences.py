"""Finite differences: the discrete gradient of total variation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.operators.base import LinearOperator, Space

BOUNDARIES = ("neumann", "periodic")


@dataclass(frozen=True, eq=False, repr=False)
class FiniteDifference(LinearOperator):
    """Forward differences x[i + 1] - x[i] along each of the trailing axes.

    ``(..., *shape)`` to ``(..., dims, *shape)``: entry j of the new axis holds the differences along trailing axis j.

    Parameters
    ----------
    shape
        Shape of one x.
    dims
        How many trailing axes are differenced; by default all.
    dtype
        Dtype of x, real or complex.
    boundary
        ``"neumann"``: the difference at the last entry is zero (the convention of TV; Chambolle 2004);
        ``"periodic"``: the first entry follows the last.
    """

    shape: tuple[int, ...]
    dims: int | None = None
    dtype: torch.dtype = torch.float32
    boundary: str = "neumann"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _checks.shape("shape", self.shape))
        if not self.shape or not all(self.shape):
            raise ValueError(f"shape must have at least one axis and no zero, got {self.shape}")
        if self.dims is not None:
            _checks.count("dims", self.dims, low=1, high=len(self.shape))
        _checks.inexact_dtype("dtype", self.dtype)
        _checks.one_of("boundary", self.boundary, BOUNDARIES)

    @property
    def domain(self) -> Space:
        return Space(self.shape, self.dtype)

    @property
    def codomain(self) -> Space:
        return Space((len(self._axes), *self.shape), self.in_dtype)

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(-(len(self.shape) if self.dims is None else self.dims), 0))

    def _known_norm(self) -> float:
        # The axes' second differences commute, so the largest eigenvalues add up. Per axis of length n they are
        # 4 sin^2(pi k / 2n) (Neumann: cosine modes) or 4 sin^2(pi k / n) (periodic: Fourier modes), k = 0 .. n - 1.
        total = 0.0
        for axis in self._axes:
            n = self.shape[axis]
            angle = math.pi * (n - 1) / (2 * n) if self.boundary == "neumann" else math.pi * (n // 2) / n
            total += 4 * math.sin(angle) ** 2
        return math.sqrt(total)

    def _forward(self, x: Tensor) -> Tensor:
        return torch.stack([self._difference(x, axis) for axis in self._axes], dim=-1 - len(self.shape))

    def _adjoint(self, y: Tensor) -> Tensor:
        parts = y.unbind(dim=-1 - len(self.shape))
        x = self._difference_adjoint(parts[0], self._axes[0])
        for part, axis in zip(parts[1:], self._axes[1:], strict=True):
            x = x + self._difference_adjoint(part, axis)
        return x

    def _difference(self, x: Tensor, axis: int) -> Tensor:
        if self.boundary == "periodic":
            return x.roll(-1, dims=axis) - x
        last = x.narrow(axis, x.shape[axis] - 1, 1)
        return torch.diff(x, dim=axis, append=last)

    def _difference_adjoint(self, y: Tensor, axis: int) -> Tensor:
        if self.boundary == "periodic":
            return y.roll(1, dims=axis) - y
        inner = y.narrow(axis, 0, y.shape[axis] - 1)
        zero = torch.zeros_like(y.narrow(axis, 0, 1))
        return -torch.diff(inner, dim=axis, prepend=zero, append=zero)
