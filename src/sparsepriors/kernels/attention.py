"""Packing the keys and values of an attention cache as bitmaps, and attention that reads them packed.

On the CPU the compiled kernels run, on CUDA devices those in `triton_bitmap` where Triton is installed (packing is
plain PyTorch there), else the references.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels import bitmap, reference
from sparsepriors.kernels.bitmap import SLACK, TILE, BitmapTensor
from sparsepriors.kernels.dispatch import code_path

_ALL = 2**63 - 1  # channels to keep: more than there can be


def pack_bitmap(x: Float[Tensor, "batch heads tokens channels"], orientation: str, keep: int | None = None,
                pad: int = 1, *, instruction_set: str | None = None) -> BitmapTensor:
    """Pack keys or values, and prune them first if ``keep`` is given.

    Parameters
    ----------
    x
        ``(batch, heads, tokens, channels)``, float32, float16 or bfloat16; tokens a multiple of 64.
    orientation
        ``"key"`` for what is multiplied along its channels, ``"value"`` for what is multiplied along its tokens.
    keep
        How many channels of largest magnitude stay of every token and head, ties to the lower channel; by default all
        nonzeros are packed as they are. Of the channels that stay, zeros take no memory.
    pad
        The values of every tile are filled up to a multiple of this, 1 or 8.
    instruction_set
        One of `instruction_sets`, by default the first.

    Raises
    ------
    FloatingPointError
        If there are entries to rank and one is NaN.
    TypeError, ValueError
        If the tensor, ``keep`` or ``pad`` are not as described, or a head would hold more than 2^31 values.
    """
    if not isinstance(x, Tensor) or x.dtype not in bitmap.DTYPES:
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x must be {', '.join(map(str, bitmap.DTYPES))}, got {got}")
    if x.ndim != 4 or x.shape[2] % TILE:
        raise ValueError(f"x must be (batch, heads, tokens, channels) with a multiple of {TILE} tokens, "
                         f"got shape {tuple(x.shape)}")
    _checks.one_of("orientation", orientation, bitmap.ORIENTATIONS)
    bitmap.check_pad(pad)
    if keep is not None:
        _checks.count("keep", keep, high=x.shape[3])
    path = code_path(instruction_set)
    x = x.detach()
    native = bitmap.compiled(x)
    if native is not None:
        parts = _pack(native, x, orientation, keep, pad, path)
    else:
        if keep is not None:
            _no_nan(bool(torch.isnan(x).any()))
        parts = reference.pack_bitmap(x, orientation, keep, pad)
    return BitmapTensor.trusted(*parts, shape=tuple(x.shape), orientation=orientation, pad=pad)


def _pack(native: ModuleType, x: Tensor, orientation: str, keep: int | None, pad: int,
          path: str) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, tokens, channels = x.shape
    rows, blocks, by_channel = batch * heads, tokens // TILE, orientation == "key"
    dense, threads = x.reshape(rows, tokens, channels).contiguous(), torch.get_num_threads()
    words = torch.empty((rows, blocks, channels if by_channel else bitmap.whole_tiles(channels)), dtype=torch.int64)
    counts = torch.empty((rows, blocks), dtype=torch.int32)
    _no_nan(native.bitmap_mark(dense, _ALL if keep is None else keep, pad, by_channel, words, counts, threads, path))
    ends = counts.cumsum(dim=1)
    used = int(ends[:, -1].max()) if ends.numel() else 0
    bitmap.check_offset(used)
    offsets = torch.zeros((rows, blocks + 1), dtype=torch.int32)
    offsets[:, 1:] = ends
    values = x.new_zeros((rows, used + SLACK))
    native.bitmap_fill(dense, pad, by_channel, words, offsets, values, threads, path)
    return words, offsets, values


def bitmap_scores(q: Float[Tensor, "batch query_heads channels"], keys: BitmapTensor, *,
                  instruction_set: str | None = None) -> Float[Tensor, "batch query_heads tokens"]:
    """Products of queries with packed keys: ``scores[b, h, t] = q[b, h] · keys[b, h // group, t]``, in float32.

    Parameters
    ----------
    q
        ``(batch, query_heads, channels)``, any of float32, float16, bfloat16. Query heads are a multiple of the heads
        of the keys; neighbours share a head, and each tile is expanded once for all of them. Several queries of a
        sequence may stand where heads do, grouped by the head that they read.
    keys
        Packed with orientation ``"key"``.
    instruction_set
        One of `instruction_sets`, by default the first.

    Raises
    ------
    TypeError, ValueError
        If the two do not fit.
    """
    _packed("keys", keys, "key")
    _heads("q", q, keys, keys.shape[3], "channels")
    path = code_path(instruction_set)
    native = bitmap.compiled(q, keys)
    if native is None:
        return _plain_or_triton(q).bitmap_scores(q, keys)
    out = torch.empty((*q.shape[:2], keys.shape[2]), dtype=torch.float32)
    native.bitmap_scores(_floats(q), bitmap.compiled_view(native, keys), out, torch.get_num_threads(), path)
    return out


def bitmap_mix(weights: Float[Tensor, "batch query_heads tokens"], values: BitmapTensor, *,
               instruction_set: str | None = None) -> Float[Tensor, "batch query_heads channels"]:
    """Packed values mixed by weights: ``mix[b, h] = sum_t weights[b, h, t] values[b, h // group, t]``, in float32.

    Parameters
    ----------
    weights
        ``(batch, query_heads, tokens)``, any of float32, float16, bfloat16, for example after the softmax.
    values
        Packed with orientation ``"value"``.
    instruction_set
        One of `instruction_sets`, by default the first.

    Raises
    ------
    TypeError, ValueError
        If the two do not fit.
    """
    _packed("values", values, "value")
    _heads("weights", weights, values, values.shape[2], "tokens")
    path = code_path(instruction_set)
    native = bitmap.compiled(weights, values)
    if native is None:
        return _plain_or_triton(weights).bitmap_mix(weights, values)
    out = torch.empty((*weights.shape[:2], values.shape[3]), dtype=torch.float32)
    native.bitmap_mix(_floats(weights), bitmap.compiled_view(native, values), out, torch.get_num_threads(), path)
    return out


def bitmap_attention(q: Float[Tensor, "batch query_heads channels"], keys: BitmapTensor, values: BitmapTensor,
                     recent_keys: Float[Tensor, "batch heads recent channels"],
                     recent_values: Float[Tensor, "batch heads recent channels"], scale: float,
                     mask: Shaped[Tensor, "batch some_heads all_tokens"] | None = None, *,
                     instruction_set: str | None = None) -> Float[Tensor, "batch query_heads channels"]:
    """Attention of one query per head over packed tokens and the dense ones after them, with one softmax in float32.

    Parameters
    ----------
    q
        ``(batch, query_heads, channels)``, as in `bitmap_scores`.
    keys, values
        The packed tokens.
    recent_keys, recent_values
        ``(batch, heads, recent, channels)``, of the dtype of the packed ones.
    scale
        What the scores are multiplied by, commonly ``channels ** -0.5``.
    mask
        ``(batch, 1 or query_heads, tokens + recent)``: True where a token is attended to, or numbers to add to the
        scaled scores. A query that attends to nothing gets zeros.
    instruction_set
        One of `instruction_sets`, by default the first.

    Returns
    -------
    Tensor
        ``(batch, query_heads, channels)`` of the dtype of q.

    Raises
    ------
    TypeError, ValueError
        If the tensors do not fit.
    """
    _packed("keys", keys, "key")
    _packed("values", values, "value")
    if keys.shape[:3] != values.shape[:3] or keys.dtype != values.dtype or keys.device != values.device:
        raise ValueError(f"values must be packed like the keys, {tuple(keys.shape[:3])} {keys.dtype} on {keys.device}, "
                         f"got {tuple(values.shape[:3])} {values.dtype} on {values.device}")
    _heads("q", q, keys, keys.shape[3], "channels")
    recent = recent_keys.shape[2] if isinstance(recent_keys, Tensor) and recent_keys.ndim == 4 else 0
    for name, t, packed in (("recent_keys", recent_keys, keys), ("recent_values", recent_values, values)):
        wanted = (*packed.shape[:2], recent, packed.shape[3])
        if not isinstance(t, Tensor) or tuple(t.shape) != wanted:
            raise ValueError(f"{name} must have shape {wanted}, got "
                             f"{tuple(t.shape) if isinstance(t, Tensor) else type(t).__name__}")
        if t.dtype != packed.dtype or t.device != packed.device:
            raise TypeError(f"{name} must be {packed.dtype} on {packed.device}, as the packed ones are, got {t.dtype} "
                            f"on {t.device}")
    if mask is not None:
        wide = keys.shape[2] + recent
        if not isinstance(mask, Tensor) or mask.ndim != 3 or mask.shape[0] != q.shape[0] or mask.shape[2] != wide \
                or mask.shape[1] not in (1, q.shape[1]):
            raise ValueError(f"mask must have shape ({q.shape[0]}, 1 or {q.shape[1]}, {wide}), got "
                             f"{tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__}")
        if mask.dtype != torch.bool and not mask.is_floating_point():
            raise TypeError(f"mask must be boolean or floating point, got {mask.dtype}")
    path = code_path(instruction_set)
    native = bitmap.compiled(q, keys, values, recent_keys, recent_values)
    if native is None:
        return _plain_or_triton(q).bitmap_attention(q, keys, values, recent_keys, recent_values, scale, mask)
    if mask is not None and mask.dtype == torch.bool:
        added = torch.zeros(mask.shape).masked_fill_(~mask, -torch.inf)
    else:
        added = None if mask is None else _floats(mask)
    recent_parts = (t.detach().flatten(0, 1).contiguous() for t in (recent_keys, recent_values))
    out = torch.empty((*q.shape[:2], values.shape[3]), dtype=torch.float32)
    views = (bitmap.compiled_view(native, packed) for packed in (keys, values))
    native.bitmap_attention(_floats(q) * scale, *views, *recent_parts, added, out, torch.get_num_threads(), path)
    return out.to(q.dtype)


def _plain_or_triton(x: Tensor) -> ModuleType:
    """Who computes where the compiled kernels do not: Triton on CUDA devices if it is there, else the references."""
    if x.device.type == "cuda" and find_spec("triton") is not None:
        return import_module("sparsepriors.kernels.triton_bitmap")
    return reference


def _floats(x: Tensor) -> Tensor:
    return x.detach().float().contiguous()


def _no_nan(found: bool) -> None:
    if found:
        raise FloatingPointError("x holds NaN entries, which have no rank")


def _packed(name: str, packed: object, orientation: str) -> None:
    if not isinstance(packed, BitmapTensor):
        raise TypeError(f"{name} must be a BitmapTensor, got {type(packed).__name__}")
    if packed.orientation != orientation:
        raise ValueError(f"{name} must be packed with orientation {orientation!r}, got {packed.orientation!r}")


def _heads(name: str, x: object, packed: BitmapTensor, last: int, axis: str) -> None:
    if not isinstance(x, Tensor) or x.dtype not in bitmap.DTYPES:
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} must be {', '.join(map(str, bitmap.DTYPES))}, got {got}")
    batch, heads = packed.shape[:2]
    if x.ndim != 3 or x.shape[0] != batch or x.shape[2] != last or (x.shape[1] % heads if heads else x.shape[1]):
        raise ValueError(f"{name} must have shape ({batch}, a multiple of {heads} heads, {last} {axis}), "
                         f"got {tuple(x.shape)}")
    if x.device != packed.device:
        raise ValueError(f"{name} must be on {packed.device}, as the packed data are, got {x.device}")
