"""Orthonormal wavelet transforms, computed by PyWavelets."""

from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType

import numpy as np
import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.operators._autograd import linear, to_numpy
from sparsepriors.operators.algebra import Identity
from sparsepriors.operators.base import LinearOperator, Space

_ORTHONORMAL = 1e-9


@dataclass(frozen=True, eq=False, repr=False)
class WaveletTransform(LinearOperator):
    """The discrete wavelet transform of the trailing axes, periodic, of an orthonormal family.

    The coefficients have the shape of x, in Mallat's layout: the approximation of the coarsest level in the leading
    corner, around it the details from coarse to fine (``pywt.coeffs_to_array`` of ``pywt.wavedecn`` with mode
    ``"periodization"``). The transform runs on the CPU, wherever x lives, and can be differentiated.

    Parameters
    ----------
    shape
        Shape of one x; the transformed axes must be divisible by ``2**levels``.
    wavelet
        A name that PyWavelets knows: ``"haar"``, ``"db4"``, ``"sym8"``, ``"coif3"``, ... Families that are not
        orthonormal to 1e-9 (biorthogonal ones, the tabulated ``"dmey"``) are refused.
    levels
        Number of levels; 0 is the identity.
    dims
        How many trailing axes are transformed; by default all.
    dtype
        ``torch.float32``, ``float64``, ``complex64`` or ``complex128``.

    Raises
    ------
    ImportError
        If PyWavelets is not installed.

    References
    ----------
    Mallat, A theory for multiresolution signal decomposition, IEEE TPAMI 11:674-693, 1989.
    """

    shape: tuple[int, ...]
    wavelet: str = "db4"
    levels: int = 3
    dims: int | None = None
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _checks.shape("shape", self.shape))
        if not self.shape or not all(self.shape):
            raise ValueError(f"shape must have at least one axis and no zero, got {self.shape}")
        if self.dims is not None:
            _checks.count("dims", self.dims, low=1, high=len(self.shape))
        if self.dtype not in (torch.float32, torch.float64, torch.complex64, torch.complex128):
            raise TypeError(f"dtype must have single or double precision, got {self.dtype}")
        _check_family(self.wavelet)
        _checks.count("levels", self.levels)
        sizes = [self.shape[a] for a in self._axes]
        most = min((n & -n).bit_length() - 1 for n in sizes)
        if self.levels > most:
            raise ValueError(f"levels must be at most {most} for axes of {', '.join(map(str, sizes))} entries, "
                             f"each divisible by 2**levels; got {self.levels}")

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
        return linear(x, self._analyse, self._synthesise)

    def _adjoint(self, y: Tensor) -> Tensor:
        return linear(y, self._synthesise, self._analyse)

    def _analyse(self, x: Tensor) -> Tensor:
        import pywt

        out = to_numpy(x).copy()
        for level in range(self.levels if x.numel() else 0):
            corner = self._corner(level)
            block = out[corner]
            for axis in self._axes:
                block = np.concatenate(pywt.dwt(block, self.wavelet, mode="periodization", axis=axis), axis=axis)
            out[corner] = block
        return torch.from_numpy(out).to(x.device)

    def _synthesise(self, y: Tensor) -> Tensor:
        import pywt

        out = to_numpy(y).copy()
        for level in reversed(range(self.levels if y.numel() else 0)):
            corner = self._corner(level)
            block = out[corner]
            for axis in reversed(self._axes):
                low, high = np.split(block, 2, axis=axis)
                block = pywt.idwt(low, high, self.wavelet, mode="periodization", axis=axis)
            out[corner] = block
        return torch.from_numpy(out).to(y.device)

    def _corner(self, level: int) -> tuple[slice | EllipsisType, ...]:
        """Where the approximation of this level lies."""
        return (..., *(slice(0, self.shape[axis] >> level) for axis in self._axes))


def greatest_levels(shape: tuple[int, ...]) -> int:
    """The greatest number of levels of a `WaveletTransform` over all axes of this shape."""
    shape = _checks.shape("shape", shape)
    if not shape or not all(shape):
        raise ValueError(f"shape must have at least one axis and no zero, got {shape}")
    return min((n & -n).bit_length() - 1 for n in shape)


def _check_family(name: str) -> None:
    try:
        import pywt
    except ImportError as e:
        raise ImportError("WaveletTransform needs PyWavelets: pip install PyWavelets, "
                          "or pip install 'sparsepriors[imaging]'") from e
    _checks.one_of("wavelet", name, pywt.wavelist(kind="discrete"))  # pyright: ignore[reportAttributeAccessIssue]
    family = pywt.Wavelet(name)  # pyright: ignore[reportAttributeAccessIssue]
    low, high = np.array(family.dec_lo), np.array(family.dec_hi)
    reversed_exactly = np.array_equal(family.rec_lo, low[::-1]) and np.array_equal(family.rec_hi, high[::-1])
    # Orthonormal: a filter's autocorrelation vanishes at even lags other than 0, and its norm is 1.
    lags = np.correlate(low, low, "full")[(low.size - 1) % 2::2]
    error = np.abs(lags - (np.arange(lags.size) == (lags.size - 1) // 2)).max()
    if not reversed_exactly or error > _ORTHONORMAL:
        raise ValueError(f"wavelet must be orthonormal to {_ORTHONORMAL:g}, {name!r} is not; "
                         f"try 'haar', 'db4', 'sym8' or 'coif3'")
