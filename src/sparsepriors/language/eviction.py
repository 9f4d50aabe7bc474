"""Caches that drop whole tokens for good: the newest with attention sinks, heavy hitters, and a cut of the prompt.

- StreamingLLM: Xiao, Tian, Chen, Han, Lewis, Efficient Streaming Language Models with Attention Sinks, ICLR 2024.
- H2O: Zhang et al., H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models, NeurIPS 2023.
- SnapKV: Li et al., SnapKV: LLM Knows What You are Looking for Before Generation, NeurIPS 2024.

Keys keep the positions that they were rotated to.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sparsepriors import _checks, kernels
from sparsepriors.language.attention import attend, attention_weights
from sparsepriors.language.cache_base import SparseCache, SparseLayer, bytes_of
from sparsepriors.language.selected import SelectedLayer, selected_attention
from sparsepriors.priors.tokens import AttentionSinkWindow, HeavyHitter, TokenSelector


class EvictingLayer(SelectedLayer):
    """A layer that holds the picks of its selector for the next query and nothing else.

    Right only for selectors that never come back to a token that they passed over once.
    """

    is_croppable = False

    def __init__(self, index: int, selector: TokenSelector) -> None:
        super().__init__(index, selector)
        self._places: Tensor | None = None   # (batch, groups, held): positions of what is held, ascending
        self._next: Tensor | None = None     # what the next query attends to

    def _pick(self, query: Tensor, key: Tensor, scaling: float) -> Tensor:
        assert self._next is not None
        return self._next

    def _fetch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        assert self._places is not None
        return self._store.gather(self._found(index))

    def _keep(self, key: Tensor, value: Tensor) -> None:
        super()._keep(key, value)
        assert self._history is not None
        new = torch.arange(self._history.tokens - key.shape[2], self._history.tokens, device=key.device)
        new = new.expand(key.shape[0], self._history.groups, -1)
        self._places = (new if self._places is None else torch.cat([self._places, new], dim=-1)).contiguous()
        self._next = self.selector.select(self._history)
        # Where sequences differ in length the shorter ones are filled up with -1, which belongs in front of new tokens.
        hold = self._hold(self._next).sort(dim=-1).values
        if hold.shape[-1] >= self._places.shape[-1]:
            return
        at = self._found(hold)
        kept = self._store.gather(at)
        self._store.clear()
        self._store.append(*kept)
        self._places = torch.where(hold < 0, -1, self._places.gather(-1, at))

    def _hold(self, picks: Tensor) -> Tensor:
        """What is kept once these are the next picks."""
        return picks

    def _found(self, index: Tensor) -> Tensor:
        """Where positions are held."""
        assert self._places is not None
        return torch.searchsorted(self._places, index.contiguous()).clamp(max=self._places.shape[-1] - 1)

    def _replay(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None,
                prefill: int) -> Tensor:
        first = slice(0, prefill)
        prompt = self._prompt(query[:, :, first], key[:, :, first], value[:, :, first], scaling,
                              None if mask is None else mask[:, :, first, first])
        assert self._history is not None
        rest = selected_attention(query[:, :, prefill:], key, value, scaling, self.selector, self._history)
        self._store.clear()
        self._places = None
        self._keep(key, value)
        return torch.cat([prompt, rest], dim=2)

    def _select(self, rows: Tensor) -> None:
        super()._select(rows)
        assert self._places is not None
        assert self._next is not None
        self._places, self._next = self._places[rows], self._next[rows]

    def _crop(self, count: int) -> None:
        raise ValueError("tokens that were evicted do not come back, so this cache cannot be cropped")

    def _clear(self) -> None:
        super()._clear()
        self._places = self._next = None

    def nbytes(self) -> int:
        """Bytes of what is held, where it stood, and the sums that the selector looks at."""
        return super().nbytes() + bytes_of((self._places,))


class StreamingLayer(EvictingLayer):
    """Sinks and the newest tokens, and one more: where the budget grows by two, the window reaches one back."""

    def __init__(self, index: int, selector: AttentionSinkWindow) -> None:
        super().__init__(index, selector)
        self._sinks = selector.sinks

    def _hold(self, picks: Tensor) -> Tensor:
        if int((picks >= 0).sum(dim=-1).min()) <= self._sinks:   # the budget has no room for all sinks yet
            assert self._places is not None
            return self._places
        before = picks[..., self._sinks:self._sinks + 1] - 1   # the newest token before the window
        return torch.cat([picks, before], dim=-1)


class StreamingCache(SparseCache):
    """StreamingLLM: the first tokens and the newest, at a budget that is a share of the text so far.

    Parameters
    ----------
    config
        The model's configuration.
    ratio
        Share of the tokens that is kept, in (0, 1].
    sinks
        How many first tokens are kept.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    """

    def __init__(self, config: Any, ratio: float, *, sinks: int = 4) -> None:
        selector = AttentionSinkWindow(ratio, sinks)
        super().__init__(config, lambda i: StreamingLayer(i, selector))


class H2OCache(SparseCache):
    """H2O: in each head half of the budget for the newest tokens, half for those with the most attention so far.

    The budget is a share of the text so far; the published code sets it once, from the length of the prompt.

    Parameters
    ----------
    config
        The model's configuration.
    ratio
        Share of the tokens that is kept, in (0, 1].

    Raises
    ------
    TypeError, ValueError
        If the ratio is not as described.
    """

    def __init__(self, config: Any, ratio: float) -> None:
        selector = HeavyHitter(ratio)
        super().__init__(config, lambda i: EvictingLayer(i, selector))


class SnapKVCache(SparseCache):
    """SnapKV: of the prompt, the tokens that its last queries attend to; tokens that are decoded all stay.

    The attention of the last ``window`` queries is averaged over the heads that share keys and over neighbouring
    tokens; each head keeps the tokens with most of it, and the window itself.

    Parameters
    ----------
    config
        The model's configuration.
    ratio
        Share of the prompt that is kept, in (0, 1]; never less than the window and one token.
    window
        Last queries of the prompt.
    kernel
        Neighbouring tokens that are averaged over, an odd number.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    """

    def __init__(self, config: Any, ratio: float, *, window: int = 32, kernel: int = 7) -> None:
        _checks.positive("ratio", ratio)
        if ratio > 1:
            raise ValueError(f"ratio must be in (0, 1], got {ratio}")
        _checks.count("window", window, low=1)
        if _checks.count("kernel", kernel, low=1) % 2 == 0:
            raise ValueError(f"kernel must be odd, got {kernel}")
        super().__init__(config, lambda i: SnapKVLayer(i, ratio, window, kernel))


class SnapKVLayer(SparseLayer):
    """One layer of a `SnapKVCache`."""

    def __init__(self, index: int, ratio: float, window: int, kernel: int) -> None:
        super().__init__(index)
        self.ratio, self.window, self.kernel = ratio, window, kernel
        self._places: Tensor | None = None   # (batch, kv_heads, kept): where the kept tokens of the prompt stood
        self._prompt = 0

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None) -> Tensor:
        new = query.shape[2]
        if self._places is None:
            self._cut(query, key, value, scaling, mask)
            return attend(query, key, value, scaling, mask, causal=mask is None and new > 1)
        assert self.keys is not None
        assert self.values is not None
        self.keys, self.values = torch.cat([self.keys, key], dim=2), torch.cat([self.values, value], dim=2)
        if mask is not None:
            groups = query.shape[1] // key.shape[1]
            at = self._places[:, :, None].expand(-1, -1, new, -1)
            old = mask[..., :self._prompt].expand(*at.shape[:3], -1).gather(-1, at).repeat_interleave(groups, dim=1)
            mask = torch.cat([old, mask[..., self._prompt:].expand(*old.shape[:3], -1)], dim=-1)
        return attend(query, self.keys, self.values, scaling, mask)

    def _cut(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None) -> None:
        """Keep the share of the prompt."""
        total = key.shape[2]
        window = min(self.window, total)
        count = min(total - window, max(1, round(self.ratio * total) - window))
        self._prompt = total
        places = torch.arange(total, device=key.device)
        last = places[total - window:]
        seen = (places <= last[:, None])[None, None] if mask is None else mask[:, :, -window:]
        rows = attention_weights(query[:, :, -window:], key, scaling, seen).mean(dim=2).sum(dim=2)
        pooled = functional.avg_pool1d(rows, self.kernel, stride=1, padding=self.kernel // 2)[..., :total - window]
        chosen = kernels.topk_mask(pooled, count).nonzero()[:, -1].reshape(*pooled.shape[:2], count)
        self._places = torch.cat([chosen, last.expand(*chosen.shape[:2], -1)], dim=-1)
        at = self._places[..., None].expand(-1, -1, -1, key.shape[3])
        self.keys, self.values = key.gather(2, at), value.gather(2, at)

    def _replay(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None,
                prefill: int) -> Tensor:
        total = query.shape[2]
        seen = torch.ones(total, total, dtype=torch.bool, device=query.device).tril()[None, None]
        seen = seen.expand(query.shape[0], -1, -1, -1) if mask is None else mask
        first, rest = slice(0, prefill), slice(prefill, total)
        prompt = self._attend(query[:, :, first], key[:, :, first], value[:, :, first], scaling,
                              None if mask is None else mask[:, :, first, first])
        # Nothing more is dropped, so that all other tokens are one causal chunk.
        return torch.cat([prompt, self._attend(query[:, :, rest], key[:, :, rest], value[:, :, rest], scaling,
                                               seen[:, :, rest])], dim=2)

    def _select(self, rows: Tensor) -> None:
        assert self.keys is not None
        assert self.values is not None
        assert self._places is not None
        self.keys, self.values, self._places = self.keys[rows], self.values[rows], self._places[rows]

    def _crop(self, count: int) -> None:
        if count > self._seen - self._prompt:
            raise ValueError(f"the prompt of {self._prompt} tokens was cut and does not come back, so at most "
                             f"{self._seen - self._prompt} tokens can be cropped, got {count}")
        assert self.keys is not None
        assert self.values is not None
        if count:
            self.keys, self.values = self.keys[:, :, :-count], self.values[:, :, :-count]

    def _clear(self) -> None:
        self.keys = self.values = self._places = None
        self._prompt = 0

    def nbytes(self) -> int:
        """Bytes of keys and values, and of where those of the prompt stood."""
        return bytes_of((self.keys, self.values, self._places))
