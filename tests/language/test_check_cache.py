"""The published contract catches caches that break it."""

from __future__ import annotations

import pytest
import torch

from sparsepriors.language import DenseCache, SparseCache
from sparsepriors.language.dense import DenseLayer
from sparsepriors.testing import cache_checks, check_cache


class _Forgetful(DenseLayer):
    """Drops the oldest token at every step, but replays a text as if it did not."""

    def _attend(self, query, key, value, scaling, mask):
        out, held = super()._attend(query, key, value, scaling, mask), vars(self)
        if self._seen:
            self.keys, self.values = held["keys"][:, :, 1:], held["values"][:, :, 1:]
        return out

    def _replay(self, query, key, value, scaling, mask, prefill):
        return DenseLayer._attend(self, query, key, value, scaling, mask)


class _Mixed(DenseLayer):
    """Leaves its entries where they are when beams move."""

    def _select(self, rows):
        batch = vars(self)["keys"].shape[0]
        super()._select(torch.arange(len(rows)).clamp(max=batch - 1))


class _Stale(DenseLayer):
    """Keeps what it had when it is reset."""

    def _clear(self):
        pass


@pytest.mark.parametrize(("layer", "broken"), [
    (_Forgetful, "replay-is-decoding"), (_Mixed, "beams-follow-their-parents"),
    (_Stale, "tokens-and-bytes-are-counted")])
def test_broken_caches_are_caught(layer, broken: str) -> None:
    with pytest.raises(AssertionError, match=broken):
        check_cache(lambda config: SparseCache(config, layer), prompt=8, steps=4)


def test_a_good_cache_passes_in_both_precisions() -> None:
    for dtype in (torch.float64, torch.float32):
        assert check_cache(DenseCache, dtype=dtype, prompt=8, steps=4) == list(cache_checks())
    assert len(cache_checks()) == 6


@pytest.mark.public_door
def test_bad_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="dtype must be torch.float64 or torch.float32"):
        check_cache(DenseCache, dtype=torch.float16)
    with pytest.raises(ValueError, match="prompt must be at least 2"):
        check_cache(DenseCache, prompt=1)
