"""Attention to the picks of every selector: the replayed text is the decoded one, and a full budget is dense."""

from typing import Any

import pytest
import torch

from language.tiny import tiny_model, tokens
from sparsepriors.language import SelectedCache, perplexity
from sparsepriors.language.plain_store import PlainKV
from sparsepriors.language.quantize import quantize_kv
from sparsepriors.language.selected import left_padding, selected_attention
from sparsepriors.priors import AttentionSinkWindow, HeavyHitter, LocalWindow, OracleTopK, SparseWindow, Strided

LENGTH, START = 40, 20


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.mark.parametrize("selector", [
    LocalWindow(0.4), Strided(0.3), AttentionSinkWindow(0.4), HeavyHitter(0.4), HeavyHitter(0.4, head_shared=True),
    OracleTopK(0.3), OracleTopK(0.3, head_shared=False), SparseWindow(0.4, head_shared=False)], ids=str)
def test_a_replayed_text_is_the_text_decoded_step_by_step(model, selector):
    windows = tokens(1, LENGTH)
    at_once, steps = (perplexity(model, windows, START, cache=SelectedCache(model.config, selector), steps=way)
                      for way in (False, True))
    assert at_once.value == pytest.approx(steps.value, rel=1e-9)
    assert at_once.value != pytest.approx(perplexity(model, windows, START).value, rel=1e-6)


@pytest.mark.parametrize("selector", [LocalWindow(1.0), Strided(1.0), AttentionSinkWindow(1.0), HeavyHitter(1.0),
                                      OracleTopK(1.0), SparseWindow(1.0)], ids=str)
def test_a_full_budget_is_dense(model, selector):
    windows = tokens(1, LENGTH)
    found = perplexity(model, windows, START, cache=SelectedCache(model.config, selector))
    assert found.value == pytest.approx(perplexity(model, windows, START).value, rel=1e-9)


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_blocks_are_replayed_as_they_are_decoded(model, bits):
    windows = tokens(1, LENGTH)

    def cache():
        return SelectedCache(model.config, SparseWindow(0.5), kv_bits=bits, block=8)

    at_once, steps = (perplexity(model, windows, START, cache=cache(), steps=way).value for way in (False, True))
    assert at_once == pytest.approx(steps, rel=1e-9)
    exact = perplexity(model, windows, START, cache=SelectedCache(model.config, SparseWindow(0.5))).value
    assert at_once != pytest.approx(exact, rel=1e-9)


def test_the_weights_of_a_replay_can_be_watched(model):
    cache, seen = SelectedCache(model.config, SparseWindow(0.3)), []
    layer: Any = cache.layers[1]
    layer.watch = seen.append
    perplexity(model, tokens(1, LENGTH), START, cache=cache)
    (weights,) = seen
    steps = LENGTH - 1 - START   # what follows the last token is not known
    assert weights.shape == (1, 2, 2, steps, LENGTH - 1)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2, 2, steps, dtype=weights.dtype))
    attended = (weights > 0).sum(-1)
    for i in range(steps):
        assert (attended[..., i] <= SparseWindow(0.3).budget(START + i) + 1).all()


@pytest.mark.parametrize("bits", [16, 8, 4])
@pytest.mark.parametrize("keep", [3, 8, 11, 19])
def test_the_plain_store_against_a_tensor(bits, keep):
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(2, 2, 3, 19, 5, generator=generator)
    store = PlainKV(bits, block=4)
    for low, high in ((0, 7), (7, 8), (8, 19)):
        store.append(whole[0, :, :, low:high], whole[1, :, :, low:high])
    if bits != 16:
        whole[..., :16, :] = quantize_kv(whole[..., :16, :], bits, 4).dequantize()
    store.crop(keep)
    index = torch.randint(0, keep, (2, 3, 6), generator=generator)
    for got, expected in zip(store.gather(index), whole, strict=True):
        assert torch.equal(got, expected.gather(2, index[..., None].expand(-1, -1, -1, 5)))
    store.select(torch.tensor([1]))
    assert torch.equal(store.gather(index[:1])[0], whole[0, 1:].gather(2, index[:1, ..., None].expand(-1, -1, -1, 5)))
    numbers = 2 * 3 * keep * 5
    assert store.nbytes() == numbers * 4 if bits == 16 else store.nbytes() > 0


def test_padding_is_read_from_the_newest_query():
    mask = torch.ones(2, 1, 3, 4, dtype=torch.bool)
    mask[1, :, :, :2] = False
    assert left_padding(mask, 2) == [0, 2]
    assert left_padding(None, 3) == [0, 0, 0]
    mask[1, :, :, 3] = False
    with pytest.raises(ValueError, match="pad on the left"):
        left_padding(mask, 2)
    with pytest.raises(ValueError, match="not all of them"):
        left_padding(torch.zeros(1, 1, 1, 4, dtype=torch.bool), 1)


@pytest.mark.public_door
def test_bad_input_is_named(model):
    with pytest.raises(TypeError, match="selector must be a TokenSelector, such as SparseWindow"):
        SelectedCache(model.config, 0.2)
    with pytest.raises(ValueError, match="kv_bits must be 4, 8 or 16, got 2"):
        SelectedCache(model.config, SparseWindow(0.2), kv_bits=2)
    x = torch.ones(1, 1, 3, 4)
    with pytest.raises(ValueError, match="history must hold the 2 tokens before the queries, got 0"):
        selected_attention(x[:, :, :1], x, x, 1.0, SparseWindow(0.5), SparseWindow(0.5).history(1))
