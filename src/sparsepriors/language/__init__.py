"""Caches of keys and values that are sparse, inside unmodified language models of transformers.

Needs transformers: ``pip install 'sparsepriors[language]'``. Importing the room alone does not load it; the first name
taken from the room does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsepriors.language.alisa import ALISACache
    from sparsepriors.language.attention import sparse_kv
    from sparsepriors.language.cache_base import SparseCache, SparseLayer
    from sparsepriors.language.dense import DenseCache
    from sparsepriors.language.eviction import H2OCache, SnapKVCache, StreamingCache
    from sparsepriors.language.kv_cache import MustafarCache
    from sparsepriors.language.likelihood import Perplexity, perplexity
    from sparsepriors.language.pruning import decoder_blocks, prune_blocks
    from sparsepriors.language.quantize import QuantizedKV, quantize_kv
    from sparsepriors.language.quantized_cache import QuantizedCache
    from sparsepriors.language.schedule import Schedule
    from sparsepriors.language.selected import SelectedCache
    from sparsepriors.language.serving_model import Hardware, ModelShape, Workload, plan, simulate_throughput
    from sparsepriors.language.think import ThinKCache
    from sparsepriors.language.tiered import TieredKV
    from sparsepriors.language.traffic import Traffic

__all__ = [
    "ALISACache",
    "DenseCache",
    "H2OCache",
    "Hardware",
    "ModelShape",
    "MustafarCache",
    "Perplexity",
    "QuantizedCache",
    "QuantizedKV",
    "Schedule",
    "SelectedCache",
    "SnapKVCache",
    "SparseCache",
    "SparseLayer",
    "StreamingCache",
    "ThinKCache",
    "TieredKV",
    "Traffic",
    "Workload",
    "decoder_blocks",
    "perplexity",
    "plan",
    "prune_blocks",
    "quantize_kv",
    "simulate_throughput",
    "sparse_kv",
]

_HOMES = {
    "ALISACache": "alisa", "DenseCache": "dense", "H2OCache": "eviction", "Hardware": "serving_model",
    "ModelShape": "serving_model", "MustafarCache": "kv_cache", "Perplexity": "likelihood",
    "QuantizedCache": "quantized_cache", "QuantizedKV": "quantize", "Schedule": "schedule",
    "SelectedCache": "selected", "SnapKVCache": "eviction", "SparseCache": "cache_base", "SparseLayer": "cache_base",
    "StreamingCache": "eviction", "ThinKCache": "think", "TieredKV": "tiered", "Traffic": "traffic",
    "Workload": "serving_model", "decoder_blocks": "pruning", "perplexity": "likelihood", "plan": "serving_model",
    "prune_blocks": "pruning", "quantize_kv": "quantize", "simulate_throughput": "serving_model",
    "sparse_kv": "attention",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as e:
        if e.name != "transformers":
            raise
        raise ImportError("sparsepriors.language needs transformers: pip install 'sparsepriors[language]'") from e
