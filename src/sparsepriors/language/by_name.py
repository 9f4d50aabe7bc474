"""Every kind of cache by its name on the command line, at one scale: the share of the dense cache that is given up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparsepriors import _checks
from sparsepriors.language.alisa import ALISACache
from sparsepriors.language.cache_base import SparseCache
from sparsepriors.language.dense import DenseCache
from sparsepriors.language.eviction import H2OCache, SnapKVCache, StreamingCache
from sparsepriors.language.kv_cache import MustafarCache
from sparsepriors.language.think import ThinKCache

_MAKERS: dict[str, Callable[[Any, float], SparseCache]] = {
    "dense": lambda config, sparsity: DenseCache(config),
    "mustafar": lambda config, sparsity: MustafarCache(config, sparsity, sparsity),
    "think": lambda config, sparsity: ThinKCache(config, sparsity),
    "alisa": lambda config, sparsity: ALISACache(config, 1 - sparsity),
    "h2o": lambda config, sparsity: H2OCache(config, 1 - sparsity),
    "streaming": lambda config, sparsity: StreamingCache(config, 1 - sparsity),
    "snapkv": lambda config, sparsity: SnapKVCache(config, 1 - sparsity),
}

KINDS = tuple(_MAKERS)
"""Names that `cache_by_name` takes."""


def cache_by_name(name: str, config: Any, sparsity: float = 0.0) -> SparseCache:
    """A cache of this kind.

    Parameters
    ----------
    name
        ``"dense"`` gives nothing up; ``"mustafar"`` entries of keys and values, ``"think"`` channels of keys,
        ``"h2o"``, ``"streaming"`` and ``"snapkv"`` tokens; ``"alisa"`` keeps all and attends to fewer.
    config
        The model's configuration.
    sparsity
        Share of the entries, channels or tokens that is given up, in [0, 1).

    Raises
    ------
    TypeError, ValueError
        If there is no such cache, or the sparsity is out of range.
    """
    _checks.one_of("name", name, KINDS)
    _checks.nonnegative("sparsity", sparsity)
    if sparsity >= 1:
        raise ValueError(f"sparsity must be in [0, 1), got {sparsity}")
    return _MAKERS[name](config, sparsity)
