"""Near-field MIMO radar in the Born approximation, matrix-free.

A transmitter at r_T, a receiver at r_R and a frequency f with wavenumber k = 2 pi f / c measure

    y[k, T, R] = sum_v s[v] exp(-j k (d_T + d_R)) / (4 pi d_T d_R),        d_T = |r_v - r_T|, d_R = |r_v - r_R|,

of a complex reflectivity s (Oral and Oktem, IEEE TCI 2024, forward model). For each frequency and voxel the kernel is
a product of one factor of the transmitter and one of the receiver, so A is never formed: two tables of
(T + R) x voxels replace K x T x R x voxels entries.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Self

import torch
from jaxtyping import Complex
from torch import Tensor

from sparsepriors import _checks, kernels
from sparsepriors._described import Described
from sparsepriors.kernels import BornTables, born_tables
from sparsepriors.operators._autograd import Map, linear
from sparsepriors.operators.base import LinearOperator, Space

SPEED_OF_LIGHT = 299_792_458.0
"""Metres per second."""

_PHASE_TOLERANCE = {torch.complex64: 1e-6, torch.complex128: 1e-11}  # radians, of "evenly spaced"


@dataclass(frozen=True, eq=False)
class VoxelGrid(Described):
    """Centres of a rectangular grid of voxels, by its three axes in metres."""

    x: Tensor
    y: Tensor
    z: Tensor

    def __post_init__(self) -> None:
        for name in ("x", "y", "z"):
            axis = _checks.inexact(name, getattr(self, name))
            if axis.ndim != 1 or axis.numel() == 0 or axis.is_complex():
                raise ValueError(f"{name} must be a non-empty real axis, got {axis.dtype} of shape {tuple(axis.shape)}")
            object.__setattr__(self, name, axis.to(torch.float64))

    @classmethod
    def box(cls, low: tuple[float, float, float], high: tuple[float, float, float],
            shape: tuple[int, int, int]) -> Self:
        """Evenly spaced voxels whose outermost centres lie on the corners ``low`` and ``high``, in metres."""
        x, y, z = (torch.linspace(a, b, _checks.count("shape", n, low=1), dtype=torch.float64)
                   for a, b, n in zip(low, high, shape, strict=True))
        return cls(x, y, z)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along x, y, z."""
        return self.x.numel(), self.y.numel(), self.z.numel()

    def points(self) -> Tensor:
        """Positions ``(voxels, 3)`` in metres, z running fastest."""
        return torch.cartesian_prod(self.x, self.y, self.z).reshape(-1, 3)


def crossed_array(transmitters: int = 12, receivers: int = 13, half_width: float = 0.15) -> tuple[Tensor, Tensor]:
    """Planar array at z = 0: receivers evenly on one diagonal of a square, transmitters on the other.

    The defaults are the array of Oral and Oktem (2024). Returns transmitter and receiver positions, ``(n, 3)``, metres.
    """
    _checks.count("transmitters", transmitters, low=1)
    _checks.count("receivers", receivers, low=1)
    _checks.positive("half_width", half_width)
    t = torch.linspace(-half_width, half_width, transmitters, dtype=torch.float64)
    r = torch.linspace(-half_width, half_width, receivers, dtype=torch.float64)
    return torch.stack((t, -t, torch.zeros_like(t)), dim=1), torch.stack((r, r, torch.zeros_like(r)), dim=1)


