"""Attention over packed caches against float64 attention over the same tokens written out."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.kernels import bitmap_attention, bitmap_mix, bitmap_scores, instruction_sets, pack_bitmap

BODIES = instruction_sets() or (None,)


def cache(seed, heads, tokens, recent, channels, keep, dtype=torch.float32):
    """Packed keys and values, the dense tokens after them, and both written out."""
    g = torch.Generator().manual_seed(seed)
    k, v = (torch.randn(2, heads, tokens + recent, channels, generator=g).to(dtype) for _ in "kv")
    packed = pack_bitmap(k[:, :, :tokens], "key", keep), pack_bitmap(v[:, :, :tokens], "value", keep)
    after = k[:, :, tokens:], v[:, :, tokens:]
    dense = tuple(torch.cat((p.dense(), t), dim=2).double() for p, t in zip(packed, after, strict=True))
    return packed, after, (dense[0], dense[1])


def exact(q, keys, values, scale, mask=None):
    group = q.shape[1] // keys.shape[1]
    scores = torch.einsum("bhd,bhtd->bht", q.double(), keys.repeat_interleave(group, dim=1)) * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return torch.einsum("bht,bhtd->bhd", scores.softmax(dim=-1), values.repeat_interleave(group, dim=1))


@given(st.sampled_from(BODIES), st.integers(1, 3), st.integers(1, 9), st.integers(0, 10), st.integers(1, 70),
       st.sampled_from([16, 64, 72, 128]), st.floats(0.05, 1), st.integers(0, 10**6))
def test_one_softmax_over_packed_and_dense_tokens(body, heads, group, blocks, recent, channels, share, seed):
    packed, after, dense = cache(seed, heads, 64 * blocks, recent, channels, max(1, round(share * channels)))
    q = torch.randn(2, heads * group, channels, generator=torch.Generator().manual_seed(seed))
    found = bitmap_attention(q, *packed, *after, channels ** -0.5, instruction_set=body)
    assert float((found - exact(q, *dense, channels ** -0.5)).abs().max()) < 1e-5


@pytest.mark.parametrize("body", BODIES)
def test_a_query_that_sees_nothing_gets_zeros_and_the_others_what_they_see(body):
    packed, after, dense = cache(0, 2, 640, 5, 64, 20)
    q = torch.randn(2, 4, 64)
    mask = torch.rand(2, 4, 645) < 0.3
    mask[0, 1] = False
    mask[:, 2, :640] = False
    mask[:, 2, 640:] = True
    found = bitmap_attention(q, *packed, *after, 0.125, mask, instruction_set=body)
    assert not found[0, 1].any()
    seen = mask.any(dim=-1)
    due = exact(q, *dense, 0.125, mask | ~seen[..., None])
    torch.testing.assert_close(found[seen], due[seen].float(), rtol=0, atol=1e-5)
    added = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
    assert torch.equal(bitmap_attention(q, *packed, *after, 0.125, added, instruction_set=body), found)


@pytest.mark.parametrize("body", BODIES)
def test_large_scores_neither_overflow_nor_vanish(body):
    packed, after, dense = cache(1, 1, 576, 3, 64, 64)
    q = 300 * torch.randn(2, 3, 64)
    found = bitmap_attention(q, *packed, *after, 1.0, instruction_set=body)
    torch.testing.assert_close(found, exact(q, *dense, 1.0).float(), rtol=0, atol=1e-2)
    assert bool(found.isfinite().all())


def test_several_queries_of_a_sequence_stand_where_heads_do():
    packed, after, dense = cache(2, 2, 128, 4, 64, 32)
    q = torch.randn(2, 2, 4, 64)                          # two heads, a query for each of the dense tokens
    sees = torch.ones(4, 132, dtype=torch.bool)
    sees[:, 128:] = torch.ones(4, 4, dtype=torch.bool).tril()
    found = bitmap_attention(q.flatten(1, 2), *packed, *after, 0.2, sees.repeat(2, 1).expand(2, -1, -1))
    for i in range(4):
        due = exact(q[:, :, i], *dense, 0.2, sees[i])
        torch.testing.assert_close(found.unflatten(1, (2, 4))[:, :, i], due.float(), rtol=0, atol=1e-5)


def test_attention_is_its_parts():
    packed, after, _ = cache(3, 2, 192, 0, 64, 20, torch.bfloat16)
    q = torch.randn(2, 4, 64)
    weights = (bitmap_scores(q, packed[0]) * 0.125).softmax(dim=-1)
    torch.testing.assert_close(bitmap_mix(weights, packed[1]), bitmap_attention(q, *packed, *after, 0.125),
                               rtol=0, atol=1e-6)


def test_a_copied_cache_goes_its_own_way():
    packed, _, _ = cache(4, 1, 128, 0, 64, 20)
    q = torch.randn(2, 2, 64)
    grown = packed[0].append(packed[0])
    before = bitmap_scores(q, grown)
    twin = copy.deepcopy(grown)
    longer = twin.append(pack_bitmap(torch.ones(2, 1, 64, 64), "key"))
    assert torch.equal(bitmap_scores(q, twin), before)
    assert torch.equal(bitmap_scores(q, grown), before)
    assert torch.equal(bitmap_scores(q, longer)[..., :256], before)


@pytest.mark.public_door
def test_another_device_is_refused():
    with pytest.raises(ValueError, match="q must be on cpu, as the packed data are, got meta"):
        bitmap_scores(torch.ones(1, 2, 8, device="meta"), pack_bitmap(torch.ones(1, 2, 64, 8), "key"))
