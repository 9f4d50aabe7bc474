"""Caches of keys and values that are sparse, inside unmodified language models of transformers.

Needs transformers: ``pip install 'sparsepriors[language]'``.
"""

try:
    import transformers as _transformers  # noqa: F401  (nothing below works without it)
except ImportError as e:
    raise ImportError("sparsepriors.language needs transformers: pip install 'sparsepriors[language]'") from e

from sparsepriors.language.attention import sparse_kv
from sparsepriors.language.cache_base import SparseCache, SparseLayer
from sparsepriors.language.dense import DenseCache
from sparsepriors.language.kv_cache import MustafarCache
from sparsepriors.language.perplexity import Perplexity, perplexity
from sparsepriors.language.selected import SelectedCache
from sparsepriors.language.think import ThinKCache

__all__ = ["DenseCache", "MustafarCache", "Perplexity", "SelectedCache", "SparseCache", "SparseLayer", "ThinKCache",
           "perplexity", "sparse_kv"]
