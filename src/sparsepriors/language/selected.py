"""Attention to the tokens that a selector picks, step by step and for a whole text at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsepriors.language.attention import attend, attention_weights, grouped_scores, mix, softmax_rows
from sparsepriors.language.cache_base import SparseCache, SparseLayer
from sparsepriors.language.plain_store import PlainKV
from sparsepriors.language.quantize import quantize_kv
from sparsepriors.priors.token_history import TokenHistory
from sparsepriors.priors.tokens import TokenSelector


class SelectedLayer(SparseLayer):
    """A layer whose every decoding step attends to the picks of a selector and to the new token.

    A prompt is attended densely, as one block. Tokens that come to a cache that is not empty are decoded one by one,
    however many there are. Keys keep the positions that they were rotated to.

    Parameters
    ----------
    index
        Number of the layer.
    selector
        Which tokens.
    kv_bits, block
        16 keeps keys and values as they are; with 8 or 4 each block of tokens is quantised once, when it is full. The
        new token and the block that is filling are exact.

    Attributes
    ----------
    watch
        If set, it is called with the attention weights ``(batch, kv_heads, groups, steps, tokens)`` of every text that
        is replayed, those of the prompt left out.
    """

    is_croppable = True

    def __init__(self, index: int, selector: TokenSelector, kv_bits: int = 16, block: int = 64) -> None:
        super().__init__(index)
        self.selector, self.kv_bits, self.block = selector, kv_bits, block
        self.watch: Callable[[Tensor], None] | None = None
        self._store: Any = PlainKV(kv_bits, block)
        self._history: TokenHistory | None = None

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None) -> Tensor:
        if self._history is None:
            return self._prompt(query, key, value, scaling, mask)
        return torch.cat([self._step(query[:, :, i:i + 1], key[:, :, i:i + 1], value[:, :, i:i + 1], scaling)
                          for i in range(query.shape[2])], dim=2)

    def _prompt(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None) -> Tensor:
        new = query.shape[2]
        self._history = self._begin(key, mask)
        rows = min(new, self.selector.window(new)) if self.selector.uses_rows else 0
        weights = attention_weights(query[:, :, new - rows:], key, scaling, _seen(mask, new - rows, query))
        self._history.observe(self._reduced(weights), tokens=new)
        out = attend(query, key, value, scaling, mask, causal=mask is None and new > 1)
        self._keep(key, value)
        return out

    def _step(self, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        history = self._history
        assert history is not None
        index = self._pick(query, key, scaling)
        keys, values = self._fetch(index)
        keys, values = torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)
        asked = _with_itself(index, history.tokens)
        seen = None if history.padding == [0] * history.batch else self._per_query_head(asked >= 0, query.shape[1])
        weights = attention_weights(query, keys, scaling, seen)
        history.observe(self._reduced(weights), asked)
        self._keep(key, value)
        return mix(weights, values)

    def _pick(self, query: Tensor, key: Tensor, scaling: float) -> Tensor:
        """Positions ``(batch, groups, chosen)`` for the query that asks."""
        assert self._history is not None
        if not self.selector.looks_ahead:
            return self.selector.select(self._history)
        everything = torch.arange(self._history.tokens, device=query.device).expand(query.shape[0], 1, -1)
        keys = torch.cat([self._store.gather(everything)[0], key], dim=2)
        columns = torch.arange(keys.shape[2], device=query.device)
        padding = torch.tensor(self._history.padding, device=query.device)
        weights = attention_weights(query, keys, scaling, (columns >= padding[:, None])[:, None, None])
        return self.selector.select(self._history, self._reduced(weights)[:, :, 0, :-1])

    def _fetch(self, index: Int[Tensor, "batch groups chosen"]) -> tuple[Tensor, Tensor]:
        """Keys and values ``(batch, kv_heads, chosen, dim)`` of the picks."""
        return self._store.gather(index)

    def _keep(self, key: Tensor, value: Tensor) -> None:
        """Store the tokens that were just attended; the history knows them already."""
        self._store.append(key, value)

    def _replay(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None,
                prefill: int) -> Tensor:
        first = slice(0, prefill)
        prompt = self._prompt(query[:, :, first], key[:, :, first], value[:, :, first], scaling,
                              None if mask is None else mask[:, :, first, first])
        assert self._history is not None
        rest = selected_attention(query[:, :, prefill:], key, value, scaling, self.selector, self._history,
                                  kv_bits=self.kv_bits, block=self.block, watch=self.watch)
        for t in range(prefill, query.shape[2]):   # one by one, so that blocks are quantised as in decoding
            self._keep(key[:, :, t:t + 1], value[:, :, t:t + 1])
        return torch.cat([prompt, rest], dim=2)

    def _begin(self, key: Tensor, mask: Tensor | None) -> TokenHistory:
        groups = key.shape[1] if getattr(self.selector, "head_shared", True) is False else 1
        return self.selector.history(key.shape[0], groups, padding=left_padding(mask, key.shape[0]), device=key.device)

    def _reduced(self, weights: Tensor) -> Tensor:
        """Rows ``(batch, groups, queries, tokens)`` summed over the heads that select together."""
        assert self._history is not None
        return _reduced(weights, self._history.groups)

    def _per_query_head(self, seen: Tensor, heads: int) -> Tensor:
        """A mask ``(batch, heads or 1, 1, tokens)`` of one for every group."""
        seen = seen[:, :, None]
        return seen if seen.shape[1] == 1 else seen.repeat_interleave(heads // seen.shape[1], dim=1)

    def _select(self, rows: Tensor) -> None:
        assert self._history is not None
        self._history.select_batch(rows.tolist())
        self._store.select(rows)

    def _crop(self, count: int) -> None:
        assert self._history is not None
        self._history.crop(self._seen - count)
        self._store.crop(self._seen - count)

    def _clear(self) -> None:
        self._history = None
        self._store.clear()

    def nbytes(self) -> int:
        """Bytes of tokens, and of the sums and rows that the selector looks at."""
        return self._store.nbytes() + (0 if self._history is None else self._history.nbytes())


class SelectedCache(SparseCache):
    """Every token is kept and each step attends to the picks of a selector: for comparing selectors at equal budgets.

    Parameters
    ----------
    config
        The model's configuration.
    selector
        Any `sparsepriors.priors.TokenSelector`.
    kv_bits, block
        Width of keys and values, and tokens of a block that are quantised together.

    Raises
    ------
    TypeError
        If ``selector`` is none.
    ValueError
        If ``kv_bits`` is not 4, 8 or 16.
    """

    def __init__(self, config: Any, selector: TokenSelector, *, kv_bits: int = 16, block: int = 64) -> None:
        if not isinstance(selector, TokenSelector):
            raise TypeError(f"selector must be a TokenSelector, such as SparseWindow(0.2), "
                            f"got {type(selector).__name__}")
        if kv_bits not in (4, 8, 16):
            raise ValueError(f"kv_bits must be 4, 8 or 16, got {kv_bits}")
        super().__init__(config, lambda i: SelectedLayer(i, selector, kv_bits, block))


def selected_attention(query: Float[Tensor, "batch heads steps dim"], key: Float[Tensor, "batch kv_heads tokens dim"],
                       value: Float[Tensor, "batch kv_heads tokens dim"], scaling: float, selector: TokenSelector,
                       history: TokenHistory, *, kv_bits: int = 16, block: int = 64,
                       watch: Callable[[Tensor], None] | None = None) -> Float[Tensor, "batch heads steps dim"]:
    """Attention of the last queries of a text, each as it would be decoded after the ones before it.

    All products with keys and values are made at once; only the selection goes row by row where it looks at the rows
    before it.

    Parameters
    ----------
    query
        The newest ``steps`` queries.
    key, value
        Of the whole text, rotated keys.
    scaling
        Factor of the logits.
    selector
        Which tokens each query attends to, itself always.
    history
        Of the first ``tokens - steps`` tokens; it is carried on to the end of the text.
    kv_bits, block, watch
        As in `SelectedLayer`.

    Raises
    ------
    ValueError
        If the history does not end where the queries begin.
    """
    steps, tokens = query.shape[2], key.shape[2]
    first = tokens - steps
    if history.tokens != first:
        raise ValueError(f"history must hold the {first} tokens before the queries, got {history.tokens}")
    sealed = None
    logits = grouped_scores(query, key) * scaling
    coded = value
    if kv_bits != 16:
        full = tokens // block * block
        keys, coded = (torch.cat([quantize_kv(x[:, :, :full], kv_bits, block).dequantize(), x[:, :, full:]], dim=2)
                       for x in (key, value))
        rows, columns = torch.arange(first, tokens, device=key.device), torch.arange(tokens, device=key.device)
        sealed = columns < (rows // block * block)[:, None]   # of blocks that were full when the row was decoded
        logits = torch.where(sealed, grouped_scores(query, keys) * scaling, logits)
    if selector.uses_rows or selector.looks_ahead:
        weights = _row_by_row(logits, selector, history)
    else:
        mask = _fixed_mask(selector, first, tokens, tuple(history.padding)).to(key.device)
        weights = softmax_rows(logits, mask)
        history.observe(_reduced(weights[..., :0, :], history.groups), tokens=steps)
    if watch is not None:
        watch(weights)
    if sealed is None:
        return mix(weights, value)
    return mix(weights * sealed, coded) + mix(weights * ~sealed, value)


@lru_cache(maxsize=4)
def _fixed_mask(selector: TokenSelector, first: int, tokens: int, padding: tuple[int, ...]) -> Tensor:
    """What the queries from ``first`` on attend to, by a rule that looks at no weights: ``(batch, 1, steps, tokens)``.

    Every layer asks for the same one.
    """
    history = selector.history(len(padding), padding=padding)
    mask = torch.zeros(len(padding), 1, tokens - first, tokens + 1, dtype=torch.bool)
    for i in range(tokens - first):
        new = first if i == 0 else 1
        history.observe(torch.zeros(len(padding), 1, 0, history.tokens + new), tokens=new)
        asked = _with_itself(selector.select(history), first + i)
        mask[:, :, i].scatter_(-1, torch.where(asked < 0, tokens, asked), True)   # a column of its own for none
    return mask[..., :tokens]


def _row_by_row(logits: Tensor, selector: TokenSelector, history: TokenHistory) -> Tensor:
    """Attention weights of each query on its picks, which depend on the rows before it; same shape as the logits."""
    steps, tokens = logits.shape[-2:]
    first = tokens - steps
    padded = history.padding != [0] * history.batch
    columns = torch.arange(tokens, device=logits.device)
    start = torch.tensor(history.padding, device=logits.device)[:, None, None, None, None]
    weights = torch.zeros(logits.shape, dtype=torch.promote_types(logits.dtype, torch.float32), device=logits.device)
    for i in range(steps):
        t = first + i
        current = None
        if selector.looks_ahead:
            dense = logits[..., i:i + 1, :t + 1]
            dense = softmax_rows(dense, None) if not padded else softmax_rows(
                dense.masked_fill(columns[:t + 1] < start, -torch.inf), None)
            current = _reduced(dense, history.groups)[:, :, 0, :t]
        asked = _with_itself(selector.select(history, current), t)
        at = asked[:, :, None, None].expand(-1, logits.shape[1], logits.shape[2], 1, -1)
        row = logits[..., i:i + 1, :].gather(-1, at.clamp(min=0))
        if padded:
            row = row.masked_fill(at < 0, -torch.inf)
        row = softmax_rows(row, None)
        if padded:   # a place that no one asked for shares column 0 with the one who did
            weights[..., i:i + 1, :].scatter_add_(-1, at.clamp(min=0), row)
        else:
            weights[..., i:i + 1, :].scatter_(-1, at, row)
        history.observe(_reduced(row, history.groups), asked)
    return weights


def left_padding(mask: Tensor | None, batch: int) -> list[int]:
    """How many tokens at the start of each sequence the newest query does not see.

    Raises
    ------
    ValueError
        If it does not see a token between others, or sees none.
    """
    if mask is None:
        return [0] * batch
    seen = mask[:, 0, -1].expand(batch, -1)
    count = seen.sum(dim=1)
    pads = seen.shape[1] - count
    if bool((seen.int().argmax(dim=1) != pads).any()) or bool((count == 0).any()):
        raise ValueError("the attention mask must hide tokens at the start only (pad on the left), and not all of them")
    return pads.tolist()


def _reduced(weights: Tensor, groups: int) -> Tensor:
    rows = weights.sum(dim=2)
    return rows.sum(dim=1, keepdim=True) if groups == 1 else rows


def _with_itself(index: Tensor, token: int) -> Tensor:
    return torch.cat([index, index.new_full((*index.shape[:-1], 1), token)], dim=-1)


def _seen(mask: Tensor | None, low: int, query: Tensor) -> Tensor:
    """Which tokens the queries of a prompt from ``low`` on see: ``(batch, 1, queries, tokens)``."""
    if mask is not None:
        return mask[:, :, low:]
    places = torch.arange(query.shape[2], device=query.device)
    return (places <= places[low:, None]).expand(query.shape[0], 1, -1, -1)
