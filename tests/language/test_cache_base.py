"""What the base refuses, and what counts as a model's attention."""

from __future__ import annotations

import importlib

import pytest
import torch

from language.tiny import tiny_model, tokens
from sparsepriors.language import DenseCache, QuantizedCache, ThinKCache, sparse_kv
from sparsepriors.language.attention import attention_modules
from sparsepriors.language.cache_base import replay


@pytest.mark.public_door
def test_texts_that_cannot_be_replayed_are_refused() -> None:
    model = tiny_model()
    cache = ThinKCache(model.config, 0.5)
    with pytest.raises(ValueError, match="prefill must be at least 1, got 0"), replay(cache, 0):
        pass
    with sparse_kv(model, cache):
        with replay(cache, 8), pytest.raises(ValueError, match="longer than its prompt of 8 tokens, got 8 tokens"):
            model(tokens(1, 8), cache=cache)
        cache.reset()
        model(tokens(1, 8), cache=cache)
        with replay(cache, 4), pytest.raises(ValueError, match="got 6 tokens after 8"):
            model(tokens(1, 6), cache=cache)
    assert [layer.replay_after for layer in cache.layers] == [None, None]


@pytest.mark.public_door
def test_bad_arguments_of_the_small_kinds_are_refused() -> None:
    config = tiny_model().config
    for make, message in ((lambda: QuantizedCache(config, 3), "bits must be one of 4, 8, got 3"),
                          (lambda: QuantizedCache(config, 8, block=0), "block must be at least 1"),
                          (lambda: ThinKCache(config, 1.0), r"key_sparsity must be in \[0, 1\), got 1.0"),
                          (lambda: ThinKCache(config, 0.5, -0.5), "value_sparsity must be finite and nonnegative")):
        with pytest.raises(ValueError, match=message):
            make()


def test_layers_must_be_numbered_without_gaps() -> None:
    model = tiny_model()
    model.model.layers[1].self_attn.layer_idx = 5
    with pytest.raises(ValueError, match=r"numbered 0, 1, ..., got \[0, 5\]"):
        attention_modules(model)


def test_an_empty_cache_may_be_moved_and_weighs_nothing() -> None:
    cache = DenseCache(tiny_model().config)
    cache.reorder_cache(torch.tensor([1, 0]))
    cache.batch_repeat_interleave(3)
    cache.crop(0)
    assert (cache.nbytes(), cache.get_seq_length(), cache.compression()) == (0, 0, 1.0)
    assert cache.get_max_length() == -1


def test_all_rooms_fit_into_one_process() -> None:
    """Classes that are written as JSON go by their bare names, which two rooms must not share."""
    for room in ("imaging", "networks", "regression", "language"):
        module = importlib.import_module(f"sparsepriors.{room}")
        assert all(hasattr(module, name) for name in module.__all__)   # a room may load a class with its first use
