"""The dense cache, through the same doors as the sparse ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsepriors.language.attention import attend
from sparsepriors.language.cache_base import SparseCache, SparseLayer, bytes_of


class DenseLayer(SparseLayer):
    """Keeps every token as it is; base of layers that keep keys and values side by side in one tensor each.

    Attributes
    ----------
    keys, values
        ``(batch, kv_heads, kept, dim)``, or ``None`` while empty.
    """

    is_croppable = True

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None) -> Tensor:
        self._append(key, value)
        assert self.keys is not None
        assert self.values is not None
        return attend(query, self.keys, self.values, scaling, mask, causal=mask is None and query.shape[2] > 1)

    def _append(self, key: Tensor, value: Tensor) -> None:
        self.keys = key if self.keys is None else torch.cat([self.keys, key], dim=2)
        self.values = value if self.values is None else torch.cat([self.values, value], dim=2)

    def _replay(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None,
                prefill: int) -> Tensor:
        return self._attend(query, key, value, scaling, mask)

    def _select(self, rows: Tensor) -> None:
        assert self.keys is not None
        assert self.values is not None
        self.keys, self.values = self.keys[rows], self.values[rows]

    def _crop(self, count: int) -> None:
        assert self.keys is not None
        assert self.values is not None
        self.keys, self.values = self.keys[:, :, :-count], self.values[:, :, :-count]

    def _clear(self) -> None:
        self.keys = self.values = None

    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return bytes_of((self.keys, self.values))


class DenseCache(SparseCache):
    """Every token as it is: what `transformers.DynamicCache` keeps, with the counters of this room."""

    def __init__(self, config: Any) -> None:
        super().__init__(config, DenseLayer)
