"""Convolution over the trailing axes, circular or zero-padded, through the fast Fourier transform."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.operators.base import LinearOperator, Space

MODES = ("circular", "same", "valid")


@dataclass(frozen=True, eq=False, repr=False)
class Convolution(LinearOperator):
    """y = k * x over as many trailing axes as the kernel has.

    With c = floor((K - 1) / 2) per axis of a kernel of length K, y[n] = sum_m k[m] x[n + c - m]: the convention of
    ``scipy.signal.convolve``, for odd and even K.

    Parameters
    ----------
    kernel
        k, real or complex.
    shape
        Shape of one x.
    mode
        ``"circular"``: x continues periodically; ``"same"``: x continues with zeros, y has the shape of x;
        ``"valid"``: only the entries of y that depend on no continuation.
    dtype
        Dtype of x, by default that of the kernel; complex with a real kernel is allowed.
    """

    kernel: Tensor
    shape: tuple[int, ...]
    mode: str = "circular"
    dtype: torch.dtype | None = None
    _sizes: tuple[int, ...] = field(init=False)
    _spectrum: Tensor = field(init=False)

    def __post_init__(self) -> None:
        _checks.inexact("kernel", self.kernel)
        object.__setattr__(self, "shape", _checks.shape("shape", self.shape))
        _checks.one_of("mode", self.mode, MODES)
        _check_dtype(self.kernel.dtype, self.dtype)
        k, dims = self.kernel.shape, self.kernel.ndim
        if dims == 0 or 0 in k or dims > len(self.shape):
            raise ValueError(f"kernel must have 1 to {len(self.shape)} non-empty axes for shape {self.shape}, "
                             f"got shape {tuple(k)}")
        n = self.shape[-dims:]
        if 0 in self.shape or (self.mode != "same" and any(a > b for a, b in zip(k, n, strict=True))):
            raise ValueError(f"kernel must not be larger than the trailing axes {n} of shape, got {tuple(k)}")
        sizes = n if self.mode == "circular" else tuple(a + b - 1 for a, b in zip(n, k, strict=True))
        object.__setattr__(self, "_sizes", sizes)
        object.__setattr__(self, "_spectrum", self._transform(self.kernel.to(self.in_dtype)))

    @property
    def domain(self) -> Space:
        return Space(self.shape, self.kernel.dtype if self.dtype is None else self.dtype)

    @property
    def codomain(self) -> Space:
        if self.mode != "valid":
            return self.domain
        k = self.kernel.shape
        sizes = (a - b + 1 for a, b in zip(self.shape[-len(k):], k, strict=True))
        return Space((*self.shape[:-len(k)], *sizes), self.in_dtype)

    def gram(self) -> LinearOperator:
        if self.mode != "circular":
            return super().gram()
        correlation = self._inverse(self._spectrum.abs().square().to(self._spectrum.dtype))
        centred = correlation.roll([(n - 1) // 2 for n in self._sizes], dims=self._axes)
        return Convolution(centred, self.shape, "circular", self.in_dtype)

    def _known_norm(self) -> float | None:
        return float(self._spectrum.detach().abs().max()) if self.mode == "circular" else None

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(-self.kernel.ndim, 0))

    @property
    def _offsets(self) -> tuple[int, ...]:
        """Per axis, the first entry of y in the sequence that the Fourier transforms yield."""
        if self.mode == "valid":
            return tuple(k - 1 for k in self.kernel.shape)
        return tuple((k - 1) // 2 for k in self.kernel.shape)

    def _transform(self, x: Tensor) -> Tensor:
        fft = torch.fft.fftn if self.in_dtype.is_complex else torch.fft.rfftn
        return fft(x, s=self._sizes, dim=self._axes)

    def _inverse(self, y: Tensor) -> Tensor:
        ifft = torch.fft.ifftn if self.in_dtype.is_complex else torch.fft.irfftn
        return ifft(y, s=self._sizes, dim=self._axes)

    def _forward(self, x: Tensor) -> Tensor:
        if x.numel() == 0:
            return x.new_zeros((*x.shape[:x.ndim - len(self.shape)], *self.out_shape))
        full = self._inverse(self._transform(x) * self._spectrum)
        if self.mode == "circular":
            return full.roll([-c for c in self._offsets], dims=self._axes)
        for axis, start in zip(self._axes, self._offsets, strict=True):
            full = full.narrow(axis, start, self.out_shape[axis])
        return full.contiguous()

    def _adjoint(self, y: Tensor) -> Tensor:
        if y.numel() == 0:
            return y.new_zeros((*y.shape[:y.ndim - len(self.shape)], *self.in_shape))
        if self.mode == "circular":
            full = y.roll(list(self._offsets), dims=self._axes)
        else:
            pads = [(c, size - c - y.shape[axis])
                    for axis, c, size in zip(self._axes, self._offsets, self._sizes, strict=True)]
            full = torch.nn.functional.pad(y, [p for pair in reversed(pads) for p in pair])
        x = self._inverse(self._transform(full) * self._spectrum.conj())
        for axis in self._axes:
            x = x.narrow(axis, 0, self.shape[axis])
        return x.contiguous()


def gaussian_kernel(std: float, dims: int = 2, *, radius: int | None = None,
                    dtype: torch.dtype = torch.float32) -> Tensor:
    """Gaussian of the given standard deviation in samples, of odd width ``2 radius + 1``, with sum 1.

    Parameters
    ----------
    std
        Positive, in samples.
    dims
        Number of axes.
    radius
        By default ``ceil(4 std)``.
    dtype
        Real dtype of the result.
    """
    std = _checks.positive_number("std", std)
    _checks.count("dims", dims, low=1)
    radius = math.ceil(4 * std) if radius is None else _checks.count("radius", radius)
    t = torch.arange(-radius, radius + 1, dtype=torch.float64)
    line = torch.exp(-0.5 * (t / std).square())
    line = line / line.sum()
    kernel = line
    for _ in range(dims - 1):
        kernel = kernel.unsqueeze(-1) * line
    return kernel.to(dtype)


def _check_dtype(kernel: torch.dtype, dtype: torch.dtype | None) -> None:
    if kernel not in (torch.float32, torch.float64, torch.complex64, torch.complex128):
        raise TypeError(f"kernel must have single or double precision, got {kernel}")
    if dtype is not None and dtype not in (kernel, kernel.to_complex()):
        raise TypeError(f"dtype must be that of the kernel, {kernel}, or its complex counterpart, got {dtype}")