@dataclass(frozen=True, eq=False, repr=False)
class BornMIMO(LinearOperator):
    """Scene ``(..., X, Y, Z)`` to measurements ``(..., K, T, R)``; complex, differentiable, exact adjoint.

    Parameters
    ----------
    frequencies
        ``(K,)`` Hz, positive.
    transmitters, receivers
        ``(T, 3)`` and ``(R, 3)`` positions in metres.
    grid
        Voxel centres; none may lie on an antenna.
    dtype
        ``complex64`` or ``complex128``.

    Raises
    ------
    TypeError, ValueError
        If a shape, dtype or value is not as stated.

    Warns
    -----
    UserWarning
        If the frequencies are not evenly spaced: the tables then take K times the memory.
    """

    frequencies: Tensor
    transmitters: Tensor
    receivers: Tensor
    grid: VoxelGrid
    dtype: torch.dtype = field(default=torch.complex64)

    def __post_init__(self) -> None:
        f = _checks.inexact("frequencies", self.frequencies)
        if f.ndim != 1 or f.numel() == 0:
            raise ValueError(f"frequencies must have shape (K,) with K >= 1, got {tuple(f.shape)}")
        _checks.positive("frequencies", f)
        for name in ("transmitters", "receivers"):
            p = _checks.inexact(name, getattr(self, name))
            if p.ndim != 2 or p.shape[1] != 3 or p.shape[0] == 0 or p.is_complex():
                raise ValueError(f"{name} must be real positions of shape (n, 3), got {p.dtype} {tuple(p.shape)}")
            object.__setattr__(self, name, p.to(torch.float64))
        object.__setattr__(self, "frequencies", f.to(torch.float64))
        if not isinstance(self.grid, VoxelGrid):
            raise TypeError(f"grid must be a VoxelGrid, got {type(self.grid).__name__}")
        if self.dtype not in _PHASE_TOLERANCE:
            raise TypeError(f"dtype must be torch.complex64 or torch.complex128, got {self.dtype}")
        nearest = float(self._distances.min())
        if nearest < 1e-9:
            raise ValueError("a voxel of grid lies on an antenna (distance 0), where the Born kernel is infinite; "
                             "move the grid or the array")
        if not self._evenly_spaced:
            warnings.warn(f"the {f.numel()} frequencies are not evenly spaced, so each needs its own propagator table: "
                          f"{f.numel()} times the memory", UserWarning, stacklevel=3)

    @classmethod
    def crossed(cls, shape: tuple[int, int, int] = (25, 25, 49), n_frequencies: int = 20,
                dtype: torch.dtype = torch.complex64) -> Self:
        """The published geometry: `crossed_array`, 4 to 16 GHz, scene of 0.3 m a side, 0.35 to 0.65 m away.

        The paper uses 25 x 25 x 49 voxels and 5 to 40 frequencies.
        """
        _checks.count("n_frequencies", n_frequencies, low=1)
        grid = VoxelGrid.box((-0.15, -0.15, 0.35), (0.15, 0.15, 0.65), shape)
        return cls(torch.linspace(4e9, 16e9, n_frequencies, dtype=torch.float64), *crossed_array(), grid, dtype)

    @property
    def domain(self) -> Space:
        """Volumes ``(X, Y, Z)``."""
        return Space(self.grid.shape, self.dtype)

    @property
    def codomain(self) -> Space:
        """Measurements ``(K, T, R)``."""
        return Space((self.frequencies.numel(), self.transmitters.shape[0], self.receivers.shape[0]), self.dtype)

    def backprojection(self, y: Complex[Tensor, "..."]) -> Complex[Tensor, "..."]:
        """Delay and sum: ``sum_kTR y exp(+j k (d_T + d_R))``, the adjoint without the loss of amplitude."""
        y = self._check_measurements(y)
        return self._contract(y, self._tables(torch.ones_like(self._distances)))

    def kirchhoff(self, y: Complex[Tensor, "..."]) -> Complex[Tensor, "..."]:
        """Kirchhoff migration for MIMO arrays.

        The kernel ``4 (z/d_T)(z/d_R) [d_T d_R (jk)^2 + (d_T + d_R) jk + 1] exp(jk(d_T + d_R)) / (4 d_T d_R)`` factors
        into ``h(d_T) h(d_R)``, ``h(d) = (z/d^2)(1 + jkd) exp(jkd)``, with z the depth of the voxel before the antenna.
        The two terms of h act as two antennas at one place, so one adjoint with twice the antennas computes the sum.
        """
        y = self._check_measurements(y)
        d = self._distances
        depth = (self.grid.points()[:, 2] - torch.cat((self.transmitters, self.receivers))[:, 2:]).abs()
        t = self.transmitters.shape[0]
        near, far = depth / d**2, depth / d
        amplitudes = torch.cat((near[:t], far[:t], near[t:], far[t:]))
        jk = (1j * self._wavenumbers).to(self.dtype)[:, None, None]
        rows = torch.cat((y, jk * y), dim=-2)
        twice = torch.cat((rows, jk * rows), dim=-1)
        return self._contract(twice, self._tables(amplitudes, torch.cat((d[:t], d[:t], d[t:], d[t:])), 2 * t))

    def mean_diagonal(self) -> float:
        """Mean entry of the diagonal of ``A^H A``, the scale against which a quadratic penalty must be weighed."""
        energy = 1 / (4 * math.pi * self._distances**2)
        t = self.transmitters.shape[0]
        return self.frequencies.numel() * float((energy[:t].sum(0) * energy[t:].sum(0)).mean())

    def to(self, device: torch.device | str) -> BornMIMO:
        """The same operator on another device."""
        grid = VoxelGrid(self.grid.x.to(device), self.grid.y.to(device), self.grid.z.to(device))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # this operator has said already that its spacing is uneven
            return BornMIMO(self.frequencies.to(device), self.transmitters.to(device), self.receivers.to(device), grid,
                            self.dtype)

    def _forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, math.prod(self.in_shape))
        return linear(flat, *_maps(self._propagators)).reshape(*x.shape[:x.ndim - 3], *self.out_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._contract(y, self._propagators)

    def _contract(self, y: Tensor, tables: BornTables) -> Tensor:
        flat = y.reshape(-1, *y.shape[-3:])
        return linear(flat, *reversed(_maps(tables))).reshape(*y.shape[:-3], *self.in_shape)

    def _check_measurements(self, y: Tensor) -> Tensor:
        _checks.trailing_shape("y", _checks.inexact("y", y), self.out_shape)
        _checks.same_dtype("y", y, self.dtype)
        return y

    @cached_property
    def _propagators(self) -> BornTables:
        return self._tables(1 / (math.sqrt(4 * math.pi) * self._distances))

    def _tables(self, amplitudes: Tensor, distances: Tensor | None = None,
                transmitters: int | None = None) -> BornTables:
        return born_tables(self._wavenumbers, self._distances if distances is None else distances, amplitudes,
                           self.transmitters.shape[0] if transmitters is None else transmitters,
                           evenly_spaced=self._evenly_spaced, dtype=self.dtype.to_real())

    @cached_property
    def _distances(self) -> Tensor:
        # Differences first: the expansion |a|^2 + |b|^2 - 2ab, cdist's default for many points, loses half the digits.
        return torch.cdist(torch.cat((self.transmitters, self.receivers)), self.grid.points(),
                           compute_mode="donot_use_mm_for_euclid_dist")

    @property
    def _wavenumbers(self) -> Tensor:
        return 2 * math.pi / SPEED_OF_LIGHT * self.frequencies

    @cached_property
    def _evenly_spaced(self) -> bool:
        k = self._wavenumbers
        line = torch.linspace(float(k[0]), float(k[-1]), k.numel(), dtype=k.dtype, device=k.device)
        return float((k - line).abs().max() * self._distances.max()) <= _PHASE_TOLERANCE[self.dtype]


def _maps(tables: BornTables) -> tuple[Map, Map]:
    """The compiled map and its adjoint."""
    return partial(kernels.born_forward, tables=tables), partial(kernels.born_adjoint, tables=tables)
