"""Mustafar's cache: packed and simulated agree, nothing is lost at sparsity 0, bytes are those of the format."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from language.tiny import tiny_model, tokens
from sparsepriors.language import DenseCache, MustafarCache, sparse_kv
from sparsepriors.priors import PerChannelMagnitude, PerChannelOutputAware, PerTokenMagnitude, PerTokenOutputAware


@pytest.fixture(scope="module")
def model():
    return tiny_model(dtype=torch.float32)


@torch.no_grad()
def _logits(model, cache, ids: torch.Tensor, prompt: int) -> torch.Tensor:
    with sparse_kv(model, cache):
        found = [model(part, cache=cache).logits for part in ids.split([prompt, 3, *[1] * (ids.shape[1] - prompt - 3)],
                                                                       dim=1)]
    return torch.cat(found, dim=1)


@pytest.mark.parametrize(("key", "value"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.7), (0.9, 0.5)])
@pytest.mark.parametrize("prompt", [20, 100])
def test_packed_and_simulated_agree(model, key: float, value: float, prompt: int) -> None:
    ids = tokens(2, 108)   # with 20 tokens of prompt, the only block is packed while decoding
    packed, zeros = (MustafarCache(model.config, key, value, window=5, simulate=s) for s in (False, True))
    torch.testing.assert_close(_logits(model, packed, ids, prompt), _logits(model, zeros, ids, prompt), rtol=1e-3,
                               atol=1e-3)
    pairs: Any = zip(packed.layers, zeros.layers, strict=True)
    for ours, theirs in pairs:
        for a, b in zip(ours._prefix.dense(), theirs._prefix.dense(), strict=True):
            assert torch.equal(a != 0, b != 0)
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_rules_that_are_not_fused_are_packed_too(model) -> None:
    ids = tokens(1, 104)
    options = {"key_rule": PerTokenOutputAware(0.4, window=6), "value_rule": PerTokenMagnitude(0.5,
                                                                                             official_rounding=True)}
    packed, zeros = (MustafarCache(model.config, window=5, simulate=s, **options) for s in (False, True))
    torch.testing.assert_close(_logits(model, packed, ids, 90), _logits(model, zeros, ids, 90), rtol=1e-3, atol=1e-3)


def test_nothing_is_lost_at_sparsity_0(model) -> None:
    ids = tokens(2, 80)

    def write(cache) -> torch.Tensor:
        with sparse_kv(model, cache):
            return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=70, do_sample=False,
                                  cache=cache)

    cache: Any = MustafarCache(model.config)
    assert torch.equal(write(cache), write(DenseCache(model.config)))
    assert cache.layers[0]._compressed == 64   # of 149 tokens; 32 and the rest of a block stay dense
    assert cache.compression() > 1   # a bitmap of ones says nothing and weighs something


def test_the_newest_tokens_and_the_prompt_are_read_densely(model) -> None:
    ids = tokens(1, 120)
    sparse: Any = MustafarCache(model.config, 0.9, 0.9)
    dense: Any = DenseCache(model.config)
    with torch.no_grad(), sparse_kv(model, sparse):
        ours = model(ids, cache=sparse).logits
    with torch.no_grad(), sparse_kv(model, dense):
        torch.testing.assert_close(ours, model(ids, cache=dense).logits)
    kept = sparse.layers[0].keys
    assert kept.shape[2] == 120 - 64
    torch.testing.assert_close(kept, dense.layers[0].keys[:, :, 64:])
    assert ((sparse.layers[0]._prefix.dense()[0] != 0).sum(-1) == 6).all()


def test_bytes_are_those_of_the_format(model) -> None:
    cache = MustafarCache(model.config, 0.5, 0.5)
    with torch.no_grad(), sparse_kv(model, cache):
        model(tokens(1, 32 + 256), cache=cache)
    stored, words = 256 * 32, 256 * 64 // 64   # values and words of keys or values, in each head
    heads, layers, window = 2, 2, 32 * 64
    least = layers * 2 * heads * (4 * stored + 8 * words + 4 * window)
    assert least <= cache.nbytes() <= 1.02 * least + layers * 2 * heads * 4 * (64 + 8)   # slack, offsets
    assert cache.compression() == cache.nbytes() / cache.dense_nbytes()


@pytest.mark.public_door
def test_bad_arguments_are_refused() -> None:
    model = tiny_model()
    config = model.config
    for options, message in (
            ({"key_sparsity": 1.0}, r"key_sparsity must be in \[0, 1\), got 1.0"),
            ({"value_sparsity": -0.1}, "value_sparsity must be finite and nonnegative"),
            ({"window": -1}, "window must be at least 0"),
            ({"block": 32}, "block must be a multiple of 64 to be packed, got 32"),
            ({"value_rule": PerChannelMagnitude(0.5, group=48)}, "multiple of the 48 tokens that the value rule"),
            ({"key_rule": PerTokenMagnitude(0.5), "key_sparsity": 0.5}, "leave key_sparsity at 0"),
            ({"key_rule": PerTokenOutputAware(0.5), "window": 30}, "window must be at least 31"),
            ({"key_rule": PerChannelOutputAware(0.5), "value_rule": PerChannelOutputAware(0.5, group=64)},
             "same window, got .32, 64."),
            ({"pad": 3}, "pad must be one of 1, 8, got 3")):
        with pytest.raises(ValueError, match=message):
            MustafarCache(config, **options)
    with pytest.raises(TypeError, match="key_rule must be a KVPattern"):
        MustafarCache(config, key_rule=0.5)
    cache = MustafarCache(config, 0.5)
    with pytest.raises(TypeError, match="simulate=True takes any"), sparse_kv(model, cache):
        model(tokens(1, 100), cache=cache)


@pytest.mark.parametrize(("block", "prompt", "rest"), [(1, 30, 8), (1, 8, 8), (1, 5, 5), (12, 30, 18), (12, 31, 19)])
def test_the_dense_rest_is_the_window_and_what_fills_no_block(model, block: int, prompt: int, rest: int) -> None:
    cache: Any = MustafarCache(model.config, 0.5, window=8, block=block, simulate=True)
    with torch.no_grad(), sparse_kv(model, cache):
        model(tokens(1, prompt), cache=cache)
        assert cache.layers[1].keys.shape[2] == rest
        for token in tokens(1, 20, seed=4)[0]:
            model(token[None, None], cache=cache)
            held = cache.layers[1].keys.shape[2]
            assert held == cache.get_seq_length() - max(cache.get_seq_length() - 8, 0) // block * block


def test_packed_and_simulated_agree_behind_pads(model) -> None:
    ids, mask = tokens(2, 108), torch.ones(2, 108, dtype=torch.int64)
    mask[0, :37] = 0
    found = []
    for simulate in (False, True):
        cache = MustafarCache(model.config, 0.6, 0.6, window=5, simulate=simulate)
        with torch.no_grad(), sparse_kv(model, cache):
            model(ids[:, :100], attention_mask=mask[:, :100], cache=cache)
            found.append(torch.cat([model(ids[:, t:t + 1], attention_mask=mask[:, :t + 1], cache=cache).logits
                                    for t in range(100, 108)], dim=1))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-3)
