"""ALISA's cache: where tokens lie changes nothing in the text, and everything that moves is in the books."""

import pytest
import torch

from language.tiny import tiny_model, tokens
from sparsepriors.language import ALISACache, Schedule, SelectedCache, perplexity, sparse_kv
from sparsepriors.language.alisa import ALISALayer
from sparsepriors.priors import SparseWindow

ROW = 2 * 2 * 64 * 8   # bytes of a token in a layer: keys and values, two heads, 64 channels, float64
LAYERS, PROMPT, STEPS = 2, 40, 30
THIRD = LAYERS * ROW * (PROMPT + STEPS) // 3


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@torch.no_grad()
def decode(model, cache, ids, prompt=PROMPT, mask=None):
    """Logits after the prompt and every step."""
    places = None if mask is None else (mask.cumsum(1) - 1).clamp(min=0)
    found = []
    with sparse_kv(model, cache):
        for low, high in [(0, prompt), *((t, t + 1) for t in range(prompt, ids.shape[1]))]:
            options = {} if mask is None or places is None else {"attention_mask": mask[:, :high],
                                                                 "position_ids": places[:, low:high]}
            found.append(model(ids[:, low:high], cache=cache, logits_to_keep=1, **options).logits)
    return torch.cat(found, dim=1)


def text(count=1, seed=1):
    return tokens(count, PROMPT + STEPS, seed)


@pytest.mark.parametrize("options", [
    {},
    {"slow": "disk"},
    {"kv_bits": 8, "block": 32},
    {"kv_bits": 4, "block": 32},
    {"schedule": Schedule(alpha=0.9, p1=5)},
    {"schedule": Schedule(beta=0.9, p1=0, p2=10)},
    {"schedule": Schedule(beta=1.0, p2=0), "recompute": "prefix"},
    {"schedule": Schedule(beta=0.7, p1=0, p2=3), "kv_bits": 8, "block": 32},
], ids=str)
def test_tiers_change_nothing(model, options):
    ids = text(2)
    whole = {k: v for k, v in options.items() if k in ("kv_bits", "block")}
    expected = decode(model, ALISACache(model.config, 0.3, **whole), ids)
    budget = 65 * LAYERS * ROW if "kv_bits" in options else THIRD
    cache = ALISACache(model.config, 0.3, fast_bytes=budget, **options)
    torch.testing.assert_close(decode(model, cache, ids), expected, rtol=1e-9, atol=1e-9)
    moved = cache.traffic()
    if "kv_bits" not in options:   # quantised, what is selected hardly ever leaves so small a budget
        assert moved.loaded > 0 or options.get("recompute") == "prefix"
    assert moved.offloaded > 0
    assert cache.fast_nbytes() <= budget
    assert (moved.deleted > 0) == (cache.schedule.beta > 0)
    assert (moved.recomputed > 0) == (cache.schedule.beta > 0 and "kv_bits" not in options)


def test_without_a_budget_it_is_the_sparse_window(model):
    ids = text()
    torch.testing.assert_close(decode(model, ALISACache(model.config, 0.3), ids),
                               decode(model, SelectedCache(model.config, SparseWindow(0.3)), ids))
    dense = decode(model, ALISACache(model.config, 1.0), ids)
    with torch.no_grad():
        torch.testing.assert_close(dense, model(ids).logits[:, PROMPT - 1:])


def test_any_budget_generates_the_same_tokens(model):
    ids = text()[:, :PROMPT]

    def generate(budget):
        cache = ALISACache(model.config, 0.2, fast_bytes=budget)
        with sparse_kv(model, cache):
            options = {"max_new_tokens": STEPS, "cache": cache, "do_sample": False}
            first = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
            again = torch.cat([first, tokens(1, 5, 7)], dim=1)   # a second question to the same cache
            return model.generate(again, attention_mask=torch.ones_like(again), **options)

    expected = generate(None)
    for share in (0.2, 0.5, 2):
        assert torch.equal(generate(int(THIRD * 3 * share)), expected)


def test_the_books_of_every_step(model):
    ids = text()
    capacity = 45
    cache = ALISACache(model.config, 0.3, fast_bytes=capacity * LAYERS * ROW, schedule=Schedule(beta=0.5, p1=3, p2=20))
    decode(model, cache, ids)
    assert [s.j for s in cache.trace] == list(range(-1, STEPS))
    assert [s.tokens for s in cache.trace] == list(range(PROMPT, PROMPT + STEPS + 1))
    phases = [s.phase for s in cache.trace]
    assert phases == [1] * 4 + [2] * 17 + [3] * 10   # the prompt, then steps 0 to 29
    for step in cache.trace:
        moved, n = step.traffic, step.tokens - 1
        if step.j >= 0:
            assert moved.hits + moved.loaded + moved.recomputed == LAYERS * SparseWindow(0.3).budget(n)
        assert moved.loaded_bytes == moved.loaded * ROW
        assert moved.offloaded_bytes == moved.offloaded * ROW
        assert moved.input_bytes == LAYERS * 48 * 8 * (PROMPT if step.j < 0 else 1)
        assert moved.offloaded == (LAYERS if step.tokens > capacity else 0)   # one token a step, once it is full
        assert moved.recomputed_bytes == moved.recomputed * 48 * 8
    total = cache.traffic()
    assert total.moved_bytes() == (total.loaded_bytes + total.offloaded_bytes + total.recomputed_bytes
                                   + total.input_bytes)
    assert total.deleted > 0


