"""Packed data that kernels read: what is stored, in which order, and how it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels.packed import Packed

TILE = 96
"""Voxels per tile of `BornTables`: one tile's tables stay in the caches nearest to a core."""

SEGMENT = 32
"""Most frequencies that one phase recurrence spans before it starts again from a float64 value."""


@dataclass(frozen=True, eq=False)
class BornTables(Packed):
    """One-way propagators g[k, a, v] between antennas and voxels, as bases and ratios of neighbouring frequencies.

    ``g[s * segment + i, a, v] = base[s, :, a, :, :][v] * ratio[:, a, :, :][v] ** i``, voxels cut into tiles and the
    last tile filled with zeros. Real and imaginary parts lie apart, because vector instructions want them so.

    Attributes
    ----------
    base
        ``(segments, tiles, antennas, 2, tile)``, float32 or float64; the transmitters come first.
    ratio
        ``(tiles, antennas, 2, tile)``.
    voxels, transmitters, receivers, frequencies, segment
        Counts; ``segment`` frequencies share one base.
    """

    base: Tensor
    ratio: Tensor
    voxels: int
    transmitters: int
    receivers: int
    frequencies: int
    segment: int

    def __post_init__(self) -> None:
        if self.base.ndim != 5 or self.ratio.ndim != 4 or self.base.shape[1:] != self.ratio.shape:
            raise ValueError(f"base and ratio must have 5 and 4 axes and agree in shape, got "
                             f"{tuple(self.base.shape)} and {tuple(self.ratio.shape)}")


def born_tables(wavenumbers: Tensor, distances: Tensor, amplitudes: Tensor, transmitters: int, *,
                evenly_spaced: bool, dtype: torch.dtype, tile: int = TILE) -> BornTables:
    """Tables of ``g[k, a, v] = amplitudes[a, v] * exp(-1j * wavenumbers[k] * distances[a, v])``.

    Phases are computed in float64 and rounded once. With evenly spaced wavenumbers a base every `SEGMENT` frequencies
    and one ratio suffice; otherwise every frequency has its own base, which costs K times the memory.

    Parameters
    ----------
    wavenumbers
        ``(K,)`` float64, 1/m.
    distances, amplitudes
        ``(antennas, voxels)`` float64, m and arbitrary units.
    transmitters
        How many of the antennas transmit; they come first.
    evenly_spaced
        Whether ``wavenumbers[k] = wavenumbers[0] + k * step`` to rounding.
    dtype
        float32 or float64, of the tables.
    tile
        Voxels per tile, a multiple of 32.
    """
    antennas, voxels = distances.shape
    frequencies = wavenumbers.numel()
    segments = math.ceil(frequencies / SEGMENT) if evenly_spaced else frequencies
    segment = math.ceil(frequencies / segments)
    segments = math.ceil(frequencies / segment)
    step = (wavenumbers[-1] - wavenumbers[0]) / (frequencies - 1) if frequencies > 1 else wavenumbers.new_zeros(())
    tiles = math.ceil(voxels / tile)
    base = distances.new_zeros((segments, tiles, antennas, 2, tile), dtype=dtype)
    ratio = distances.new_zeros((tiles, antennas, 2, tile), dtype=dtype)

    def fill(out: Tensor, amplitude: Tensor | float, wavenumber: Tensor) -> None:
        phase = -wavenumber * distances
        for part, value in enumerate((torch.cos(phase), torch.sin(phase))):
            padded = distances.new_zeros((antennas, tiles * tile))
            padded[:, :voxels] = amplitude * value
            out[:, :, part] = padded.reshape(antennas, tiles, tile).transpose(0, 1)

    for s in range(segments):
        fill(base[s], amplitudes, wavenumbers[s * segment])
    if segment > 1:
        fill(ratio, 1.0, step)
    return BornTables(base, ratio, voxels, transmitters, antennas - transmitters, frequencies, segment)


@dataclass(frozen=True, eq=False)
class NMWeights(Packed):
    """Rows with at most n nonzeros in every m consecutive entries: n values per group, and where each of them stands.

    Attributes
    ----------
    values
        ``(..., groups * n)``.
    index
        Place within its group of each value, uint8, the shape of ``values``, increasing within a group. A group with
        fewer than n nonzeros also holds zeros, at its first free places.
    n, m
        The pattern; m is at most 256.
    """

    values: Tensor
    index: Tensor
    n: int
    m: int

    def __post_init__(self) -> None:
        _checks.count("m", self.m, low=1, high=256)
        _checks.count("n", self.n, low=1, high=self.m)
        if self.index.dtype != torch.uint8 or self.index.shape != self.values.shape or self.values.shape[-1] % self.n:
            raise ValueError(f"index must be uint8 and fill groups of n = {self.n} like the values, got "
                             f"{self.index.dtype} of shape {tuple(self.index.shape)} for values of shape "
                             f"{tuple(self.values.shape)}")
        if self.index.numel() and int(self.index.max()) >= self.m:
            raise ValueError(f"index must be below m = {self.m}, got {int(self.index.max())}")

    def dense(self) -> Tensor:
        """The rows that were packed, ``(..., groups * m)``."""
        values, index = (t.unflatten(-1, (-1, self.n)) for t in (self.values, self.index))
        out = values.new_zeros((*values.shape[:-1], self.m))
        return out.scatter_(-1, index.long(), values).flatten(-2)


def pack_nm(rows: Tensor, n: int, m: int) -> NMWeights:
    """Pack rows that are n:m sparse along the last axis.

    Parameters
    ----------
    rows
        ``(..., groups * m)``, of any dtype.
    n, m
        1 <= n <= m <= 256.

    Raises
    ------
    TypeError, ValueError
        If n and m are out of range, m does not divide the rows, or a group has more than n nonzeros (the message says
        which): project first.
    """
    _checks.count("m", m, low=1, high=256)
    _checks.count("n", n, low=1, high=m)
    if rows.ndim == 0 or rows.shape[-1] == 0 or rows.shape[-1] % m:
        raise ValueError(f"the last axis of rows must be a positive multiple of m = {m}, got shape {tuple(rows.shape)}")
    groups = rows.unflatten(-1, (-1, m))
    nonzero = groups != 0
    counts = nonzero.sum(-1)
    if bool((counts > n).any()):
        at = tuple((counts > n).nonzero()[0].tolist())
        raise ValueError(f"rows are not {n}:{m} sparse: group {at} has {int(counts[at])} nonzeros")
    # A stable sort of flags puts nonzeros before zeros and keeps the order of both.
    places = nonzero.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)[..., :n].sort(dim=-1).values
    return NMWeights(groups.gather(-1, places).flatten(-2), places.to(torch.uint8).flatten(-2), n, m)
