"""One row for each kind of cache: what the tests of the contract run through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from sparsepriors.language import (
    DenseCache,
    H2OCache,
    MustafarCache,
    QuantizedCache,
    SelectedCache,
    SnapKVCache,
    SparseCache,
    StreamingCache,
    ThinKCache,
)
from sparsepriors.priors import (
    PerChannelMagnitude,
    PerChannelOutputAware,
    PerTokenMagnitude,
    PerTokenOutputAware,
    SparseWindow,
)


@dataclass(frozen=True)
class Row:
    """A cache and what may be asked of it.

    Attributes
    ----------
    make
        From a configuration.
    padded
        Whether what is kept depends on tokens alone and not on how many pads stand before them.
    dtype
        Of the model that it is tried in.
    crops
        Whether tokens may be taken back that were there before others were given up.
    """

    make: Callable[[Any], SparseCache]
    padded: bool = True
    dtype: torch.dtype = torch.float64
    crops: bool = True


_token_by_token = partial(MustafarCache, window=8, block=1, simulate=True)
_in_blocks = partial(MustafarCache, window=8, block=12, simulate=True)

CACHES = {
    "dense": Row(DenseCache),
    "mustafar": Row(partial(MustafarCache, key_sparsity=0.7, value_sparsity=0.5, window=5), False, torch.float32),
    "mustafar-padded-tiles": Row(partial(MustafarCache, key_sparsity=0.5, value_sparsity=0.7, window=20, pad=8), False,
                                 torch.float32),
    "mustafar-simulated": Row(partial(_token_by_token, key_sparsity=0.7, value_sparsity=0.5)),
    "mustafar-published-counts": Row(partial(_in_blocks, key_sparsity=0.5, value_sparsity=0.5, official_rounding=True),
                                     False),
    "mustafar-queries": Row(partial(_token_by_token, key_rule=PerTokenOutputAware(0.3, window=6), value_sparsity=0.5)),
    "mustafar-queries-blocks": Row(partial(_in_blocks, key_rule=PerTokenOutputAware(0.3, window=9)), False),
    "mustafar-channels": Row(partial(_in_blocks, value_rule=PerChannelMagnitude(0.5, group=4)), False),
    "mustafar-attention": Row(partial(_in_blocks, key_rule=PerTokenMagnitude(0.5),
                                      value_rule=PerChannelOutputAware(0.5, group=6)), False),
    "think": Row(partial(ThinKCache, key_sparsity=0.5, window=8, block=1)),
    "think-both": Row(partial(ThinKCache, key_sparsity=0.5, value_sparsity=0.6, window=8, block=12), False),
    "quantised": Row(partial(QuantizedCache, bits=4, window=8, block=12), False),
    "streaming": Row(partial(StreamingCache, ratio=0.5), crops=False),
    "h2o": Row(partial(H2OCache, ratio=0.4), crops=False),
    "snapkv": Row(partial(SnapKVCache, ratio=0.4, window=9, kernel=3), False, crops=False),
    "sparse window": Row(lambda config: SelectedCache(config, SparseWindow(0.3))),
}
