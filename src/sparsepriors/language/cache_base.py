"""What every cache of this room shares: when tokens come and go, whose batch entry they are, what they weigh.

A subclass of `SparseLayer` says how new tokens are attended and kept (`_attend`) and how its tensors are cut; the base
counts tokens, reads masks, refuses bad input, and replays a text as if it were decoded token by token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from sparsepriors import _checks


class SparseLayer(CacheLayerMixin, ABC):
    """One layer of a cache that attends itself; used inside `sparse_kv`.

    Attributes
    ----------
    index
        Number of the layer, for messages.
    bound
        How many contexts of `sparse_kv` the layer is in.
    replay_after
        If set, a text handed over at once is attended as if all tokens after so many had been decoded one by one.
    """

    is_croppable = False   # what was given up on the way does not come back
    supports_early_init = False

    def __init__(self, index: int = 0) -> None:
        super().__init__()
        self.index = index
        self.bound = 0
        self.replay_after: int | None = None
        self._seen = 0
        self._pending: tuple[Tensor, Tensor] | None = None
        self._shape: tuple[int, int, int] | None = None   # batch, key heads, channels
        self._dtype = torch.float32

    # What a kind of cache says of itself.

    @abstractmethod
    def _attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None) -> Tensor:
        """Attend to what is kept and to the new tokens, then keep them.

        Parameters
        ----------
        query
            ``(batch, heads, new, dim)``.
        key, value
            ``(batch, kv_heads, new, dim)``, keys already rotated.
        scaling
            Factor of the logits.
        mask
            ``(batch, 1, new, seen + new)``, boolean, by the place in the text. ``None`` when everything is seen: one
            new token, or the first call, which is causal.

        Returns
        -------
        Tensor
            ``(batch, heads, new, dim)``.
        """

    @abstractmethod
    def _select(self, rows: Tensor) -> None:
        """Keep these entries of the batch, in this order, with repetitions."""

    @abstractmethod
    def _crop(self, count: int) -> None:
        """Forget the last ``count`` tokens of the text; at least one and at most all but one."""

    @abstractmethod
    def _clear(self) -> None:
        """Forget everything."""

    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of everything that is kept from one step to the next."""

    def _replay(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None,
                prefill: int) -> Tensor:
        """A whole text on an empty layer: the first ``prefill`` tokens at once, the others one by one.

        Subclasses whose rule can be written as a mask override this; the results are the same.
        """
        def step(low: int, high: int) -> Tensor:
            part = None if mask is None else mask[:, :, low:high, :high]
            new = slice(low, high)
            out = self._attend(query[:, :, new], key[:, :, new], value[:, :, new], scaling, part)
            self._seen += high - low
            return out

        return torch.cat([step(0, prefill), *(step(t, t + 1) for t in range(prefill, query.shape[2]))], dim=2)

    # What transformers and the attention function call.

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Note shape and dtype of the first keys."""
        batch, heads, _, dim = key_states.shape
        self._shape = (batch, heads, dim)
        self._dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Take the keys and values of new tokens; they are kept when `attend` is called.

        Raises
        ------
        RuntimeError
            Outside of `sparse_kv`, where the model would attend to the new tokens alone.
        ValueError
            If the shape changes, or an entry is NaN or infinite.
        TypeError
            If keys and values differ in dtype, or from those before.
        """
        if not self.bound:
            raise RuntimeError(f"{type(self).__name__} attends itself: call the model inside "
                               f"`with sparse_kv(model, cache):`")
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        batch, heads, _, dim = key_states.shape
        if (batch, heads, dim) != self._shape or key_states.shape[:3] != value_states.shape[:3]:
            raise ValueError(f"keys of layer {self.index} must have batch, heads and channels {self._shape}, and "
                             f"values the same tokens, got {tuple(key_states.shape)} and {tuple(value_states.shape)}; "
                             f"reset() the cache before another batch")
        if key_states.dtype != self._dtype or value_states.dtype != self._dtype:
            raise TypeError(f"keys and values of layer {self.index} must be {self._dtype}, got {key_states.dtype} and "
                            f"{value_states.dtype}")
        for name, x in (("keys", key_states), ("values", value_states)):
            if not _checks.all_finite(x):
                raise ValueError(f"{name} of layer {self.index} hold NaN or infinite entries")
        self._pending = (key_states, value_states)
        return key_states, value_states

    def holds(self, key: Tensor) -> bool:
        """Whether these are the keys that were handed over last and not attended yet."""
        return self._pending is not None and self._pending[0] is key

    def forget_pending(self) -> None:
        """Drop keys that were handed over and never attended, as after an exception."""
        self._pending = None

    def attend(self, query: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
        """Attention of ``query`` to all tokens, those of the last `update` included: ``(batch, heads, new, dim)``.

        Raises
        ------
        RuntimeError
            If no tokens were handed over.
        TypeError
            If the mask is not boolean.
        ValueError
            If a text is replayed on a cache that is not empty, or is not longer than its prompt.
        """
        if self._pending is None:
            raise RuntimeError(f"layer {self.index} was handed no tokens; call update first")
        (key, value), self._pending = self._pending, None
        new = query.shape[2]
        if mask is not None:
            if mask.dtype != torch.bool:
                raise TypeError(f"the attention mask must be boolean, True where a token is seen, got {mask.dtype}")
            mask = mask[:, :, :, :self._seen + new]
        elif new > 1 and self._seen:
            places = torch.arange(self._seen + new, device=query.device)
            mask = (places <= places[self._seen:, None]).expand(query.shape[0], 1, -1, -1)
        if self.replay_after is None:
            out = self._attend(query, key, value, scaling, mask)
            self._seen += new
            return out
        if self._seen or not 1 <= self.replay_after < new:
            raise ValueError(f"a text is replayed on an empty cache and must be longer than its prompt of "
                             f"{self.replay_after} tokens, got {new} tokens after {self._seen}")
        out = self._replay(query, key, value, scaling, mask, self.replay_after)
        self._seen = new
        return out

    def get_seq_length(self) -> int:
        """Tokens of the text so far, whether kept or not: where the next one stands."""
        return self._seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """A column for every token of the text, kept or not."""
        return self._seen + query_length, 0

    def get_max_length(self) -> int:
        """-1: a text may have any length."""
        return -1

    def reset(self) -> None:
        """Forget everything, for a new text."""
        self._pending = None
        self._seen, self._shape, self.is_initialized = 0, None, False
        self._clear()

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens of the text, given as a negative number. Tokens that were compressed stay so.

        Raises
        ------
        ValueError
            If the number is positive or larger than the text.
        """
        count = -tokens_to_remove
        if not 0 <= count <= self._seen:
            raise ValueError(f"crop takes minus the number of tokens to forget, from {-self._seen} to 0, got "
                             f"{tokens_to_remove}")
        if count == self._seen:
            self.reset()
        elif count:
            self._crop(count)
            self._seen -= count

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Follow the beams: entry i becomes what entry ``beam_idx[i]`` was."""
        self._choose(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every entry of the batch ``repeats`` times."""
        if self._shape is not None:
            self._choose(torch.arange(self._shape[0]).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these entries of the batch, by number or by a boolean for each."""
        self._choose(indices.nonzero().flatten() if indices.dtype == torch.bool else indices)

    def dense_nbytes(self) -> int:
        """What a dense cache of the same tokens holds."""
        if self._shape is None:
            return 0
        batch, heads, dim = self._shape
        return 2 * batch * heads * self._seen * dim * self._dtype.itemsize

    def offload(self) -> None:
        """Refused: a layer of this kind is moved by no one else."""
        raise NotImplementedError(f"{type(self).__name__} cannot be offloaded")

    def _choose(self, rows: Tensor) -> None:
        if self._shape is not None:
            self._select(rows.to(self.device))
            self._shape = (len(rows), *self._shape[1:])


class SparseCache(Cache):
    """A cache of `SparseLayer` objects, one for each attention layer of a model.

    Parameters
    ----------
    config
        The model's configuration.
    make
        Makes a layer from its number.
    """

    layers: list[SparseLayer]   # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, config: Any, make: Callable[[int], SparseLayer]) -> None:
        super().__init__(layers=[make(i) for i in range(layer_count(config))])

    @contextmanager
    def joined(self, model: Any) -> Iterator[None]:
        """What a kind of cache needs of a model while it is bound to it by `sparse_kv`; nothing by default."""
        yield

    def nbytes(self) -> int:
        """Bytes of everything that the cache keeps from one step to the next."""
        return sum(layer.nbytes() for layer in self.layers)

    def dense_nbytes(self) -> int:
        """What a dense cache of the same tokens holds."""
        return sum(layer.dense_nbytes() for layer in self.layers)

    def compression(self) -> float:
        """Bytes kept as a share of those of a dense cache; 1 when empty."""
        dense = self.dense_nbytes()
        return self.nbytes() / dense if dense else 1.0


@contextmanager
def replay(cache: SparseCache, prefill: int) -> Iterator[None]:
    """Inside, a text handed over at once is attended as if all after ``prefill`` tokens were decoded one by one.

    Raises
    ------
    ValueError
        If ``prefill`` is not at least 1.
    """
    _checks.count("prefill", prefill, low=1)
    before = [layer.replay_after for layer in cache.layers]
    try:
        for layer in cache.layers:
            layer.replay_after = prefill
        yield
    finally:
        for layer, value in zip(cache.layers, before, strict=True):
            layer.replay_after = value


def layer_count(config: Any) -> int:
    """Attention layers of a model's configuration.

    Raises
    ------
    TypeError
        If it is no configuration of transformers.
    """
    from transformers import PretrainedConfig

    if not isinstance(config, PretrainedConfig):
        raise TypeError(f"config must be a transformers.PretrainedConfig, such as model.config, got "
                        f"{type(config).__name__}")
    return int(config.get_text_config(decoder=True).num_hidden_layers)


def bytes_of(tensors: Sequence[Tensor | None]) -> int:
    """Bytes of the entries of tensors."""
    return sum(x.numel() * x.element_size() for x in tensors if x is not None)
