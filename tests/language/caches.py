"""One row for each kind of cache: what the tests of the contract run through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sparsepriors.language import DenseCache, SparseCache


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


CACHES = {"dense": Row(DenseCache)}
