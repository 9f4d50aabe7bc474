"""The product with a packed N:M weight in Triton, for tensors on a CUDA device (or any, in Triton's interpreter).

Few rows of x stream the weight once and gather from x, which the caches hold; many rows unpack tiles of the weight into
shared memory and multiply them by matrix instructions.
"""

# What Triton compiles is typed as its compiler sees it, which is not what Python passes.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

from sparsepriors.kernels.packed_nm import ROWS, PackedNM

FEW = 8
"""Most rows of x that gather; more of them multiply tiles."""

_PAIRS = 128  # of one step of a gathering program
_TILE = (32, 64, 64)  # rows of x, outputs and inputs of a tile product


def nm_linear(x: Tensor, packed: PackedNM) -> Tensor:
    """As `reference.nm_linear`, for ``x`` of shape ``(rows, in_features)``, contiguous and not empty."""
    rows = x.shape[0]
    y = x.new_empty((rows, packed.out_features))
    shape = (rows, packed.out_features, packed.in_features, packed.pairs)
    apart = (ROWS, 1) if packed.values.dtype == torch.float32 else (1, 2)
    bias = packed.values if packed.bias is None else packed.bias  # a pointer that is not followed
    fixed = {"N": packed.n, "M": packed.m, "BITS": packed.bits, "APART_H": apart[0], "APART_R": apart[1],
             "BIAS": packed.bias is not None}
    if rows <= FEW:
        _gather[(packed.panels,)](x, packed.values, packed.places, bias, y, *shape, **fixed, LANES=ROWS,
                                  BLOCK=triton.next_power_of_2(rows), PAIRS=_PAIRS)
    else:
        block, outputs, inputs = _TILE
        # The interpreter's dot takes the bits of bfloat16 for integers; in float32 the products are the same.
        exact = x.dtype == packed.values.dtype == torch.bfloat16 and not knobs.runtime.interpret
        grid = (triton.cdiv(rows, block), triton.cdiv(packed.out_features, outputs))
        _tiles[grid](x, packed.values, packed.places, bias, y, *shape, **fixed, LANES=ROWS, BLOCK=block,
                     OUTPUTS=outputs, INPUTS=inputs, DTYPE=tl.bfloat16 if exact else tl.float32)
    return y


@triton.jit
def _place(places, record, row, half, BITS: tl.constexpr, wanted):
    """Column within its group of value ``half`` of lane ``row`` of a record."""
    bit = BITS * (2 * row + half)
    at = places + record * (4 * BITS) + bit // 8
    low = tl.load(at, mask=wanted, other=0).to(tl.int32)
    high = tl.load(at + 1, mask=wanted, other=0).to(tl.int32)
    return ((low | (high << 8)) >> (bit % 8)) & ((1 << BITS) - 1)


@triton.jit
def _gather(x, values, places, bias, y, rows, outputs, inputs, pairs,
            N: tl.constexpr, M: tl.constexpr, BITS: tl.constexpr, APART_H: tl.constexpr, APART_R: tl.constexpr,
            BIAS: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr, PAIRS: tl.constexpr):
    panel = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, LANES)[None, :]
    row = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, LANES), tl.float32)
    for first in range(0, pairs, PAIRS):
        pair = first + tl.arange(0, PAIRS)[:, None]
        stored = (pair < pairs) & (lane < LANES)
        record = panel * pairs + pair
        for half in tl.static_range(2):
            value = tl.load(values + record * (2 * LANES) + half * APART_H + lane * APART_R, mask=stored, other=0.0)
            column = (2 * pair + half) // N * M + _place(places, record, lane, half, BITS, stored)
            met = stored & (column < inputs)
            entry = tl.load(x + row[:, None, None] * inputs + column[None], other=0.0,
                            mask=met[None] & (row[:, None, None] < rows))
            total += tl.sum(entry.to(tl.float32) * value.to(tl.float32)[None], axis=1)
    output = panel * LANES + lane
    if BIAS:
        total += tl.load(bias + output, mask=output < outputs, other=0.0)
    tl.store(y + row[:, None] * outputs + output, total.to(y.dtype.element_ty),
             mask=(row[:, None] < rows) & (output < outputs))


@triton.jit
def _tiles(x, values, places, bias, y, rows, outputs, inputs, pairs,
           N: tl.constexpr, M: tl.constexpr, BITS: tl.constexpr, APART_H: tl.constexpr, APART_R: tl.constexpr,
           BIAS: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr, OUTPUTS: tl.constexpr,
           INPUTS: tl.constexpr, DTYPE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
    output = tl.program_id(1).to(tl.int64) * OUTPUTS + tl.arange(0, OUTPUTS)[None, :]
    lane = output % LANES
    total = tl.zeros((BLOCK, OUTPUTS), tl.float32)
    for first in range(0, inputs, INPUTS):
        column = first + tl.arange(0, INPUTS)
        within = (column < inputs)[:, None] & (output < outputs)
        weight = tl.zeros((INPUTS, OUTPUTS), tl.float32)
        for term in range(N):
            stored = ((column // M) * N + term)[:, None]
            record = output // LANES * pairs + stored // 2
            place = _place(places, record, lane, stored % 2, BITS, within)
            value = tl.load(values + record * (2 * LANES) + stored % 2 * APART_H + lane * APART_R,
                            mask=within & (place == (column % M)[:, None]), other=0.0)
            weight += value.to(tl.float32)
        entry = tl.load(x + row * inputs + column[None, :], mask=(row < rows) & (column < inputs)[None, :], other=0.0)
        total = tl.dot(entry.to(DTYPE), weight.to(DTYPE), total, input_precision="ieee")
    if BIAS:
        total += tl.load(bias + output, mask=output < outputs, other=0.0)
    tl.store(y + row * outputs + output, total.to(y.dtype.element_ty), mask=(row < rows) & (output < outputs))
