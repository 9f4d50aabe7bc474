"""Attention over packed bitmaps in Triton, for tensors on a CUDA device (or any, in Triton's interpreter).

Blocks are loaded as they are packed and multiplied as dense matrices: the place of an entry among the values is the
start of its tile, from the sum of the counts before it, and the number of bits below its own.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsepriors.kernels.bitmap import BitmapTensor

_PIECE = 8  # blocks that one program reads, where their results are summed
_HEADS = (16, 64)  # least and most query heads of a program: a matrix product has 16 rows at least


def bitmap_scores(q: Tensor, keys: BitmapTensor) -> Tensor:
    """As `reference.bitmap_scores`."""
    batch, query_heads, channels = q.shape
    out = q.new_empty((batch, query_heads, keys.shape[2]), dtype=torch.float32)
    group, lanes, chunks = _groups(query_heads, keys)
    if out.numel():
        _scores[(batch * keys.shape[1], keys.blocks, chunks)](
            q.float().contiguous(), *_pointers(keys), out, keys.blocks, group, channels,
            **_constants(PAD=keys.pad, G=lanes, KEYS=_lanes(channels)))
    return out


def bitmap_mix(weights: Tensor, values: BitmapTensor) -> Tensor:
    """As `reference.bitmap_mix`: sums of pieces of 512 tokens, added in their order."""
    batch, query_heads, _ = weights.shape
    heads, tiles, pieces = values.shape[1], values.tiles, triton.cdiv(values.blocks, _PIECE)
    group, lanes, chunks = _groups(query_heads, values)
    sums = weights.new_empty((batch * heads, pieces, group, tiles), dtype=torch.float32)
    if sums.numel():
        _mix[(batch * heads, pieces, chunks)](
            weights.float().contiguous(), *_pointers(values), sums, values.blocks, group, tiles,
            **_constants(PAD=values.pad, G=lanes, VALUES=_lanes(tiles), PIECE=_PIECE))
    return sums.sum(dim=1).reshape(batch, query_heads, tiles)[..., :values.shape[3]].contiguous()


def bitmap_attention(q: Tensor, keys: BitmapTensor, values: BitmapTensor, recent_keys: Tensor, recent_values: Tensor,
                     scale: float, mask: Tensor | None) -> Tensor:
    """As `reference.bitmap_attention`: pieces of 512 packed tokens and the dense ones, each under its own maximum."""
    batch, query_heads, channels = q.shape
    heads, tiles, pieces, tokens = values.shape[1], values.tiles, triton.cdiv(keys.blocks, _PIECE), keys.shape[2]
    group, lanes, chunks = _groups(query_heads, keys)
    rows = batch * heads
    scaled = (q.float() * scale).contiguous()
    added = scaled.new_empty(0) if mask is None else _added(mask, query_heads)
    all_tokens = tokens + recent_keys.shape[2]
    mixed = scaled.new_empty((rows, pieces, group, tiles))
    largest, sums = (scaled.new_empty((rows, pieces, group)) for _ in "ms")
    if mixed.numel():
        _attend[(rows, pieces, chunks)](
            scaled, *_pointers(keys), *_pointers(values), added, mixed, largest, sums, keys.blocks, group, channels,
            tiles, all_tokens,
            **_constants(MASKED=mask is not None, PAD_K=keys.pad, PAD_V=values.pad, G=lanes, KEYS=_lanes(channels),
                         VALUES=_lanes(tiles), PIECE=_PIECE))
    mixed = mixed[..., :values.shape[3]]
    if recent_keys.shape[2]:
        scores = scaled.reshape(rows, group, channels) @ recent_keys.float().flatten(0, 1).mT
        if mask is not None:
            scores = scores + added[..., tokens:].reshape(scores.shape)
        top = scores.amax(dim=-1)
        weights = torch.exp(scores - _finite(top)[..., None])
        mixed = torch.cat((mixed, (weights @ recent_values.float().flatten(0, 1))[:, None]), dim=1)
        largest, sums = (torch.cat((a, b[:, None]), dim=1) for a, b in ((largest, top), (sums, weights.sum(dim=-1))))
    if not mixed.shape[1]:
        return torch.zeros_like(q[..., :1]).expand(batch, query_heads, values.shape[3]).contiguous()
    factors = torch.exp(largest - _finite(largest.amax(dim=1, keepdim=True)))
    total = (factors * sums).sum(dim=1)
    out = (factors[..., None] * mixed).sum(dim=1) / torch.where(total == 0, 1.0, total)[..., None]
    return out.reshape(batch, query_heads, values.shape[3]).to(q.dtype)


def _added(mask: Tensor, query_heads: int) -> Tensor:
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -torch.inf)
    return mask.float().expand(-1, query_heads, -1).contiguous()


def _finite(top: Tensor) -> Tensor:
    """What is subtracted before exponentials: 0 where everything is masked."""
    return torch.where(top == -torch.inf, 0.0, top)


def _groups(query_heads: int, packed: BitmapTensor) -> tuple[int, int, int]:
    """Query heads of a head, those of a program, and how many programs share a head."""
    group = query_heads // max(packed.shape[1], 1)
    lanes = min(max(triton.next_power_of_2(max(group, 1)), _HEADS[0]), _HEADS[1])
    return group, lanes, triton.cdiv(group, lanes)


def _constants(**values: int) -> dict[str, Any]:
    """What a kernel is compiled for: places need many registers, dense blocks much shared memory."""
    return {**values, "num_warps": 8, "num_stages": 1}


def _lanes(channels: int) -> int:
    return max(triton.next_power_of_2(channels), 16)


def _pointers(packed: BitmapTensor) -> tuple[Tensor, Tensor, Tensor, int, int, int]:
    """The three tensors and how far their rows lie apart."""
    bitmap, offsets, values = packed.bitmap, packed.offsets, packed.values
    return bitmap, offsets, values, bitmap.stride(0), offsets.stride(0), values.stride(0)


@triton.jit
def _ones(word):
    """How many bits of 64 are set."""
    word = (word & 0x5555555555555555) + ((word >> 1) & 0x5555555555555555)
    word = (word & 0x3333333333333333) + ((word >> 2) & 0x3333333333333333)
    word = (word & 0x0F0F0F0F0F0F0F0F) + ((word >> 4) & 0x0F0F0F0F0F0F0F0F)
    word = word + (word >> 8)
    word = word + (word >> 16)
    word = word + (word >> 32)
    return (word & 0x7F).to(tl.int32)


@triton.jit
def _below(word, entry):
    """The bits of a word below that of an entry."""
    return word & ((tl.full(entry.shape, 1, tl.int64) << entry.to(tl.int64)) - 1)


@triton.jit
def _keys(words, values, start, channels, PAD: tl.constexpr, KEYS: tl.constexpr):
    """The block of keys whose words begin here, (channels, tokens) in float32."""
    channel = tl.arange(0, KEYS)
    word = tl.load(words + channel, mask=channel < channels, other=0)
    count = (_ones(word) + PAD - 1) // PAD * PAD
    begin = start + tl.cumsum(count, 0) - count
    token = tl.arange(0, 64)[None, :]
    stored = ((word[:, None] >> token.to(tl.int64)) & 1) == 1
    place = begin[:, None] + _ones(_below(word[:, None], token))
    return tl.load(values + place, mask=stored, other=0.0).to(tl.float32)


@triton.jit
def _values(words, values, start, tiles, PAD: tl.constexpr, VALUES: tl.constexpr):
    """The block of values whose words begin here, (tokens, channels) in float32."""
    channel = tl.arange(0, VALUES)[None, :]
    token = tl.arange(0, 64)[:, None]
    entry = channel % 64
    word = tl.load(words + channel // 64 * 64 + token, mask=channel < tiles, other=0)
    count = (_ones(word) + PAD - 1) // PAD * PAD
    column = tl.expand_dims(tl.sum(count, 0), 0)
    before = (tl.cumsum(column, 1) - column * (entry + 1)) // 64  # each column of words is met by its 64 channels
    begin = start + before + tl.cumsum(count, 0) - count
    stored = ((word >> entry.to(tl.int64)) & 1) == 1
    return tl.load(values + begin + _ones(_below(word, entry)), mask=stored, other=0.0).to(tl.float32)


@triton.jit
def _scores(q, words, offsets, values, words_apart, offsets_apart, values_apart, out, blocks, group, channels,
            PAD: tl.constexpr, G: tl.constexpr, KEYS: tl.constexpr):
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    head = tl.program_id(2) * G + tl.arange(0, G)[:, None]
    channel = tl.arange(0, KEYS)[None, :]
    queries = tl.load(q + (row * group + head) * channels + channel, mask=(head < group) & (channel < channels),
                      other=0.0)
    start = tl.load(offsets + row * offsets_apart + block)
    keys = _keys(words + row * words_apart + block * channels, values + row * values_apart, start, channels, PAD, KEYS)
    at = out + (row * group + head) * (blocks * 64) + block * 64 + tl.arange(0, 64)[None, :]
    tl.store(at, tl.dot(queries, keys, input_precision="ieee"), mask=head < group)


@triton.jit
def _mix(weights, words, offsets, values, words_apart, offsets_apart, values_apart, out, blocks, group, tiles,
         PAD: tl.constexpr, G: tl.constexpr, VALUES: tl.constexpr, PIECE: tl.constexpr):
    row, piece = tl.program_id(0).to(tl.int64), tl.program_id(1)
    head = tl.program_id(2) * G + tl.arange(0, G)[:, None]
    total = tl.zeros((G, VALUES), tl.float32)
    for block in range(piece * PIECE, tl.minimum((piece + 1) * PIECE, blocks)):
        start = tl.load(offsets + row * offsets_apart + block)
        tile = _values(words + row * words_apart + block * tiles, values + row * values_apart, start, tiles, PAD,
                       VALUES)
        at = weights + (row * group + head) * (blocks * 64) + block * 64 + tl.arange(0, 64)[None, :]
        total = tl.dot(tl.load(at, mask=head < group, other=0.0), tile, total, input_precision="ieee")
    channel = tl.arange(0, VALUES)[None, :]
    at = out + ((row * tl.num_programs(1) + piece) * group + head) * tiles + channel
    tl.store(at, total, mask=(head < group) & (channel < tiles))


@triton.jit
def _attend(q, words_k, offsets_k, values_k, words_k_apart, offsets_k_apart, values_k_apart,
            words_v, offsets_v, values_v, words_v_apart, offsets_v_apart, values_v_apart,
            added, mixed, largest, sums, blocks, group, channels, tiles, all_tokens,
            MASKED: tl.constexpr, PAD_K: tl.constexpr, PAD_V: tl.constexpr, G: tl.constexpr, KEYS: tl.constexpr,
            VALUES: tl.constexpr, PIECE: tl.constexpr):
    row, piece = tl.program_id(0).to(tl.int64), tl.program_id(1)
    head = tl.program_id(2) * G + tl.arange(0, G)
    query = (row * group + head)[:, None]
    there = (head < group)[:, None]
    channel = tl.arange(0, KEYS)[None, :]
    queries = tl.load(q + query * channels + channel, mask=there & (channel < channels), other=0.0)
    top = tl.full((G,), float("-inf"), tl.float32)
    total = tl.zeros((G,), tl.float32)
    mix = tl.zeros((G, VALUES), tl.float32)
    for block in range(piece * PIECE, tl.minimum((piece + 1) * PIECE, blocks)):
        start_k = tl.load(offsets_k + row * offsets_k_apart + block)
        start_v = tl.load(offsets_v + row * offsets_v_apart + block)
        keys = _keys(words_k + row * words_k_apart + block * channels, values_k + row * values_k_apart, start_k,
                     channels, PAD_K, KEYS)
        scores = tl.dot(queries, keys, input_precision="ieee")
        if MASKED:
            at = added + query * all_tokens + block * 64 + tl.arange(0, 64)[None, :]
            scores += tl.load(at, mask=there, other=0.0)
        higher = tl.maximum(top, tl.max(scores, 1))
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp(scores - shift[:, None])
        shrink = tl.exp(top - shift)
        tile = _values(words_v + row * words_v_apart + block * tiles, values_v + row * values_v_apart, start_v, tiles,
                       PAD_V, VALUES)
        mix = tl.dot(weights, tile, mix * shrink[:, None], input_precision="ieee")
        total = total * shrink + tl.sum(weights, 1)
        top = higher
    part = (row * tl.num_programs(1) + piece) * group + head
    value = tl.arange(0, VALUES)[None, :]
    tl.store(mixed + part[:, None] * tiles + value, mix, mask=there & (value < tiles))
    tl.store(largest + part, top, mask=head < group)
    tl.store(sums + part, total, mask=head < group)
