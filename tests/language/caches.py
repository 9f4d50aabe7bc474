"""One row for each kind of cache: what the tests of the contract run through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sparsepriors.language import DenseCache, SelectedCache, SparseCache
from sparsepriors.priors import SparseWindow


@dataclass(frozen=True)
class Row:
    """A cache and what may be asked of it.

    Attributes
    ----------
    make
        From a configuration.
    padded
        Whether what is kept depends on tokens alone and not on how many pads stand before them.
    """

    make: Callable[[Any], SparseCache]
    padded: bool = True


CACHES = {
    "dense": Row(DenseCache),
    "sparse window": Row(lambda config: SelectedCache(config, SparseWindow(0.3))),
    "sparse window of each head in 8 bits": Row(lambda config: SelectedCache(
        config, SparseWindow(0.3, head_shared=False), kv_bits=8, block=16), padded=False),
}
