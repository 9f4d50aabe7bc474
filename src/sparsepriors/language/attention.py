"""Attention that a cache computes itself, inside any model of transformers whose attention can be chosen by name.

A model of transformers hands new keys and values to its cache and then calls an attention function, which does not see
the cache. `sparse_kv` binds each layer of a cache to the attention module of the same number for as long as it is
entered, and chooses the function registered here as ``"sparsepriors"``; that one lets the bound layer attend, in
whatever form the layer keeps its tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from sparsepriors.language.cache_base import SparseCache

NAME = "sparsepriors"
"""Name of the attention function in transformers."""

_BOUND = "_sparse_kv"
_NOT_PLAIN = ("softcap", "position_bias", "s_aux")   # what some models change about the softmax


def bound_attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
                    scaling: float | None = None, dropout: float = 0.0, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """The attention function in the form that transformers calls.

    The layer bound to ``module`` attends if it was just handed ``key``; a forward pass without the cache, as in
    training, is dense.

    Raises
    ------
    NotImplementedError
        If the model changes the softmax, as Gemma 2 does with its soft cap.
    """
    layer = getattr(module, _BOUND, None)
    if layer is None or not layer.holds(key):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling,
                                      **kwargs)
    asked = [name for name in _NOT_PLAIN if kwargs.get(name) is not None]
    if asked:
        raise NotImplementedError(f"layer {layer.index} asks for attention with {', '.join(asked)}; sparse caches "
                                  f"compute the plain softmax")
    out = layer.attend(query, attention_mask, query.shape[-1] ** -0.5 if scaling is None else scaling)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, bound_attention)
# The mask of all tokens that were ever seen, by their place in the text; a layer takes the columns that it kept.
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def sparse_kv(model: nn.Module, cache: SparseCache) -> Iterator[SparseCache]:
    """Let ``cache`` attend in ``model``: ``with sparse_kv(model, cache): model.generate(..., cache=cache)``.

    Inside, every pass that is handed ``cache`` uses it; at the end, after an exception too, the model is as before.
    Contexts nest; the inner one counts. Threads share the model and therefore the context.

    Raises
    ------
    TypeError
        If the model is not one of transformers, or the cache is not one of ours.
    ValueError
        If the model's attention modules are not as many as the cache has layers.
    """
    from transformers import PreTrainedModel

    from sparsepriors.language.cache_base import SparseCache

    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"model must be a transformers.PreTrainedModel, got {type(model).__name__}")
    if not isinstance(cache, SparseCache):
        raise TypeError(f"cache must be a SparseCache, such as MustafarCache(model.config), got {type(cache).__name__}")
    modules = attention_modules(model)
    if len(modules) != len(cache.layers):
        raise ValueError(f"cache has {len(cache.layers)} layers and the model {len(modules)} attention modules; "
                         f"make the cache of this model's config")
    before = [(m, m.__dict__.get(_BOUND)) for m in modules]
    depths = [layer.bound for layer in cache.layers]
    implementation = model.config._attn_implementation or "eager"   # what transformers does without a choice
    try:
        for module, layer in zip(modules, cache.layers, strict=True):
            module.__dict__[_BOUND] = layer
            layer.bound += 1
        model.set_attn_implementation(NAME)
        with cache.joined(model):
            yield cache
    finally:
        model.set_attn_implementation(implementation)
        for module, layer in before:
            if layer is None:
                module.__dict__.pop(_BOUND, None)
            else:
                module.__dict__[_BOUND] = layer
        for layer, depth in zip(cache.layers, depths, strict=True):
            layer.bound = depth
            layer.forget_pending()


def attention_modules(model: nn.Module) -> list[nn.Module]:
    """The modules of self-attention in the order of their layers.

    Raises
    ------
    ValueError
        If two modules claim the same layer, or a layer is missing.
    """
    found = [m for m in model.modules() if isinstance(getattr(m, "layer_idx", None), int) and hasattr(m, "is_causal")]
    found.sort(key=lambda m: int(m.layer_idx))   # pyright: ignore[reportArgumentType]
    if [m.layer_idx for m in found] != list(range(len(found))):
        raise ValueError(f"attention modules must be numbered 0, 1, ..., got {[m.layer_idx for m in found]}")
    return found


def attend(query: Float[Tensor, "batch heads queries dim"], key: Float[Tensor, "batch kv_heads tokens dim"],
           value: Float[Tensor, "batch kv_heads tokens dim"], scaling: float,
           mask: Bool[Tensor, "#batch #heads queries tokens"] | None = None, *,
           causal: bool = False) -> Float[Tensor, "batch heads queries dim"]:
    """Dense attention ``softmax(scaling q k') v``; groups of query heads share a key and value head.

    Parameters
    ----------
    query, key, value
        Already rotated; ``heads`` is a multiple of ``kv_heads``.
    scaling
        Factor of the logits.
    mask
        True where a query may look; a query that may look nowhere gets zeros.
    causal
        Query i sees token j <= i, instead of a mask.
    """
    groups = query.shape[1] // key.shape[1]
    batch, heads, queries, _ = query.shape
    if groups > 1 and queries == 1 and (mask is None or mask.shape[1] == 1):   # the heads of a group as queries
        out = functional.scaled_dot_product_attention(
            query.reshape(batch, heads // groups, groups, -1), key, value, scale=scaling, attn_mask=mask)
        return out.reshape(batch, heads, 1, -1)
    if groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, scale=scaling)


def attention_weights(query: Float[Tensor, "batch heads queries dim"], key: Float[Tensor, "batch kv_heads tokens dim"],
                      scaling: float, mask: Bool[Tensor, "#batch #heads queries tokens"] | None = None,
                      ) -> Float[Tensor, "batch kv_heads groups queries tokens"]:
    """The softmax rows of each query head, in float32, or float64 where the keys are.

    Rows of queries that may look nowhere are zero. Sum over ``groups`` for the rows of a key head, over both head axes
    for the head-summed rows.
    """
    return softmax_rows(grouped_scores(query, key) * scaling, mask)


def grouped_scores(query: Tensor, key: Tensor) -> Tensor:
    """Products of every query head with the keys of its group: ``(batch, kv_heads, groups, queries, tokens)``."""
    batch, heads, queries, dim = query.shape
    kv_heads = key.shape[1]
    flat = query.reshape(batch, kv_heads, heads // kv_heads * queries, dim) @ key.mT
    return flat.reshape(batch, kv_heads, heads // kv_heads, queries, key.shape[2])


def softmax_rows(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax in at least single precision; ``mask`` is ``(batch, heads or 1, queries, tokens)``, True where seen."""
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if mask is None:
        return scores.softmax(dim=-1)
    per_head = mask.shape[1] > 1
    mask = mask.reshape(-1, *scores.shape[1:3], *mask.shape[-2:]) if per_head else mask[:, :, None]
    return scores.masked_fill(~mask, -math.inf).softmax(dim=-1).nan_to_num(0.0)


def mix(weights: Float[Tensor, "batch kv_heads groups queries tokens"],
        value: Float[Tensor, "batch kv_heads tokens dim"]) -> Float[Tensor, "batch heads queries dim"]:
    """Values weighted by rows of `attention_weights`."""
    batch, kv_heads, groups, queries, tokens = weights.shape
    out = weights.to(value.dtype).reshape(batch, kv_heads, groups * queries, tokens) @ value
    return out.reshape(batch, kv_heads * groups, queries, value.shape[-1])
