"""Caches that drop tokens hold as many as they say, and attend as caches that keep everything and look at the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from language.tiny import tiny_model, tokens
from sparsepriors.language import H2OCache, SelectedCache, SnapKVCache, StreamingCache, perplexity, sparse_kv
from sparsepriors.language.by_name import KINDS, cache_by_name
from sparsepriors.language.stand_in import stand_in
from sparsepriors.priors import AttentionSinkWindow, HeavyHitter


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@torch.no_grad()
def _step_through(model, cache, ids: torch.Tensor, prompt: int) -> torch.Tensor:
    with sparse_kv(model, cache):
        found = [model(part, cache=cache).logits[:, -1] for part in ids.split([prompt, *[1] * (ids.shape[1] - prompt)],
                                                                              dim=1)]
    return torch.stack(found)


@pytest.mark.parametrize(("evicting", "selector"), [
    (lambda c: StreamingCache(c, 0.4, sinks=3), AttentionSinkWindow(0.4, 3)), (lambda c: H2OCache(c, 0.3),
                                                                               HeavyHitter(0.3))])
def test_what_is_dropped_is_what_is_not_looked_at(model, evicting, selector) -> None:
    ids = tokens(2, 60)
    cache, everything = evicting(model.config), SelectedCache(model.config, selector)
    torch.testing.assert_close(_step_through(model, cache, ids, 40), _step_through(model, everything, ids, 40))
    held = cache.layers[0]._store.gather(cache.layers[0]._next * 0)[0].shape[2]
    budget = selector.budget(60)
    assert budget - 1 <= held <= budget + 2
    assert cache.layers[0]._places.shape[-1] <= budget + 2
    assert cache.nbytes() < everything.nbytes()
    assert cache.get_seq_length() == 60


@pytest.mark.parametrize(("ratio", "kept"), [(0.5, 20), (0.1, 6), (1.0, 40)])
def test_snapkv_keeps_its_share_of_the_prompt_and_all_that_follows(model, ratio: float, kept: int) -> None:
    cache: Any = SnapKVCache(model.config, ratio, window=5, kernel=3)
    _step_through(model, cache, tokens(1, 50), 40)
    keys = cache.layers[1].keys
    assert keys.shape[2] == kept + 10
    places = cache.layers[1]._places
    assert (places.diff(dim=-1) > 0).all()
    assert places[..., -5:].tolist() == [[[35, 36, 37, 38, 39]] * 2]


def test_snapkv_that_keeps_everything_is_dense(model) -> None:
    windows = tokens(1, 50)
    found = perplexity(model, windows, 30, cache=SnapKVCache(model.config, 1.0))
    assert found.value == pytest.approx(perplexity(model, windows, 30).value, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_made_by_its_name(kind: str) -> None:
    model, letters = stand_in(3)
    cache = cache_by_name(kind, model.config, 0.5)
    ids = letters("The quick brown fox jumps over the lazy dog. " * 4, return_tensors="pt")["input_ids"]
    _step_through(model, cache, ids[:, :150], 145)
    assert cache.get_seq_length() == 150
    share = cache.compression()
    assert share >= 1 if kind in ("dense", "alisa") else share < 1
    assert letters.decode(ids[0])[:9] == "The quick"
    assert torch.equal(stand_in(3)[0].lm_head.weight, model.lm_head.weight)


@pytest.mark.public_door
def test_bad_arguments_are_refused(model) -> None:
    for make, message in ((lambda: StreamingCache(model.config, 0.0), "r must lie in"),
                          (lambda: H2OCache(model.config, 1.5), "r must lie in"),
                          (lambda: SnapKVCache(model.config, 1.5), r"ratio must be in \(0, 1\]"),
                          (lambda: SnapKVCache(model.config, 0.5, kernel=4), "kernel must be odd"),
                          (lambda: cache_by_name("mustfar", model.config), "did you mean 'mustafar'"),
                          (lambda: cache_by_name("dense", model.config, 1.0), r"sparsity must be in \[0, 1\)")):
        with pytest.raises(ValueError, match=message):
            make()