def test_padded_sequences_are_decoded_as_if_alone(model):
    pads = 9
    alone = [text(1, seed=s)[:, pads * s:] for s in (0, 1)]
    ids = torch.cat([alone[0], torch.cat([torch.zeros(1, pads, dtype=torch.int64), alone[1]], dim=1)])
    mask = torch.ones_like(ids)
    mask[1, :pads] = 0
    for options in ({}, {"schedule": Schedule(beta=0.6, p2=0)},
                    {"schedule": Schedule(beta=0.9, p2=0), "recompute": "prefix"}):
        together = decode(model, ALISACache(model.config, 0.3, fast_bytes=THIRD, **options), ids, mask=mask)
        for b, prompt in ((0, PROMPT), (1, PROMPT - pads)):
            single = decode(model, ALISACache(model.config, 0.3), alone[b], prompt=prompt)
            torch.testing.assert_close(together[b:b + 1], single, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("recompute", ["hidden", "prefix"])
def test_tokens_taken_back_and_a_new_text(model, recompute):
    ids, more = text(), tokens(1, 12, 9)
    options = {"fast_bytes": THIRD, "schedule": Schedule(beta=0.5, p1=2, p2=5), "recompute": recompute}
    cache, fresh = (ALISACache(model.config, 0.3, **options) for _ in range(2))
    decode(model, cache, torch.cat([ids, more], dim=1))
    cache.crop(-12)
    decode(model, fresh, ids)
    torch.testing.assert_close(decode(model, cache, more, prompt=1), decode(model, fresh, more, prompt=1))
    cache.reset()
    assert cache.nbytes() == cache.get_seq_length() == len(cache.trace) == 0
    torch.testing.assert_close(decode(model, cache, ids), decode(model, ALISACache(model.config, 0.3), ids))


def test_perplexity_on_tiers_is_that_of_one_memory(model):
    windows = tokens(2, 60)
    expected = perplexity(model, windows, 30, cache=ALISACache(model.config, 0.3))
    for steps in (False, True):
        found = perplexity(model, windows, 30, cache=ALISACache(model.config, 0.3, fast_bytes=THIRD), steps=steps)
        assert found.value == pytest.approx(expected.value, rel=1e-9)


def test_beams_are_refused_on_tiers_and_follow_without(model):
    ids = text()[:, :PROMPT]
    options = {"max_new_tokens": 4, "num_beams": 2, "attention_mask": torch.ones_like(ids)}
    cache = ALISACache(model.config, 0.3, fast_bytes=10 * THIRD)
    with pytest.raises(ValueError, match="beams, and choosing or repeating entries"), sparse_kv(model, cache):
        model.generate(ids, cache=cache, **options)
    cache = ALISACache(model.config, 0.3)
    with sparse_kv(model, cache):
        assert model.generate(ids, cache=cache, **options).shape == (1, PROMPT + 4)


def test_a_budget_below_the_local_window_is_refused_before_anything_is_kept(model):
    k = SparseWindow(0.5).half(PROMPT)
    least = LAYERS * k * ROW
    cache = ALISACache(model.config, 0.5, fast_bytes=least - LAYERS)
    with pytest.raises(ValueError, match=f"{k} newest of {PROMPT} tokens .* at least {least} bytes, got"):
        decode(model, cache, text())
    layer = cache.layers[0]
    assert isinstance(layer, ALISALayer)
    assert (layer.get_seq_length(), layer.nbytes(), len(cache.trace)) == (0, 0, 0)


def test_a_mask_with_a_hole_is_refused(model):
    ids = text()[:, :6]
    mask = torch.tensor([[1, 1, 0, 1, 1, 1]])
    with pytest.raises(ValueError, match="pad on the left"):
        decode(model, ALISACache(model.config, 0.5), ids, prompt=6, mask=mask)


@pytest.mark.public_door
@pytest.mark.parametrize(("options", "error", "message"), [
    ({"caching_ratio": 0.0}, ValueError, r"r must lie in \(0, 1\], got 0.0"),
    ({"kv_bits": 5}, ValueError, "kv_bits must be 4, 8 or 16, got 5"),
    ({"schedule": "Auto"}, ValueError, "schedule must be one of 'auto'"),
    ({"schedule": 3}, TypeError, "schedule must be 'auto' or a Schedule, got int"),
    ({"recompute": "prefxi"}, ValueError, "did you mean 'prefix'"),
    ({"fast_bytes": 0}, ValueError, "fast_bytes must be at least 2, got 0"),
    ({"fast_bytes": 10**6, "slow": "tape"}, ValueError, "slow must be one of"),
    ({"fast_bytes": 10**6, "head_shared": False}, ValueError, "head_shared=False needs fast_bytes=None"),
])
def test_bad_input_is_named(model, options, error, message):
    with pytest.raises(error, match=message):
        ALISACache(model.config, **options)


def test_a_model_of_another_kind_cannot_reproject(model):
    cache = ALISACache(model.config, 0.3, fast_bytes=THIRD, schedule=Schedule(beta=0.5))
    other = tiny_model()
    other.model.layers[1].self_attn.k_norm = torch.nn.Identity()
    with pytest.raises(ValueError, match="LlamaAttention is of another kind"), sparse_kv(other, cache):
        pass
    assert not any(m._forward_pre_hooks for m in other.modules())
