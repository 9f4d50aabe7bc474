"""Keys and values in 8 or 4 bits, behind a dense window: the plain alternative to dropping entries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.language.blockwise import BlockwiseLayer, Prefix
from sparsepriors.language.cache_base import SparseCache
from sparsepriors.language.quantize import BITS, QuantizedKV, quantize_kv


class QuantizedCache(SparseCache):
    """Tokens that leave the window are quantised, each channel of each block with a scale of its own.

    Parameters
    ----------
    config
        The model's configuration.
    bits
        8 or 4.
    window
        Newest tokens that stay as they are.
    block
        Tokens that share a scale.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    """

    def __init__(self, config: Any, bits: int = 8, *, window: int = 32, block: int = 64) -> None:
        if bits not in BITS:
            raise ValueError(f"bits must be one of {', '.join(map(str, BITS))}, got {bits}")
        _checks.count("block", block, low=1)
        super().__init__(config, lambda i: QuantizedLayer(i, bits, window=window, block=block))


class QuantizedLayer(BlockwiseLayer):
    """One layer of a `QuantizedCache`."""

    def __init__(self, index: int, bits: int, *, window: int, block: int) -> None:
        super().__init__(index, window=window, block=block)
        self.bits = bits

    def _new_prefix(self) -> Prefix:
        return QuantizedPrefix(self.bits, self.block)

    def _squeeze(self, key: Tensor, value: Tensor, queries: Tensor | None,
                 attention: Tensor | None) -> tuple[Tensor, Tensor]:
        return key, value   # rounding is what storing does

    def _restored(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        whole = key.shape[2] // self.block * self.block   # tokens of an open block are never seen quantised
        key, value = (torch.cat([quantize_kv(x[:, :, :whole], self.bits, self.block).dequantize(), x[:, :, whole:]],
                                dim=2) for x in (key, value))
        return key, value


class QuantizedPrefix(Prefix):
    """Codes, scales and zero points of compressed tokens."""

    def __init__(self, bits: int, block: int) -> None:
        self._bits, self._block = bits, block
        self._pair: tuple[QuantizedKV, QuantizedKV] | None = None

    def append(self, key: Tensor, value: Tensor) -> None:
        new = (quantize_kv(key, self._bits, self._block), quantize_kv(value, self._bits, self._block))
        self._pair = new if self._pair is None else (_joined(self._pair[0], new[0]), _joined(self._pair[1], new[1]))

    def dense(self) -> tuple[Tensor, Tensor]:
        assert self._pair is not None
        return self._pair[0].dequantize(), self._pair[1].dequantize()

    def select(self, rows: Tensor) -> None:
        self._map(lambda x: x[rows], lambda x: x[rows])

    def crop(self, tokens: int) -> None:
        self._map(lambda x: x[:, :, :tokens].clone(), lambda x: x[:, :, :tokens // self._block].clone())

    def nbytes(self) -> int:
        return sum(x.nbytes() for x in self._pair or ())

    def _map(self, codes: Callable[[Tensor], Tensor], scales: Callable[[Tensor], Tensor]) -> None:
        assert self._pair is not None
        key, value = (replace(x, codes=codes(x.codes), scale=scales(x.scale), zero=scales(x.zero)) for x in self._pair)
        self._pair = (key, value)


def _joined(old: QuantizedKV, new: QuantizedKV) -> QuantizedKV:
    return replace(old, codes=torch.cat([old.codes, new.codes], dim=2), scale=torch.cat([old.scale, new.scale], dim=2),
                   zero=torch.cat([old.zero, new.zero], dim=2))
