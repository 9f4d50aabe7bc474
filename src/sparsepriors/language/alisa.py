"""ALISA: sparse window attention over keys and values on two tiers of memory, moved token by token.

Youpeng Zhao, Di Wu and Jun Wang, *ALISA: Accelerating Large Language Model Inference via Sparsity-Aware KV Caching*,
ISCA 2024.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sparsepriors import _checks
from sparsepriors.language.cache_base import SparseCache, layer_count
from sparsepriors.language.recompute import WAYS, LayerInputs, PromptPrefix
from sparsepriors.language.schedule import Schedule
from sparsepriors.language.selected import SelectedLayer
from sparsepriors.language.tiered import TieredKV
from sparsepriors.language.traffic import Traffic
from sparsepriors.priors.tokens import SparseWindow

AUTO = Schedule(p1=2**31, p2=2**31)
"""Nothing moves before it must: phase II begins when the budget is exceeded, and there is no phase III."""


@dataclass(frozen=True)
class Step:
    """One decoding step of all layers.

    Attributes
    ----------
    j
        Number of the step; the prompt has -1.
    tokens
        Tokens in the cache afterwards.
    phase
        1, 2 or 3.
    traffic
        What moved.
    """

    j: int
    tokens: int
    phase: int
    traffic: Traffic


class ALISALayer(SelectedLayer):
    """One layer of `ALISACache` on two tiers."""

    def __init__(self, index: int, selector: SparseWindow, cache: ALISACache, store: TieredKV) -> None:
        super().__init__(index, selector, store.kv_bits, store.block)
        self._cache, self._store = cache, store
        self._clear()

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None) -> Tensor:
        self._check_budget(key)
        return super()._attend(query, key, value, scaling, mask)

    def _check_budget(self, key: Tensor) -> None:
        batch, heads, new, dim = key.shape
        tokens = self._store.tokens + new
        local = self.selector.half(tokens)
        least = self._store.minimum_bytes(batch, heads, dim, key.dtype, local, tokens)
        if least > self._store.fast_bytes:
            layers, given = len(self._cache.layers), self._cache.fast_bytes
            raise ValueError(f"fast_bytes must hold the {local} newest of {tokens} tokens of each sequence in every "
                             f"layer: at least {least * layers} bytes, got {given}")

    def _fetch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        again = self._cache.again
        return self._store.gather(
            index[:, 0], local=self.selector.half(self._store.tokens),
            recompute=None if again is None else lambda s, t: again.recompute(self.index, s, t))

    def _keep(self, key: Tensor, value: Tensor) -> None:
        store, schedule, again = self._store, self._cache.schedule, self._cache.again
        tokens = store.tokens + key.shape[2]
        j, local = (self.steps[-1].j + 1 if self.steps else -1), self.selector.half(tokens)
        store.append(key, value, local=local)
        phase = 1
        if j >= 0:
            phase = schedule.phase(j)
            store.schedule(schedule.to_offload(tokens) if phase > 1 else 0, schedule.beta if phase > 2 else 0.0, local,
                           below=None if again is None else again.below)
        if isinstance(again, LayerInputs):
            store.traffic.input_bytes = again.written[self.index]
        if store.traffic.offloaded:
            phase = max(phase, 2)
        self.steps.append(Step(j, tokens, phase, store.traffic.since(self._before)))
        self._before = replace(store.traffic)

    def _replay(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None,
                prefill: int) -> Tensor:
        out = super()._replay(query, key, value, scaling, mask, prefill)
        self.steps.clear()   # nothing was fetched: the text was attended before its tokens were stored
        return out

    def _select(self, rows: Tensor) -> None:
        raise ValueError("tokens on two tiers belong to their sequence: beams, and choosing or repeating entries of "
                         "the batch, need a cache with fast_bytes=None")

    def _crop(self, count: int) -> None:
        super()._crop(count)
        if self._cache.again is not None and self.index == 0:
            self._cache.again.crop(self._seen - count)
        self._before = replace(self._store.traffic)

    def _clear(self) -> None:
        super()._clear()
        self._store.traffic = Traffic()
        self._before, self.steps = Traffic(), list[Step]()
        if self._cache.again is not None and self.index == 0:
            self._cache.again.clear()

    def nbytes(self) -> int:
        """Bytes on both tiers, of the rows and sums, and of what deleted tokens are recomputed from."""
        history = 0 if self._history is None else self._history.nbytes()
        again = 0 if self._cache.again is None else self._cache.again.nbytes(self.index)
        return self._store.fast_nbytes() + self._store.slow_nbytes() + history + again


class ALISACache(SparseCache):
    """A cache that attends to the share ``caching_ratio`` of its tokens and keeps the rest out of fast memory.

    Each step attends to the picks of `SparseWindow` and to the new token; the prompt is attended densely. Which tier a
    token lies on changes nothing in what is computed, so that any budget gives the same text, up to rounding where
    deleted tokens are recomputed.

    Parameters
    ----------
    config
        The model's configuration.
    caching_ratio
        r in (0, 1]; 1 - r is the KV sparsity. A cache of few tokens uses one local and one global token at least.
    fast_bytes
        Budget of fast memory for keys and values of all layers. ``None`` keeps everything in one memory; only then can
        the cache follow beams. The sums and rows that select tokens come on top.
    kv_bits
        16, or 8 or 4 to quantise each block of tokens once, when it is full.
    schedule
        When tokens move; ``"auto"`` moves what does not fit and deletes nothing. `sparsepriors.language.plan` finds one
        for a machine.
    slow
        ``"ram"`` or ``"disk"``.
    recompute
        How deleted tokens come back: ``"hidden"`` projects the layer's input, which is kept in slow memory, again;
        ``"prefix"`` reads the prompt again and therefore never deletes what was generated.
    head_shared
        Whether all heads of a layer share the tokens, as published; otherwise without a budget only.
    block
        Tokens of a quantised block.
    folder
        Where slow memory on disk is made.

    Raises
    ------
    ValueError
        If an argument is out of range. A budget below the newest tokens of all layers is refused when the first tokens
        come, with the least that would do.
    """

    def __init__(self, config: Any, caching_ratio: float = 0.2, *, fast_bytes: int | None = None, kv_bits: int = 16,
                 schedule: Schedule | str = "auto", slow: str = "ram", recompute: str = "hidden",
                 head_shared: bool = True, block: int = 64, folder: str | Path | None = None) -> None:
        selector = SparseWindow(caching_ratio, head_shared)
        if isinstance(schedule, str):
            _checks.one_of("schedule", schedule, ("auto",))
            schedule = AUTO
        if not isinstance(schedule, Schedule):
            raise TypeError(f"schedule must be 'auto' or a Schedule, got {type(schedule).__name__}")
        _checks.one_of("recompute", recompute, WAYS)
        if kv_bits not in (4, 8, 16):
            raise ValueError(f"kv_bits must be 4, 8 or 16, got {kv_bits}")
        self.schedule, self.fast_bytes = schedule, fast_bytes
        self.again: LayerInputs | PromptPrefix | None = None
        if fast_bytes is None:
            super().__init__(config, lambda i: SelectedLayer(i, selector, kv_bits, block))
            return
        if not head_shared:
            raise ValueError("head_shared=False needs fast_bytes=None: a token is moved with all its heads")
        layers = layer_count(config)
        share = _checks.count("fast_bytes", fast_bytes, low=layers) // layers
        if schedule.beta:
            self.again = LayerInputs(layers, slow, folder) if recompute == "hidden" else PromptPrefix()
        super().__init__(config, lambda i: ALISALayer(
            i, selector, self, TieredKV(share, slow=slow, kv_bits=kv_bits, block=block, folder=folder)))

    @contextmanager
    def joined(self, model: Any) -> Iterator[None]:
        """Look at the model's inputs while it is bound, if deleted tokens are to be recomputed."""
        if self.again is None:
            yield
            return
        with self.again.joined(model, self):
            yield

    @property
    def trace(self) -> list[Step]:
        """What moved at every step, the layers summed; empty without a budget."""
        found = []
        for parts in zip(*(layer.steps for layer in self.layers if isinstance(layer, ALISALayer)), strict=False):
            total = Traffic()
            for part in parts:
                total += part.traffic
            found.append(Step(parts[0].j, parts[0].tokens, max(p.phase for p in parts), total))
        return found

    def traffic(self) -> Traffic:
        """What has moved since the cache was empty."""
        total = Traffic()
        for step in self.trace:
            total += step.traffic
        return total

    def fast_nbytes(self) -> int:
        """Bytes of keys and values in fast memory; all of them without a budget."""
        return sum(layer._store.fast_nbytes() if isinstance(layer, ALISALayer) else layer.nbytes()
                   for layer in self.layers)
