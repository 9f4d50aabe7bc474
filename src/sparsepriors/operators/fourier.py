"""Fourier operators: the centred unitary transform and multiplication of a spectrum."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.operators.algebra import Identity
from sparsepriors.operators.base import LinearOperator, Space


@dataclass(frozen=True, eq=False, repr=False)
class FourierTransform(LinearOperator):
    r"""The unitary discrete Fourier transform over the trailing axes.

    Per axis of length N, with c = floor(N / 2) when ``centred`` and 0 otherwise,

        y[k] = N^{-1/2} sum_n x[n] exp(-2 pi i (k - c) (n - c) / N),

    so the origin of space and the zero frequency both sit in the middle of their arrays, as in MRI.

    Parameters
    ----------
    shape
        Shape of one x, and of one y.
    dims
        How many trailing axes are transformed; by default all.
    dtype
        ``torch.complex64`` or ``torch.complex128``. For real x compose with `RealToComplex`.
    centred
        Where the origin is, see above.
    """

    shape: tuple[int, ...]
    dims: int | None = None
    dtype: torch.dtype = torch.complex64
    centred: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _checks.shape("shape", self.shape))
        if self.dims is not None:
            _checks.count("dims", self.dims, low=1, high=len(self.shape))
        if self.dtype not in (torch.complex64, torch.complex128):
            raise TypeError(f"dtype must be torch.complex64 or torch.complex128, got {self.dtype}; "
                            f"for real tensors compose with RealToComplex")
        if not all(self.shape):
            raise ValueError(f"shape must not hold a zero, got {self.shape}")

    @property
    def domain(self) -> Space:
        return Space(self.shape, self.dtype)

    @property
    def unitary(self) -> bool:
        return True

    def gram(self) -> LinearOperator:
        return Identity(self.shape, self.dtype)

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(-(len(self.shape) if self.dims is None else self.dims), 0))

    def _forward(self, x: Tensor) -> Tensor:
        if not self.centred or x.numel() == 0:
            return torch.fft.fftn(x, dim=self._axes, norm="ortho") if x.numel() else x.clone()
        return torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(x, self._axes), dim=self._axes, norm="ortho"),
                                  self._axes)

    def _adjoint(self, y: Tensor) -> Tensor:
        if not self.centred or y.numel() == 0:
            return torch.fft.ifftn(y, dim=self._axes, norm="ortho") if y.numel() else y.clone()
        return torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(y, self._axes), dim=self._axes, norm="ortho"),
                                  self._axes)
