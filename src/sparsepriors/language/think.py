"""ThinK: whole channels of the cached keys are dropped, the same for all tokens.

Xu, Jie, Dong, Wang, Lu, Zhou, Saha, Xiong, Sahoo: ThinK: Thinner Key Cache by Query-Driven Pruning, ICLR 2025,
arXiv:2407.21018; for values as in Mustafar (arXiv:2505.22913), which compares with it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.language.attention import attention_weights, grouped_scores, mix, softmax_rows
from sparsepriors.language.blockwise import BlockwiseLayer, Prefix
from sparsepriors.language.cache_base import SparseCache, bytes_of
from sparsepriors.priors.kv import ChannelStructured

QUERIES = 32   # the last of the prompt, by which channels are ranked


class ThinKCache(SparseCache):
    """Keys, and values if asked, without the channels that matter least to the last queries of the prompt.

    The channels of each layer and head are chosen once, after the prompt, by the mean square of the keys times that of
    the last 32 queries (of values, weighted by the attention that tokens receive from them). Tokens are cut when they
    leave the window. What is kept is a smaller dense matrix.

    Parameters
    ----------
    config
        The model's configuration.
    key_sparsity, value_sparsity
        Share of the channels that is dropped, in [0, 1).
    window
        Newest tokens that keep all channels.
    block
        Tokens that are cut together.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    """

    def __init__(self, config: Any, key_sparsity: float = 0.0, value_sparsity: float = 0.0, *, window: int = 32,
                 block: int = 64) -> None:
        for name, sparsity in (("key_sparsity", key_sparsity), ("value_sparsity", value_sparsity)):
            if _checks.nonnegative_number(name, sparsity) >= 1:
                raise ValueError(f"{name} must be in [0, 1), got {sparsity}")
        super().__init__(config, lambda i: ThinKLayer(i, key_sparsity, value_sparsity, window=window, block=block))


class ThinKLayer(BlockwiseLayer):
    """One layer of a `ThinKCache`."""

    def __init__(self, index: int, key_sparsity: float, value_sparsity: float, *, window: int, block: int) -> None:
        super().__init__(index, window=window, block=block)
        self._rules = tuple(ChannelStructured(1 - s) for s in (key_sparsity, value_sparsity))
        self._channels: tuple[Tensor, Tensor] | None = None   # (batch, kv_heads, kept), ascending

    def _begin(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None) -> None:
        last = query[:, :, -QUERIES:]
        squares = last.square().unflatten(1, (key.shape[1], -1)).mean(dim=(2, 3))[:, :, None]
        if mask is None:
            places = torch.arange(key.shape[2], device=key.device)
            seen = (places <= places[-last.shape[2]:, None])[None, None]
        else:
            seen = mask[:, :, -last.shape[2]:]
            key = torch.where(seen[:, :, -1, :, None], key, 0)   # pads say nothing of the channels
        received = attention_weights(last, key, scaling, seen).sum(dim=(2, 3)).to(value.dtype)
        kept = [rule.mask(rule.importance(x, **told))[..., 0, :] for rule, x, told in zip(
            self._rules, (key, value), ({"queries": squares}, {"attention": received.square()}), strict=True)]
        self._channels = tuple(k.nonzero()[:, -1].reshape(*k.shape[:2], -1) for k in kept)   # pyright: ignore[reportAttributeAccessIssue]

    def _new_prefix(self) -> Prefix:
        assert self._channels is not None
        return ThinPrefix(*self._channels)

    def _squeeze(self, key: Tensor, value: Tensor, queries: Tensor | None,
                 attention: Tensor | None) -> tuple[Tensor, Tensor]:
        assert self._channels is not None
        key, value = (torch.zeros_like(x).scatter(-1, index, x.gather(-1, index)) for x, index in (
            (x, _along(c, x)) for x, c in zip((key, value), self._channels, strict=True)))
        return key, value

    def _select(self, rows: Tensor) -> None:
        super()._select(rows)
        if self._channels is not None:
            self._channels = (self._channels[0][rows], self._channels[1][rows])

    def _clear(self) -> None:
        super()._clear()
        self._channels = None

    def nbytes(self) -> int:
        """Bytes of the kept channels, the dense rest, and which channels they are."""
        return super().nbytes() + bytes_of(self._channels or ())


class ThinPrefix(Prefix):
    """The kept channels of compressed tokens, side by side."""

    def __init__(self, key_channels: Tensor, value_channels: Tensor) -> None:
        self._channels = (key_channels, value_channels)
        self._pair: tuple[Tensor, Tensor] | None = None
        self._dim = 0

    def append(self, key: Tensor, value: Tensor) -> None:
        self._dim = key.shape[-1]
        new = [x.gather(-1, _along(c, x)) for x, c in zip((key, value), self._channels, strict=True)]
        if self._pair is not None:
            new = [torch.cat([old, x], dim=2) for old, x in zip(self._pair, new, strict=True)]
        self._pair = (new[0], new[1])

    def dense(self) -> tuple[Tensor, Tensor]:
        assert self._pair is not None
        key, value = (x.new_zeros((*x.shape[:3], self._dim)).scatter(-1, _along(c, x), x)
                      for x, c in zip(self._pair, self._channels, strict=True))
        return key, value

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None) -> Tensor:
        assert self._pair is not None
        old_key, old_value = self._pair
        batch, heads, queries, dim = query.shape
        per_head = query.reshape(batch, key.shape[1], -1, dim)
        thin = per_head.gather(-1, _along(self._channels[0], per_head)).reshape(batch, heads, queries, -1)
        scores = torch.cat([grouped_scores(thin, old_key), grouped_scores(query, key)], dim=-1)
        weights = softmax_rows(scores * scaling, mask)
        old = old_key.shape[2]
        out = mix(weights[..., old:], value).reshape(batch, key.shape[1], -1, dim)
        mixed = mix(weights[..., :old], old_value).reshape(*out.shape[:3], -1)
        return out.scatter_add(-1, _along(self._channels[1], out), mixed).reshape(batch, heads, queries, dim)

    def select(self, rows: Tensor) -> None:
        assert self._pair is not None
        self._pair = (self._pair[0][rows], self._pair[1][rows])
        self._channels = (self._channels[0][rows], self._channels[1][rows])

    def crop(self, tokens: int) -> None:
        assert self._pair is not None
        self._pair = (self._pair[0][:, :, :tokens].clone(), self._pair[1][:, :, :tokens].clone())

    def nbytes(self) -> int:
        return bytes_of(self._pair or ())


def _along(channels: Tensor, x: Tensor) -> Tensor:
    """Channels ``(batch, kv_heads, kept)`` as an index into the last axis of ``x`` (batch, kv_heads, rows, dim)."""
    return channels[:, :, None].expand(-1, -1, x.shape[2], -1)
