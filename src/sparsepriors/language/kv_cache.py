"""Mustafar: every cached key and value keeps its largest entries, in a format that attention reads as it is.

Joo, Hosseini, Hadidi, Asgari, Mustafar: Promoting Unstructured Sparsity for KV Cache Pruning in LLM Inference, NeurIPS
2025, arXiv:2505.22913.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels import BitmapTensor, bitmap_attention, pack_bitmap
from sparsepriors.kernels.bitmap import DTYPES, TILE, check_pad
from sparsepriors.language.blockwise import BlockwiseLayer, DensePrefix, Prefix
from sparsepriors.language.cache_base import SparseCache
from sparsepriors.priors.kv import KVPattern, PerChannelMagnitude, PerTokenMagnitude, PerTokenOutputAware
from sparsepriors.priors.patterns import kept

WINDOW, BLOCK = 32, 64


class MustafarCache(SparseCache):
    """Keys and values pruned entry by entry once they leave the window of the newest tokens.

    The prompt is read densely; after it, all tokens but the newest are pruned, and in decoding every token that leaves
    the window, in blocks. Nothing is trained or calibrated. At sparsity 0 the tokens are those of the dense cache.

    Parameters
    ----------
    config
        The model's configuration.
    key_sparsity, value_sparsity
        Share of the entries of every cached vector that is dropped, in [0, 1).
    window
        Newest tokens that stay dense; the published one is 32.
    block
        Tokens that are pruned and packed together; a multiple of 64 unless ``simulate``, where 1 prunes token by token.
    key_rule, value_rule
        Other rules of `sparsepriors.priors.kv` than per-token magnitude; they bring their own density, and the sparsity
        of that side must be left at 0.
    official_rounding
        Count as the published code does, which keeps one entry more; see `KVPattern`.
    simulate
        Keep the zeros: for studies of quality, and for double precision. Otherwise tokens are packed as bitmaps.
    pad
        Values of each packed tile are filled up to a multiple of this: 1, or 8 as in the published GPU code.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    """

    def __init__(self, config: Any, key_sparsity: float = 0.0, value_sparsity: float = 0.0, *, window: int = WINDOW,
                 block: int = BLOCK, key_rule: KVPattern | None = None, value_rule: KVPattern | None = None,
                 official_rounding: bool = False, simulate: bool = False, pad: int = 1) -> None:
        of_keys = _rule("key", key_sparsity, key_rule, official_rounding)
        of_values = _rule("value", value_sparsity, value_rule, official_rounding)
        _checks.count("block", block, low=1)
        check_pad(pad)
        if not simulate and block % TILE:
            raise ValueError(f"block must be a multiple of {TILE} to be packed, got {block}; simulate=True takes any")
        for name, rule in (("key", of_keys), ("value", of_values)):
            if rule is not None and block % rule.span:
                raise ValueError(f"block must be a multiple of the {rule.span} tokens that the {name} rule decides "
                                 f"together, got {block}")
        asked = max(_asks(of_keys, of_values, what) for what in ("queries", "attention"))
        if window < asked - 1:
            raise ValueError(f"window must be at least {asked - 1} for rules that sum {asked} queries from each token "
                             f"on, got {window}")
        super().__init__(config, lambda i: MustafarLayer(i, of_keys, of_values, window=window, block=block,
                                                         simulate=simulate, pad=pad))


class MustafarLayer(BlockwiseLayer):
    """One layer of a `MustafarCache`; ``None`` for a rule keeps everything."""

    def __init__(self, index: int, key_rule: KVPattern | None, value_rule: KVPattern | None, *, window: int, block: int,
                 simulate: bool, pad: int) -> None:
        super().__init__(index, window=window, block=block, queries=_asks(key_rule, value_rule, "queries"),
                         attention=_asks(key_rule, value_rule, "attention"))
        self._rules = (key_rule, value_rule)
        self._simulate, self._pad = simulate, pad
        # The published rule is a part of packing, which is faster than pruning first.
        self._fused = tuple(not simulate and type(rule) is PerTokenMagnitude and not rule.official_rounding
                            for rule in self._rules)

    def _new_prefix(self) -> Prefix:
        if self._simulate:
            return DensePrefix()
        if self._dtype not in DTYPES:
            raise TypeError(f"packed keys and values must be {', '.join(map(str, DTYPES))}, got {self._dtype}; "
                            f"simulate=True takes any")
        assert self._shape is not None
        keep = [kept(self._shape[2], rule.density) if rule is not None and fused else None
                for rule, fused in zip(self._rules, self._fused, strict=True)]
        return BitmapPrefix(self._pad, keep[0], keep[1])

    def _squeeze(self, key: Tensor, value: Tensor, queries: Tensor | None,
                 attention: Tensor | None) -> tuple[Tensor, Tensor]:
        pair = []
        for x, rule, fused in zip((key, value), self._rules, self._fused, strict=True):
            needs = () if rule is None else rule.needs[:1]
            pair.append(x if rule is None or fused else rule.prune(
                x, queries=queries if "queries" in needs else None,
                attention=attention if "attention" in needs else None))
        return pair[0], pair[1]

    def _restored(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        pair = [rule.prune(x) if rule is not None and fused else x
                for x, rule, fused in zip((key, value), self._rules, self._fused, strict=True)]
        return pair[0], pair[1]


class BitmapPrefix(Prefix):
    """Compressed tokens as bitmaps and the values of what is not zero.

    Parameters
    ----------
    pad
        Values of a tile are filled up to a multiple of this.
    key_keep, value_keep
        How many entries of each token are packed, the largest; ``None`` packs all that are not zero.
    """

    def __init__(self, pad: int, key_keep: int | None = None, value_keep: int | None = None) -> None:
        self._pad, self._keep = pad, (key_keep, value_keep)
        self._keys: BitmapTensor | None = None
        self._values: BitmapTensor | None = None

    def append(self, key: Tensor, value: Tensor) -> None:
        keys = pack_bitmap(key, "key", self._keep[0], self._pad)
        values = pack_bitmap(value, "value", self._keep[1], self._pad)
        self._keys = keys if self._keys is None else self._keys.append(keys)
        self._values = values if self._values is None else self._values.append(values)

    def dense(self) -> tuple[Tensor, Tensor]:
        keys, values = self._pair()
        return keys.dense(), values.dense()

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None) -> Tensor:
        if query.shape[2] > 1:   # a chunk of a prompt: unpacking once costs less than a pass for each of its queries
            return super().attend(query, key, value, scaling, mask)
        keys, values = self._pair()
        out = bitmap_attention(query[:, :, 0], keys, values, key, value, scaling,
                               None if mask is None else mask[:, :, 0])
        return out[:, :, None]

    def select(self, rows: Tensor) -> None:
        keys, values = self._pair()
        self._keys, self._values = keys.select(rows), values.select(rows)

    def crop(self, tokens: int) -> None:
        keys, values = self._pair()
        self._keys, self._values = keys.crop(tokens), values.crop(tokens)

    def nbytes(self) -> int:
        return sum(x.nbytes for x in self._pair())

    def _pair(self) -> tuple[BitmapTensor, BitmapTensor]:
        assert self._keys is not None
        assert self._values is not None
        return self._keys, self._values


def _rule(name: str, sparsity: float, rule: KVPattern | None, official: bool) -> KVPattern | None:
    if _checks.nonnegative_number(f"{name}_sparsity", sparsity) >= 1:
        raise ValueError(f"{name}_sparsity must be in [0, 1), got {sparsity}")
    if rule is None:
        return None if sparsity == 0 else PerTokenMagnitude(1 - sparsity, official_rounding=official)
    if not isinstance(rule, KVPattern):
        raise TypeError(f"{name}_rule must be a KVPattern, such as PerTokenMagnitude(0.5), got {type(rule).__name__}")
    if sparsity or official:
        raise ValueError(f"{name}_rule brings its own density and rounding; leave {name}_sparsity at 0 and "
                         f"official_rounding off")
    return rule


def _asks(key_rule: KVPattern | None, value_rule: KVPattern | None, what: str) -> int:
    """How many queries the rules want summed; they must agree."""
    asked = set()
    for rule in (key_rule, value_rule):
        if rule is not None and rule.needs[:1] == (what,):
            asked.add(rule.window if isinstance(rule, PerTokenOutputAware) else
                      rule.group if isinstance(rule, PerChannelMagnitude) else WINDOW)
    if len(asked) > 1:
        raise ValueError(f"key_rule and value_rule must sum {what} over the same window, got {sorted(asked)}")
    return max(asked, default=0)
