"""Caches of keys and values that are sparse, inside unmodified language models of transformers.

Needs transformers: ``pip install 'sparsepriors[language]'``.
"""

try:
    import transformers as _transformers  # noqa: F401  (nothing below works without it)
except ImportError as e:
    raise ImportError("sparsepriors.language needs transformers: pip install 'sparsepriors[language]'") from e

from sparsepriors.language.alisa import ALISACache
from sparsepriors.language.attention import sparse_kv
from sparsepriors.language.cache_base import SparseCache, SparseLayer
from sparsepriors.language.dense import DenseCache
from sparsepriors.language.eviction import H2OCache, SnapKVCache, StreamingCache
from sparsepriors.language.kv_cache import MustafarCache
from sparsepriors.language.perplexity import Perplexity, perplexity
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
    "perplexity",
    "plan",
    "quantize_kv",
    "simulate_throughput",
    "sparse_kv",
]
