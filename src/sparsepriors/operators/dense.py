"""Operators given by their entries: matrices, diagonals, masks and samplings."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparsepriors import _checks, kernels
from sparsepriors.operators.algebra import Identity
from sparsepriors.operators.base import LinearOperator, Space

_EXACT_NORM_SIZE = 512


@dataclass(frozen=True, eq=False, repr=False)
class Matrix(LinearOperator):
    """y = M x for a matrix M of shape ``(m, n)``; x and y have M's dtype.

    The norm is exact (singular values) while the shorter side is at most 512, else by power iteration.
    """

    matrix: Tensor

    def __post_init__(self) -> None:
        if _checks.inexact("matrix", self.matrix).ndim != 2:
            raise ValueError(f"matrix must have two axes, got shape {tuple(self.matrix.shape)}")

    @property
    def domain(self) -> Space:
        return Space((self.matrix.shape[1],), self.matrix.dtype)

    @property
    def codomain(self) -> Space:
        return Space((self.matrix.shape[0],), self.in_dtype)

    def gram(self) -> LinearOperator:
        m, n = self.matrix.shape
        return Matrix(self.matrix.mH @ self.matrix) if n <= m else super().gram()

    def _known_norm(self) -> float | None:
        if self.matrix.numel() == 0:
            return 0.0
        if min(self.matrix.shape) > _EXACT_NORM_SIZE:
            return None
        return float(torch.linalg.matrix_norm(self.matrix.detach(), ord=2))

    def _forward(self, x: Tensor) -> Tensor:
        return _product(self.matrix, x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return _product(self.matrix.mH, y)


def _product(matrix: Tensor, x: Tensor) -> Tensor:
    """``M x`` of one x or of each in a batch, without a copy of the matrix."""
    if x.ndim == 1 and matrix.is_contiguous():
        return kernels.matrix_vector(matrix, x)
    if x.ndim == 1 and matrix.mT.is_contiguous():
        return kernels.vector_matrix(x, matrix.mT)
    return x @ matrix.mT


@dataclass(frozen=True, eq=False, repr=False)
class Diagonal(LinearOperator):
    """y = d * x entry by entry.

    Parameters
    ----------
    diagonal
        d, of the shape of one x.
    dtype
        Dtype of x, by default that of d; complex with a real d multiplies complex tensors by real numbers.
    """

    diagonal: Tensor
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        d = _checks.inexact("diagonal", self.diagonal)
        if self.dtype is not None:
            _checks.inexact_dtype("dtype", self.dtype)
            if self.dtype not in (d.dtype, None if d.is_complex() else _complex(d.dtype)):
                raise TypeError(f"dtype must be that of diagonal, {d.dtype}, or its complex counterpart, "
                                f"got {self.dtype}")

    @property
    def domain(self) -> Space:
        return Space(tuple(self.diagonal.shape), self.diagonal.dtype if self.dtype is None else self.dtype)

    @property
    def H(self) -> LinearOperator:
        return Diagonal(self.diagonal.conj(), self.dtype) if self.diagonal.is_complex() else self

    def gram(self) -> LinearOperator:
        return Diagonal(self.diagonal.abs() ** 2, self.in_dtype)

    def _known_norm(self) -> float:
        return float(self.diagonal.detach().abs().max()) if self.diagonal.numel() else 0.0

    def _forward(self, x: Tensor) -> Tensor:
        return self.diagonal * x

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.diagonal.conj() * y


@dataclass(frozen=True, eq=False, repr=False)
class Mask(LinearOperator):
    """Keeps the entries where ``mask`` is true and sets the others to zero; the shape stays.

    An orthogonal projection: A^H = A and A^H A = A. `Sampling` returns the kept entries alone.

    Parameters
    ----------
    mask
        Boolean, of the shape of one x.
    dtype
        Dtype of x.
    """

    mask: Tensor
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        _checks.boolean("mask", self.mask)
        _checks.inexact_dtype("dtype", self.dtype)

    @property
    def domain(self) -> Space:
        return Space(tuple(self.mask.shape), self.dtype)

    @property
    def H(self) -> LinearOperator:
        return self

    def gram(self) -> LinearOperator:
        return self

    def _known_norm(self) -> float:
        return 1.0 if bool(self.mask.any()) else 0.0

    def _forward(self, x: Tensor) -> Tensor:
        return torch.where(self.mask, x, 0)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._forward(y)


@dataclass(frozen=True, eq=False, repr=False)
class Sampling(LinearOperator):
    """The entries where ``mask`` is true, in row-major order, as one vector; A A^H = I.

    Parameters
    ----------
    mask
        Boolean, of the shape of one x.
    dtype
        Dtype of x.
    """

    mask: Tensor
    dtype: torch.dtype = torch.float32
    _index: Tensor = field(init=False)

    def __post_init__(self) -> None:
        _checks.boolean("mask", self.mask)
        _checks.inexact_dtype("dtype", self.dtype)
        object.__setattr__(self, "_index", self.mask.reshape(-1).nonzero().squeeze(1))

    @property
    def domain(self) -> Space:
        return Space(tuple(self.mask.shape), self.dtype)

    @property
    def codomain(self) -> Space:
        return Space((self._index.shape[0],), self.in_dtype)

    @property
    def unitary(self) -> bool:
        return self._index.shape[0] == self.mask.numel()

    def gram(self) -> LinearOperator:
        return Identity(self.in_shape, self.dtype) if self.unitary else Mask(self.mask, self.dtype)

    def _known_norm(self) -> float:
        return 1.0 if self._index.shape[0] else 0.0

    def _forward(self, x: Tensor) -> Tensor:
        batch = x.shape[: x.ndim - self.mask.ndim]
        return x.reshape((*batch, self.mask.numel())).index_select(-1, self._index)

    def _adjoint(self, y: Tensor) -> Tensor:
        batch = y.shape[:-1]
        x = y.new_zeros((*batch, self.mask.numel())).index_copy(-1, self._index, y)
        return x.reshape((*batch, *self.mask.shape))


def _complex(dtype: torch.dtype) -> torch.dtype | None:
    return dtype.to_complex() if dtype in (torch.float32, torch.float64) else None
