"""The kernels in plain PyTorch: any device, bounded memory, and the meaning that compiled ones must reproduce."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparsepriors._norms import euclidean
from sparsepriors.kernels.chw import PackedCHW
from sparsepriors.kernels.differences import differences, differences_adjoint, onto_bound
from sparsepriors.kernels.formats import BornTables

_GAP_EVERY = 10  # iterations between two looks at the duality gap
_MOMENTUM = 4.0
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


def topk_mask(scores: Tensor, k: int) -> Tensor:
    """The ``k`` largest of the last axis by a stable sort, so that ties go to the lower index."""
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    return torch.zeros(scores.shape, dtype=torch.bool, device=scores.device).scatter_(-1, order[..., :k], True)


def nm_mask(scores: Tensor, n: int, m: int) -> Tensor:
    """The ``n`` largest of every ``m`` consecutive scores of the last axis."""
    return topk_mask(scores.reshape(*scores.shape[:-1], scores.shape[-1] // m, m), n).reshape(scores.shape)


def spmm_chw(x: Tensor, packed: PackedCHW, lo: float = -math.inf, hi: float = math.inf,
             out: Tensor | None = None) -> Tensor:
    """``clamp(W x + bias, lo, hi)`` at every pixel, from the stored weights only.

    Parameters
    ----------
    x
        ``(batch, channels, *pixels)``.
    packed
        Weights and bias.
    lo, hi
        Bounds of the result.
    out
        Where the result goes, ``(batch, outputs, *pixels)``.

    Returns
    -------
    Tensor
        ``(batch, outputs, *pixels)``.
    """
    planes = x.flatten(2)
    y = packed.bias[:, None].expand(x.shape[0], packed.outputs, planes.shape[2]).clone()
    per_chunk = max(1, _CHUNK_ENTRIES // max(1, planes.shape[0] * planes.shape[2]))
    for rows, columns, values in zip(*(t.split(per_chunk) for t in packed.entries()), strict=True):
        y = y.index_add(1, rows, values[:, None] * planes[:, columns])
    y = y.clamp(lo, hi).reshape(x.shape[0], packed.outputs, *x.shape[2:])
    return y if out is None else out.copy_(y)


def tv_prox(x: Tensor, bound: Tensor, p: Tensor, isotropic: bool, tol: float,
            max_iter: int) -> tuple[Tensor, Tensor, Tensor]:
    """The proximal operator of total variation by its dual: min ||x - D^T p||^2 / 2 over |p| <= bound.

    The accelerated projected gradient method with Chambolle and Dossal's momentum and restarts, from ``p`` until the
    gap is at most ``tol`` times the primal objective or ``max_iter`` iterations are made, for every unknown by itself.

    Parameters
    ----------
    x
        ``(n, *spatial)``, real or complex, of order one.
    bound
        ``(n,)``, nonnegative.
    p
        ``(n, d, *spatial)``, where the iteration starts, ``|p| <= bound``.
    isotropic
        Whether |p| joins the directions by the Euclidean norm, or bounds each.
    tol, max_iter
        When to stop.

    Returns
    -------
    tuple
        The proximal points ``x - D^T p``, the dual points, and the relative gaps (float64).
    """
    n, d = x.shape[0], x.ndim - 1
    t = bound.reshape(-1, *(1,) * d)
    p = torch.where(t[:, None] > 0, p, 0)
    done, gaps = p.clone(), torch.zeros(n, device=x.device, dtype=torch.float64)
    active = torch.arange(n, device=x.device)
    rest, q, since = x, p, x.new_zeros(n, *(1,) * (d + 1), dtype=t.dtype)
    for iteration in range(max_iter + 1):
        if iteration % _GAP_EVERY == 0 or iteration == max_iter:
            gap = _relative_gap(rest, t, p, isotropic)
            left = (gap > tol) & (iteration < max_iter)
            done = done.index_copy(0, active[~left], p[~left])
            gaps[active[~left]] = gap[~left]
            active, rest, t, p, q, since = active[left], rest[left], t[left], p[left], q[left], since[left]
            if not active.numel():
                break
        u = rest - differences_adjoint(q, d)
        new = onto_bound(q + differences(u, d) / (4 * d), t[:, None], isotropic)
        move = new - p
        uphill = ((q - new).conj() * move).real.detach().sum(dim=tuple(range(1, d + 2)), keepdim=True) > 0
        q = torch.where(uphill, new, new + since / (since + 1 + _MOMENTUM) * move)
        since = torch.where(uphill, 0.0, since + 1)
        p = new
    return x - differences_adjoint(done, d), done, gaps


@torch.no_grad()
def _relative_gap(x: Tensor, t: Tensor, p: Tensor, isotropic: bool) -> Tensor:
    d = x.ndim - 1
    axes = tuple(range(1, d + 1))
    u = x - differences_adjoint(p, d)
    du = differences(u, d)
    sizes = euclidean(du, (1,)) if isotropic else du.abs().sum(dim=1)
    gap = (t * sizes - (du.conj() * p).real.sum(dim=1)).sum(dim=axes, dtype=torch.float64)
    primal = (t * sizes + 0.5 * (u - x).abs().square()).sum(dim=axes, dtype=torch.float64)
    # Differences smaller than the rounding of x itself carry no information.
    floor = torch.finfo(x.dtype).eps ** 2 * x.abs().square().sum(dim=axes, dtype=torch.float64)
    return torch.where(gap <= floor, 0.0, gap / primal)
