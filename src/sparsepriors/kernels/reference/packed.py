"""Products with packed weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparsepriors.kernels.chw import PackedCHW
from sparsepriors.kernels.packed_nm import PackedNM

_CHUNK_ENTRIES = 1 << 22  # entries of the largest intermediate

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


def nm_linear(x: Tensor, packed: PackedNM) -> Tensor:
    """A linear layer with packed N:M weights: ``y[..., r] = bias[r] + sum_t values[r, t] x[..., column[r, t]]``.

    Parameters
    ----------
    x
        ``(..., in_features)``, float32 or bfloat16.
    packed
        The weight and bias.

    Returns
    -------
    Tensor
        ``(..., out_features)``, of the dtype of ``x``, summed in float32.
    """
    values, places = packed.unpacked()
    columns = places + torch.arange(places.shape[1], device=places.device) // packed.n * packed.m
    rows = x.reshape(-1, packed.in_features).float()
    y = rows.new_empty((rows.shape[0], packed.out_features))
    per_chunk = max(1, _CHUNK_ENTRIES // max(1, rows.shape[0] * values.shape[1]))
    for first in range(0, packed.out_features, per_chunk):
        part = slice(first, first + per_chunk)
        y[:, part] = (rows[:, columns[part]] * values[part].float()).sum(-1)
    if packed.bias is not None:
        y += packed.bias
    return y.to(x.dtype).reshape(*x.shape[:-1], packed.out_features)
