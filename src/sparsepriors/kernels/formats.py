"""Packed data that kernels read: what is stored, in which order, and how it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

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
