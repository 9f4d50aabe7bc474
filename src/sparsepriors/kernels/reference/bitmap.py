"""Bitmaps of keys and values, and attention over them."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsepriors.kernels import bitmap
from sparsepriors.kernels.bitmap import SLACK, TILE, BitmapTensor
from sparsepriors.kernels.reference.masks import topk_mask


def pack_bitmap(x: Tensor, orientation: str, keep: int | None, pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """The bitmap, offsets and values of a `BitmapTensor` of what is left of ``x``.

    Parameters
    ----------
    x
        ``(batch, heads, tokens, channels)``, tokens a multiple of 64.
    orientation
        ``"key"``: a tile is one channel of 64 tokens. ``"value"``: 64 channels of one token.
    keep
        How many channels of largest magnitude stay of every token and head, ties to the lower; None for all nonzeros.
    pad
        The values of every tile are filled up to a multiple of this.
    """
    if keep is not None:
        x = torch.where(topk_mask(x.abs(), keep), x, 0)
    batch, heads, tokens, channels = x.shape
    blocked = x.reshape(batch * heads, tokens // TILE, TILE, channels)
    if orientation == "key":
        tiles = blocked.transpose(2, 3)
    else:
        filled = torch.nn.functional.pad(blocked, (0, -channels % TILE))
        tiles = filled.unflatten(3, (-1, TILE)).transpose(2, 3).flatten(2, 3)
    stored = tiles != 0
    words = (stored.long() << torch.arange(TILE, device=x.device)).sum(dim=-1)
    counts = bitmap.padded(stored.sum(dim=-1), pad)
    offsets = torch.nn.functional.pad(counts.sum(dim=-1).cumsum(dim=-1), (1, 0))
    used = int(offsets.max()) if offsets.numel() else 0
    bitmap.check_offset(used)
    values = x.new_zeros(batch * heads, used + SLACK)
    places = bitmap.tile_starts(words, offsets[:, :-1], pad)[..., None] + stored.cumsum(dim=-1) - 1
    rows = torch.arange(batch * heads, device=x.device)[:, None, None, None].expand(places.shape)
    values[rows[stored], places[stored]] = tiles[stored]
    return words, offsets.to(torch.int32), values


def bitmap_scores(q: Tensor, keys: BitmapTensor) -> Tensor:
    """Products of queries ``(batch, query_heads, channels)`` with packed keys, in float32.

    Returns
    -------
    Tensor
        ``(batch, query_heads, tokens)``; query heads in a row share a head of the keys.
    """
    return _per_group(q, keys, bitmap.unpacked(keys).mT)


def bitmap_mix(weights: Tensor, values: BitmapTensor) -> Tensor:
    """Packed values mixed by weights ``(batch, query_heads, tokens)``, in float32.

    Returns
    -------
    Tensor
        ``(batch, query_heads, channels)``; query heads in a row share a head of the values.
    """
    return _per_group(weights, values, bitmap.unpacked(values))


def _per_group(x: Tensor, packed: BitmapTensor, right: Tensor) -> Tensor:
    batch, query_heads, width = x.shape
    heads = packed.shape[1]
    grouped = x.float().reshape(batch, heads, query_heads // max(heads, 1), width)
    return (grouped @ right.float()).reshape(batch, query_heads, right.shape[3])


def bitmap_attention(q: Tensor, keys: BitmapTensor, values: BitmapTensor, recent_keys: Tensor, recent_values: Tensor,
                     scale: float, mask: Tensor | None) -> Tensor:
    """Attention over packed tokens and the dense ones after them: one softmax in float32 over both.

    Parameters
    ----------
    q
        ``(batch, query_heads, channels)``.
    keys, values
        The packed tokens.
    recent_keys, recent_values
        ``(batch, heads, recent, channels)``, the dense tokens.
    scale
        What the products are multiplied by.
    mask
        ``(batch, 1 or query_heads, tokens + recent)``: booleans, True where a token is attended to, or numbers to add.

    Returns
    -------
    Tensor
        ``(batch, query_heads, channels)`` of the dtype of q, zeros where every token is masked.
    """
    scores = torch.cat((bitmap_scores(q, keys), _per_group(q, keys, recent_keys.mT)), dim=-1) * scale
    if mask is not None:
        scores = torch.where(mask, scores, -torch.inf) if mask.dtype == torch.bool else scores + mask.float()
    top = scores.amax(dim=-1, keepdim=True) if scores.shape[-1] else scores.new_zeros((*scores.shape[:2], 1))
    weights = torch.exp(scores - torch.where(top == -torch.inf, 0.0, top))
    total = weights.sum(dim=-1, keepdim=True)
    weights = weights / torch.where(total == 0, 1.0, total)
    tokens = keys.shape[2]
    mixed = bitmap_mix(weights[..., :tokens], values) + _per_group(weights[..., tokens:], values, recent_values)
    return mixed.to(q.dtype)
