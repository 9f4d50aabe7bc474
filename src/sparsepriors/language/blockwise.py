"""Caches that keep the newest tokens as they are and compress the older ones, block by block.

After a prompt of T tokens the first C = floor((T - window) / block) * block are compressed; in decoding, a step attends
to the compressed tokens and to the dense rest, and then the oldest block of the rest is compressed as soon as window
tokens would stay after it. The dense rest thus has window to window + block - 1 tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.language.attention import attend, attention_weights, mix
from sparsepriors.language.cache_base import SparseLayer, bytes_of
from sparsepriors.priors.kv import window_sums

_QUERIES_AT_ONCE = 256   # of a replayed text, so that its mask stays small


class Prefix(ABC):
    """Compressed tokens of one layer, the oldest first."""

    @abstractmethod
    def append(self, key: Tensor, value: Tensor) -> None:
        """Add tokens ``(batch, kv_heads, tokens, dim)``, which the layer's rule has been over."""

    @abstractmethod
    def dense(self) -> tuple[Tensor, Tensor]:
        """Keys and values as attention sees them, each ``(batch, kv_heads, tokens, dim)``."""

    @abstractmethod
    def select(self, rows: Tensor) -> None:
        """Keep these entries of the batch."""

    @abstractmethod
    def crop(self, tokens: int) -> None:
        """Keep the first ``tokens``, a multiple of the block."""

    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of everything that is held."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None) -> Tensor:
        """Attention to the compressed tokens and then to dense ones, with one softmax over both."""
        old_key, old_value = self.dense()
        return attend(query, torch.cat([old_key, key], dim=2), torch.cat([old_value, value], dim=2), scaling, mask)


class DensePrefix(Prefix):
    """Compressed tokens written out, zeros and all: what a rule does to quality, not what it saves."""

    def __init__(self) -> None:
        self._pair: tuple[Tensor, Tensor] | None = None

    def append(self, key: Tensor, value: Tensor) -> None:
        if self._pair is not None:
            key, value = (torch.cat([old, new], dim=2) for old, new in zip(self._pair, (key, value), strict=True))
        self._pair = (key, value)

    def dense(self) -> tuple[Tensor, Tensor]:
        assert self._pair is not None
        return self._pair

    def select(self, rows: Tensor) -> None:
        self._pair = tuple(x[rows] for x in self.dense())   # pyright: ignore[reportAttributeAccessIssue]

    def crop(self, tokens: int) -> None:
        self._pair = tuple(x[:, :, :tokens] for x in self.dense())   # pyright: ignore[reportAttributeAccessIssue]

    def nbytes(self) -> int:
        return bytes_of(self.dense())


