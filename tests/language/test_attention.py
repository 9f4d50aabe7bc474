"""Binding a cache to a model, and the attention that everything else is made of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache

from language.tiny import tiny_model, tokens
from sparsepriors.language import DenseCache, sparse_kv
from sparsepriors.language.attention import attend, attention_modules, attention_weights, mix


def test_a_bound_dense_cache_decodes_as_the_model_does() -> None:
    model, ids = tiny_model(), tokens(2, 20)
    cache: Any = DenseCache(model.config)
    plain: Any = DynamicCache(config=model.config)
    with torch.no_grad(), sparse_kv(model, cache):
        for part in ids.split([11, 1, 1, 5, 2], dim=1):   # a prompt, steps, and chunks on a cache that is not empty
            ours = model(part, cache=cache).logits
            model.set_attn_implementation("sdpa")
            theirs = model(part, cache=plain).logits
            model.set_attn_implementation("sparsepriors")
            torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(cache.layers[1].keys, plain.layers[1].keys)


def test_the_model_is_as_before_after_nesting_and_exceptions() -> None:
    model, ids = tiny_model(), tokens(1, 8)
    outer, inner = DenseCache(model.config), DenseCache(model.config)
    modules = attention_modules(model)
    before = model.config._attn_implementation
    with sparse_kv(model, outer):
        model(ids, cache=outer)
        with pytest.raises(ZeroDivisionError), sparse_kv(model, inner):
            model(ids, cache=inner)
            raise ZeroDivisionError
        assert [m._sparse_kv for m in modules] == list(outer.layers)
        with sparse_kv(model, outer):   # the same cache again
            model(ids, cache=outer)
        model(ids, cache=outer)
        with pytest.raises(RuntimeError, match="inside `with sparse_kv"):
            model(ids, cache=inner)
    assert (outer.get_seq_length(), inner.get_seq_length()) == (24, 8)
    assert model.config._attn_implementation == before
    assert not any("_sparse_kv" in m.__dict__ for m in modules)
    with pytest.raises(RuntimeError, match="inside `with sparse_kv"):
        model(ids, cache=outer)


def test_an_interrupted_pass_leaves_nothing_half_taken() -> None:
    model, ids = tiny_model(), tokens(1, 8)
    cache = DenseCache(model.config)
    broken = model.model.layers[1].mlp
    forward = broken.forward
    with sparse_kv(model, cache):
        broken.forward = lambda x: 1 / 0
        with pytest.raises(ZeroDivisionError):
            model(ids, cache=cache)
        broken.forward = forward
        cache.reset()
        model(ids, cache=cache)
    assert cache.get_seq_length() == 8


def test_a_pass_without_the_cache_is_dense_and_trains() -> None:
    model, ids = tiny_model(), tokens(1, 8)
    cache = DenseCache(model.config)
    plain = model(ids, use_cache=False).logits
    with sparse_kv(model, cache):
        bound = model(ids, use_cache=False, labels=ids)
        bound.loss.backward()
    torch.testing.assert_close(bound.logits, plain)
    assert cache.get_seq_length() == 0
    assert model.model.layers[0].self_attn.q_proj.weight.grad.abs().sum() > 0


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.booleans(), st.integers(0, 99))
def test_attention_with_and_without_weights_agree(kv_heads: int, groups: int, queries: int, count: int, masked: bool,
                                                  seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(heads: int, n: int) -> torch.Tensor:
        return torch.randn(2, heads, n, 8, generator=generator, dtype=torch.float64)

    query, key, value = draw(kv_heads * groups, queries), draw(kv_heads, count), draw(kv_heads, count)
    mask = torch.rand(2, 1, queries, count, generator=generator) < 0.6 if masked else None
    if mask is not None:
        mask[..., 0] = True
    weights = attention_weights(query, key, 0.3, mask)
    assert weights.shape == (2, kv_heads, groups, queries, count)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1], dtype=torch.float64))
    torch.testing.assert_close(mix(weights, value), attend(query, key, value, 0.3, mask))


def test_a_query_that_may_look_nowhere_gets_zeros() -> None:
    query, key = torch.randn(1, 2, 1, 4), torch.randn(1, 1, 3, 4)
    nowhere = torch.zeros(1, 1, 1, 3, dtype=torch.bool)
    weights = attention_weights(query, key, 1.0, nowhere)
    assert not weights.any()
    assert not mix(weights, key).any()


@pytest.mark.public_door
def test_wrong_models_and_caches_are_refused() -> None:
    model = tiny_model()
    with pytest.raises(TypeError, match="PreTrainedModel, got Linear"), sparse_kv(torch.nn.Linear(2, 2), None):
        pass
    with pytest.raises(TypeError, match="SparseCache, such as"), sparse_kv(model, DynamicCache(config=model.config)):
        pass
    other = DenseCache(tiny_model(layers=3).config)
    with pytest.raises(ValueError, match="3 layers and the model 2"), sparse_kv(model, other):
        pass
    with pytest.raises(TypeError, match="PretrainedConfig"):
        DenseCache({})


SMALL = {"vocab_size": 97, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1,
         "eos_token_id": None, "initializer_range": 0.3}


@pytest.mark.parametrize(("family", "more"), [("Qwen3", {"head_dim": 12}), ("Phi3", {}), ("GPTNeoX", {}),
                                              ("Mistral", {"sliding_window": 16})])
def test_models_of_other_families_write_the_same(family: str, more: dict[str, int]) -> None:
    config = getattr(transformers, f"{family}Config")(**SMALL, **more)
    model, ids = transformers.AutoModelForCausalLM.from_config(config).eval(), tokens(1, 40)
    cache = DenseCache(config)
    options: Any = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 6, "do_sample": False}
    plain = model.generate(ids, **options)
    with sparse_kv(model, cache):
        assert torch.equal(model.generate(ids, cache=cache, **options), plain)


def test_a_model_that_changes_the_softmax_is_refused() -> None:
    config = transformers.Gemma2Config(**SMALL, head_dim=12)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    cache = DenseCache(config)
    with sparse_kv(model, cache), pytest.raises(NotImplementedError, match="layer 0 asks for attention with softcap"):
        model(tokens(1, 8), cache=cache)
