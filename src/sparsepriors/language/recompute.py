"""Two ways to compute the keys and values of deleted tokens again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sparsepriors.language.attention import attention_modules
from sparsepriors.language.slow_memory import SlowMemory

if TYPE_CHECKING:
    from sparsepriors.language.cache_base import SparseCache

WAYS = ("hidden", "prefix")
"""From the inputs of the layer, or by reading the prompt again."""


class LayerInputs:
    """Keeps the input of every attention layer in slow memory and projects it again.

    An input has as many numbers as the model is wide: half of keys and values together where every query head has a key
    head of its own, but more than those where many query heads share one.

    Parameters
    ----------
    layers
        Attention layers.
    kind, folder
        Of slow memory, as in `TieredKV`.
    """

    below: int | None = None

    def __init__(self, layers: int, kind: str, folder: Any) -> None:
        self._layers, self._kind, self._folder = layers, kind, folder
        self._modules: list[Any] = []
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._memory: list[SlowMemory | None] = [None] * self._layers
        self._slots: list[Tensor | None] = [None] * self._layers
        self._rotation: tuple[Tensor, Tensor] | None = None
        self.written = [0] * self._layers

    @contextmanager
    def joined(self, model: nn.Module, cache: SparseCache) -> Iterator[None]:
        """Look at what the attention modules are given.

        Raises
        ------
        ValueError
            If they are not of the kind whose keys are one rotated projection of the input.
        """
        self._modules = attention_modules(model)
        for module in self._modules:
            if not hasattr(module, "v_proj") or hasattr(module, "k_norm"):
                raise ValueError(f"recompute='hidden' needs keys that are a rotated projection of the layer's input, "
                                 f"as in Llama; {type(module).__name__} is of another kind, use recompute='prefix'")
        with ExitStack() as stack:
            for index, module in enumerate(self._modules):
                def look(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], index: int = index) -> None:
                    if kwargs.get("cache") is cache:
                        hidden = args[0] if args else kwargs["hidden_states"]
                        self._note(index, hidden, kwargs["position_embeddings"])

                stack.callback(module.register_forward_pre_hook(look, with_kwargs=True).remove)
            yield

    def recompute(self, index: int, sequence: Tensor, token: Tensor) -> tuple[Tensor, Tensor, int]:
        """Keys and values ``(m, kv_heads, dim)`` of tokens of a layer, and the bytes of the inputs that were read."""
        memory, slots = self._memory[index], self._slots[index]
        assert memory is not None
        assert slots is not None
        assert self._rotation is not None
        module = self._modules[index]
        x = memory.read(slots[sequence, token], sequence.device)
        key, value = (proj(x).unflatten(-1, (-1, module.head_dim)) for proj in (module.k_proj, module.v_proj))
        cos, sin = (part[sequence, token][:, None] for part in self._rotation)
        left, right = key.chunk(2, dim=-1)
        return key * cos + torch.cat([-right, left], dim=-1) * sin, value, x.numel() * x.element_size()

    def crop(self, tokens: int) -> None:
        """Forget the newest tokens until ``tokens`` are left."""
        for index, (memory, slots) in enumerate(zip(self._memory, self._slots, strict=True)):
            if memory is not None and slots is not None:
                memory.release(slots[:, tokens:].flatten())
                self._slots[index] = slots[:, :tokens]
        if self._rotation is not None:
            cos, sin = self._rotation
            self._rotation = cos[:, :tokens], sin[:, :tokens]

    def nbytes(self, index: int) -> int:
        """Bytes that are held for a layer; the rotations count for the first."""
        memory = self._memory[index]
        shared = self._rotation if index == 0 and self._rotation is not None else ()
        return (0 if memory is None else memory.used * memory.row_bytes) + sum(
            t.numel() * t.element_size() for t in shared)

    def _note(self, index: int, hidden: Tensor, rotation: tuple[Tensor, Tensor]) -> None:
        batch, new, width = hidden.shape
        memory = self._memory[index]
        if memory is None:
            memory = self._memory[index] = SlowMemory(width, hidden.dtype, self._kind, self._folder,
                                                      pinned=hidden.is_cuda)
        slots = memory.write(hidden.detach().flatten(0, 1)).reshape(batch, new).to(hidden.device)
        before = self._slots[index]
        self._slots[index] = slots if before is None else torch.cat([before, slots], dim=1)
        self.written[index] += hidden.numel() * hidden.element_size()
        if index == 0:
            fresh = tuple(part.expand(batch, -1, -1) for part in rotation)
            old = self._rotation
            self._rotation = (fresh[0], fresh[1]) if old is None else (
                torch.cat([old[0], fresh[0]], dim=1), torch.cat([old[1], fresh[1]], dim=1))


class PromptPrefix:
    """Reads the prompt again, as far as it is needed; all layers of one step share one reading.

    Only tokens of the prompt, which was attended densely, come back as they were, so only they may be deleted.
    """

    def __init__(self) -> None:
        self._model: Any = None
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._ids: Tensor | None = None
        self._mask: Tensor | None = None
        self._again: Any = None
        self._length = 0
        self.below: int | None = 0

    @contextmanager
    def joined(self, model: nn.Module, cache: SparseCache) -> Iterator[None]:
        """Look at the ids that the model is given."""
        self._model = model

        def look(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if kwargs.get("cache") is not cache:
                return
            self._again, self._length = None, 0   # another step: what was read again has served
            if cache.get_seq_length() == 0:
                ids = args[0] if args else kwargs.get("input_ids")
                if ids is None:
                    raise ValueError("recompute='prefix' needs a model that is given input_ids")
                self._ids, self._mask, self.below = ids, kwargs.get("attention_mask"), ids.shape[1]

        handle = model.register_forward_pre_hook(look, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    @torch.no_grad()
    def recompute(self, index: int, sequence: Tensor, token: Tensor) -> tuple[Tensor, Tensor, int]:
        """Keys and values ``(m, kv_heads, dim)`` of tokens of a layer; nothing is read from slow memory."""
        from transformers import DynamicCache

        length = int(token.max()) + 1
        if length > self._length:
            assert self._ids is not None
            options: dict[str, Any] = {}
            if self._mask is not None:
                mask = self._mask[:, :length]
                options = {"attention_mask": mask, "position_ids": (mask.long().cumsum(1) - 1).clamp(min=0)}
            self._again, self._length = DynamicCache(config=self._model.config), length
            self._model.base_model(self._ids[:, :length], cache=self._again, use_cache=True, **options)
        layer = self._again.layers[index]
        return layer.keys[sequence, :, token], layer.values[sequence, :, token], 0

    def crop(self, tokens: int) -> None:
        """Nothing is kept beyond the prompt."""
        if self.below is not None and tokens < self.below:
            assert self._ids is not None
            self._ids, self.below = self._ids[:, :tokens], tokens
            self._mask = None if self._mask is None else self._mask[:, :tokens]

    def nbytes(self, index: int) -> int:
        """Bytes of the ids of the prompt, which count for the first layer."""
        return 0 if index or self._ids is None else self._ids.numel() * self._ids.element_size()