class BlockwiseLayer(SparseLayer):
    """Base of layers that compress what leaves the window.

    Parameters
    ----------
    index
        Number of the layer.
    window
        Newest tokens that are never compressed.
    block
        Tokens that are compressed together.
    queries
        If not 0, `_squeeze` is told the sums of moduli of so many queries from each token on.
    attention
        If not 0, `_squeeze` is told the attention that each token receives from so many queries from its own on.
    """

    def __init__(self, index: int, *, window: int, block: int, queries: int = 0, attention: int = 0) -> None:
        super().__init__(index)
        self.window = _checks.count("window", window)
        self.block = _checks.count("block", block, low=1)
        self._queries, self._attention = queries, attention
        self._prefix: Prefix | None = None
        self._compressed = 0
        self._moduli: Tensor | None = None    # (batch, kv_heads, rest, dim), of the queries of the dense rest
        self._received: Tensor | None = None  # (batch, kv_heads, rest), attention that the dense rest received

    @abstractmethod
    def _new_prefix(self) -> Prefix: ...

    @abstractmethod
    def _squeeze(self, key: Tensor, value: Tensor, queries: Tensor | None,
                 attention: Tensor | None) -> tuple[Tensor, Tensor]:
        """What tokens look like once compressed.

        Parameters
        ----------
        key, value
            ``(batch, kv_heads, tokens, dim)``; the first is at a multiple of the block.
        queries
            ``(batch, kv_heads, tokens or 1, dim)``, if the layer asked for them.
        attention
            ``(batch, kv_heads, tokens)``, if the layer asked for it.
        """

    def _restored(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """What attention sees of tokens that `_squeeze` made and the prefix stored; the same where that is exact."""
        return key, value

    def _begin(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None) -> None:
        """See the prompt, before anything is compressed; for rules that decide once."""

    def _due(self, seen: int) -> int:
        """How many tokens are compressed once so many were seen."""
        return max(seen - self.window, 0) // self.block * self.block

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None) -> Tensor:
        prompt = not self._seen
        if prompt:
            self._begin(query, key, value, scaling, mask)
        self.keys = key if self.keys is None else torch.cat([self.keys, key], dim=2)
        self.values = value if self.values is None else torch.cat([self.values, value], dim=2)
        self._note_queries(query, key.shape[1])
        if prompt:
            out = attend(query, key, value, scaling, mask, causal=mask is None and query.shape[2] > 1)
            rows = self._prompt_rows(query, key, scaling, mask) if self._attention else None
        elif self._attention:
            out, rows = self._attend_with_rows(query, scaling, mask)
        else:
            rows = None
            out = (attend(query, self.keys, self.values, scaling, mask) if self._prefix is None
                   else self._prefix.attend(query, self.keys, self.values, scaling, mask))
        if rows is not None:
            self._note_rows(rows, query.shape[2])
        self._compress(self._due(self._seen + query.shape[2]), prompt=rows if prompt else None, first=prompt)
        return out

    def _attend_with_rows(self, query: Tensor, scaling: float, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        assert self.keys is not None
        assert self.values is not None
        key, value = self.keys, self.values
        if self._prefix is not None:
            old_key, old_value = self._prefix.dense()
            key, value = torch.cat([old_key, key], dim=2), torch.cat([old_value, value], dim=2)
        weights = attention_weights(query, key, scaling, mask)
        return mix(weights, value), weights.sum(dim=2)

    def _prompt_rows(self, query: Tensor, key: Tensor, scaling: float, mask: Tensor | None) -> Tensor:
        """Attention rows of the last queries of a prompt: as many as may still count for a token of the rest."""
        count = min(query.shape[2], max(self._attention, self.window + self.block))
        seen = _causal(query.shape[2], query.device, query.shape[2] - count) if mask is None else mask[:, :, -count:]
        return attention_weights(query[:, :, -count:], key, scaling, seen).sum(dim=2)

    def _note_queries(self, query: Tensor, kv_heads: int) -> None:
        if not self._queries:
            return
        moduli = query.abs().unflatten(1, (kv_heads, -1)).sum(dim=2)
        self._moduli = moduli if self._moduli is None else torch.cat([self._moduli, moduli], dim=2)

    def _note_rows(self, rows: Tensor, new: int) -> None:
        """Add attention rows ``(batch, kv_heads, the last queries, tokens)`` to what the dense rest received."""
        total = self._seen + new
        first = self._compressed
        if self._received is None:
            self._received = rows.new_zeros((*rows.shape[:2], total - first))
        elif self._received.shape[2] < total - first:
            self._received = torch.nn.functional.pad(self._received, (0, total - first - self._received.shape[2]))
        asked = torch.arange(total - rows.shape[2], total, device=rows.device)[:, None]
        age = asked - torch.arange(first, total, device=rows.device)
        counts = (age >= 0) & (age < self._attention)
        self._received = self._received + (rows[..., first:] * counts).sum(dim=2)

    def _compress(self, due: int, *, prompt: Tensor | None, first: bool) -> None:
        count = due - self._compressed
        if count <= 0:
            return
        assert self.keys is not None
        assert self.values is not None
        queries = attention = None
        if self._moduli is not None:
            queries = (self._moduli[:, :, -self._queries:].sum(dim=2, keepdim=True) if first
                       else window_sums(self._moduli[:, :, :count + self._queries - 1], self._queries)[:, :, :count])
            self._moduli = self._moduli[:, :, count:]
        if self._received is not None:
            attention = self._received[:, :, :count] if prompt is None else (
                prompt[:, :, -self._attention:, :count].sum(dim=2))
            self._received = self._received[:, :, count:]
        key, value = self._squeeze(self.keys[:, :, :count], self.values[:, :, :count], queries, attention)
        self._prefix = self._prefix or self._new_prefix()
        self._prefix.append(key, value)
        # Copies: views would keep the memory of what was compressed.
        self.keys, self.values = self.keys[:, :, count:].clone(), self.values[:, :, count:].clone()
        self._compressed = due

    def _replay(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None,
                prefill: int) -> Tensor:
        """One pass with masks: query i sees token j compressed if that was due when i tokens had been seen."""
        total = query.shape[2]
        first = self._due(prefill)
        seen = _causal(total, query.device, 0) if mask is None else mask
        self._begin(query[:, :, :prefill], key[:, :, :prefill], value[:, :, :prefill], scaling,
                    None if mask is None else mask[:, :, :prefill, :prefill])
        queries = None
        if self._queries:
            moduli = query.abs().unflatten(1, (key.shape[1], -1)).sum(dim=2)
            own = window_sums(moduli, self._queries)[:, :, first:]
            prompt = moduli[:, :, max(prefill - self._queries, 0):prefill].sum(dim=2, keepdim=True)
            queries = torch.cat([prompt.expand(-1, -1, first, -1), own], dim=2)
        due = torch.tensor([0 if i < prefill else self._due(i) for i in range(total)], device=query.device)
        received = None
        if self._attention:
            # The attention that tokens receive depends on the compressed keys, and not on the compressed values.
            small_key, _ = self._squeeze(key, value, queries, torch.ones_like(key[..., 0]))
            received = self._replayed_attention(query, key, small_key, scaling, seen, due, prefill)
        small_key, small_value = self._restored(*self._squeeze(key, value, queries, received))
        both_keys, both_values = torch.cat([small_key, key], dim=2), torch.cat([small_value, value], dim=2)
        parts = []
        for low in range(0, total, _QUERIES_AT_ONCE):
            part = slice(low, low + _QUERIES_AT_ONCE)
            parts.append(attend(query[:, :, part], both_keys, both_values, scaling,
                                _doubled(seen[:, :, part], due[part])))
        return torch.cat(parts, dim=2)

    def _replayed_attention(self, query: Tensor, key: Tensor, small_key: Tensor, scaling: float, seen: Tensor,
                            due: Tensor, prefill: int) -> Tensor:
        total, first = query.shape[2], self._due(prefill)
        received = torch.zeros(key.shape[:3], device=key.device, dtype=torch.promote_types(key.dtype, torch.float32))
        places = torch.arange(total, device=key.device)
        for low in range(0, total, _QUERIES_AT_ONCE):
            part = slice(low, low + _QUERIES_AT_ONCE)
            rows = attention_weights(query[:, :, part], torch.cat([small_key, key], dim=2), scaling,
                                     _doubled(seen[:, :, part], due[part])).sum(dim=2)
            rows = rows[..., :total] + rows[..., total:]
            asked = places[part, None]
            age = asked - places
            own = (age >= 0) & (age < self._attention) & (places >= first)
            last = (asked >= prefill - self._attention) & (asked < prefill) & (places < first)
            received += (rows * (own | last)).sum(dim=2)
        return received

    def _select(self, rows: Tensor) -> None:
        if self._prefix is not None:
            self._prefix.select(rows)
        for name in ("keys", "values", "_moduli", "_received"):
            held = getattr(self, name)
            if held is not None:
                setattr(self, name, held[rows])

    def _crop(self, count: int) -> None:
        assert self.keys is not None
        assert self.values is not None
        rest = self.keys.shape[2]
        if count >= rest and self._prefix is not None:   # some of what was compressed becomes part of the rest
            keep = self._seen - count
            whole = keep // self.block * self.block
            key, value = (x[:, :, whole:keep].clone() for x in self._prefix.dense())
            self._prefix.crop(whole)
            self._compressed = whole
            self._prefix = self._prefix if whole else None
            self.keys, self.values = key, value
            # Their queries are forgotten; what is left of these tokens is ranked by magnitude.
            self._moduli = None if self._moduli is None else torch.ones_like(key)
            self._received = None if self._received is None else self._received.new_ones(key.shape[:3])
            return
        for name in ("keys", "values", "_moduli", "_received"):
            held = getattr(self, name)
            if held is not None:
                setattr(self, name, held[:, :, :rest - count])

    def _clear(self) -> None:
        self.keys = self.values = self._moduli = self._received = self._prefix = None
        self._compressed = 0

    def nbytes(self) -> int:
        """Bytes of compressed tokens, dense rest, and what is noted about queries."""
        return (0 if self._prefix is None else self._prefix.nbytes()) + bytes_of(
            (self.keys, self.values, self._moduli, self._received))


def _causal(total: int, device: torch.device, first: int) -> Tensor:
    """The mask of queries from ``first`` on: ``(1, 1, queries, total)``."""
    places = torch.arange(total, device=device)
    return (places <= places[first:, None])[None, None]


def _doubled(seen: Tensor, due: Tensor) -> Tensor:
    """The mask over compressed tokens and then the same tokens as they are, of which a query sees one or the other."""
    small = torch.arange(seen.shape[-1], device=seen.device) < due[:, None]
    return torch.cat([seen & small, seen & ~small], dim=-1)
