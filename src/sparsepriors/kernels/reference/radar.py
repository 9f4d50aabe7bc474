"""The Born operator and its adjoint."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsepriors.kernels.formats import BornTables

_CHUNK_ENTRIES = 1 << 22  # complex entries of the largest intermediate, 32 MiB in complex64

def born_forward(x: Tensor, tables: BornTables) -> Tensor:
    """Measurements of a scene: ``y[b, k, t, r] = sum_v x[b, v] g[k, t, v] g[k, r, v]``.

    Parameters
    ----------
    x
        ``(batch, voxels)``, complex of the tables' precision.
    tables
        Propagators.

    Returns
    -------
    Tensor
        ``(batch, frequencies, transmitters, receivers)``.
    """
    y = x.new_zeros((x.shape[0], tables.frequencies, tables.transmitters, tables.receivers))
    for voxels, propagators in _chunks(tables, x.shape[0]):
        part = x[:, None, voxels]
        for k, g in propagators:
            y[:, k] += g[:tables.transmitters] @ (part * g[tables.transmitters:]).mT
    return y


def born_adjoint(y: Tensor, tables: BornTables) -> Tensor:
    """Adjoint of `born_forward`: ``x[b, v] = sum_ktr conj(g[k, t, v] g[k, r, v]) y[b, k, t, r]``.

    Parameters
    ----------
    y
        ``(batch, frequencies, transmitters, receivers)``, complex of the tables' precision.
    tables
        Propagators.

    Returns
    -------
    Tensor
        ``(batch, voxels)``.
    """
    x = y.new_zeros((y.shape[0], tables.voxels))
    for voxels, propagators in _chunks(tables, y.shape[0]):
        for k, g in propagators:
            x[:, voxels] += ((y[:, k].conj() @ g[tables.transmitters:]) * g[:tables.transmitters]).sum(dim=1).conj()
    return x


def _chunks(tables: BornTables, batch: int):
    """Slices of voxels, each with the pairs (k, propagators of all antennas to these voxels)."""
    _, tiles, antennas, _, tile = tables.base.shape
    per_chunk = max(1, _CHUNK_ENTRIES // (antennas * tile * max(batch, 1)))
    for first in range(0, tiles, per_chunk):
        last = min(first + per_chunk, tiles)
        voxels = slice(first * tile, min(last * tile, tables.voxels))
        yield voxels, _propagators(tables, slice(first, last), voxels.stop - voxels.start)


def _propagators(tables: BornTables, tiles: slice, voxels: int):
    ratio = _planar(tables.ratio[tiles], voxels)
    for s, base in enumerate(tables.base):
        g = _planar(base[tiles], voxels)
        for k in range(s * tables.segment, min((s + 1) * tables.segment, tables.frequencies)):
            yield k, g
            g = g * ratio


def _planar(table: Tensor, voxels: int) -> Tensor:
    """``(tiles, antennas, 2, tile)`` reals as ``(antennas, voxels)`` complex numbers."""
    real, imag = table.permute(2, 1, 0, 3).flatten(2)[..., :voxels].unbind(0)
    return torch.complex(real.contiguous(), imag.contiguous())
