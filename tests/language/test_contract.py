"""What every cache promises: decoding, replay, batches, beams, padding, cropping, counting, refusals."""

from __future__ import annotations

import functools

import pytest
import torch

from language.caches import CACHES, Row
from language.tiny import tiny_model, tokens
from sparsepriors.language import SparseCache, sparse_kv
from sparsepriors.testing import cache_checks, check_cache

LENGTH, PROMPT = 86, 76   # enough for every row of the table to give something up


@pytest.fixture(params=CACHES, scope="module")
def row(request: pytest.FixtureRequest) -> Row:
    return CACHES[request.param]


@pytest.fixture
def model(row: Row):
    return _model(row.dtype)


@functools.cache
def _model(dtype: torch.dtype):
    return tiny_model(dtype=dtype)


@pytest.fixture
def cache(row: Row, model) -> SparseCache:
    return row.make(model.config)


def _close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    precise = ours.dtype == torch.float64
    torch.testing.assert_close(ours, theirs, rtol=1e-7 if precise else 1e-3, atol=1e-7 if precise else 1e-3)


@torch.no_grad()
def _decode(model, cache: SparseCache, ids: torch.Tensor, prompt: int, mask: torch.Tensor | None = None):
    """Logits of every step after the prompt, and of its last token."""
    found = []
    with sparse_kv(model, cache):
        for low, high in [(0, prompt), *((t, t + 1) for t in range(prompt, ids.shape[1]))]:
            part = None if mask is None else mask[:, :high]
            found.append(model(ids[:, low:high], attention_mask=part, cache=cache, logits_to_keep=1).logits)
    return torch.cat(found, dim=1)


def test_the_published_contract(row: Row) -> None:
    assert check_cache(row.make, dtype=row.dtype, prompt=PROMPT, steps=LENGTH - PROMPT) == list(cache_checks())


def test_pads_on_the_left_change_nothing(row: Row, model) -> None:
    if not row.padded:
        pytest.skip("what this cache keeps depends on how many tokens stand before, pads included")
    ids, pads = tokens(1, LENGTH), 7
    alone = _decode(model, row.make(model.config), ids, PROMPT)
    both = torch.cat([torch.cat([torch.zeros(1, pads, dtype=torch.int64), ids], dim=1), tokens(1, LENGTH + pads, 3)])
    mask = torch.ones_like(both)
    mask[0, :pads] = 0
    with torch.no_grad():
        padded = _decode_padded(model, row.make(model.config), both, PROMPT + pads, mask)
    _close(padded[:1], alone)


def _decode_padded(model, cache: SparseCache, ids: torch.Tensor, prompt: int, mask: torch.Tensor) -> torch.Tensor:
    places = (mask.cumsum(dim=1) - 1).clamp(min=0)
    found = []
    with sparse_kv(model, cache):
        for low, high in [(0, prompt), *((t, t + 1) for t in range(prompt, ids.shape[1]))]:
            found.append(model(ids[:, low:high], attention_mask=mask[:, :high], position_ids=places[:, low:high],
                               cache=cache, logits_to_keep=1).logits)
    return torch.cat(found, dim=1)


def test_padded_batches_are_decoded_without_nan(row: Row, model) -> None:
    ids = tokens(2, LENGTH)
    mask = torch.ones_like(ids)
    mask[0, :50] = 0
    assert torch.isfinite(_decode_padded(model, row.make(model.config), ids, PROMPT, mask)).all()


def test_the_batch_is_repeated_and_chosen(row: Row, model) -> None:
    ids = tokens(2, LENGTH)
    wide, narrow = row.make(model.config), row.make(model.config)
    _decode(model, narrow, ids[1:], PROMPT)
    _decode(model, wide, ids, PROMPT)
    wide.batch_repeat_interleave(2)
    wide.batch_select_indices(torch.tensor([False, False, False, True]))
    more = tokens(1, 4, seed=5)
    _close(_decode(model, wide, more, 1), _decode(model, narrow, more, 1))


def test_tokens_taken_back_are_forgotten(row: Row, model) -> None:
    ids = tokens(2, LENGTH)
    if not row.crops:
        refusing = row.make(model.config)
        assert not refusing.is_croppable
        _decode(model, refusing, ids, PROMPT)
        with pytest.raises(ValueError, match="not come back"):
            refusing.crop(-40)
        return
    cropped, shorter = row.make(model.config), row.make(model.config)
    _decode(model, shorter, ids[:, :3], 3)   # so short that nothing is given up yet
    _decode(model, cropped, ids[:, :5], 3)
    cropped.crop(-2)
    assert cropped.get_seq_length() == 3
    more = tokens(2, 6, seed=5)
    _close(_decode(model, cropped, more, 1), _decode(model, shorter, more, 1))
    cropped.reset()
    _decode(model, cropped, ids, PROMPT)
    for count in (0, 40, 30):
        cropped.crop(-count)
        assert torch.isfinite(_decode(model, cropped, ids[:, :2], 1)).all()
    assert cropped.get_seq_length() == LENGTH - 70 + 6
    cropped.crop(-cropped.get_seq_length())
    assert cropped.get_seq_length() == cropped.nbytes() == 0
    for wrong in (1, -1):
        with pytest.raises(ValueError, match="crop takes minus the number"):
            cropped.crop(wrong)


def test_bytes_are_counted(model, cache: SparseCache) -> None:
    assert (cache.nbytes(), cache.dense_nbytes(), cache.compression()) == (0, 0, 1.0)
    _decode(model, cache, tokens(2, LENGTH), PROMPT)
    assert cache.dense_nbytes() == 2 * 2 * 2 * LENGTH * 2 * 64 * model.dtype.itemsize
    assert 0 < cache.nbytes() == sum(layer.nbytes() for layer in cache.layers)
    assert cache.get_seq_length() == LENGTH


def test_what_cannot_be_kept_is_refused(model, cache: SparseCache) -> None:
    layer = cache.layers[1]
    good = torch.zeros(1, 2, 3, 64)
    with pytest.raises(RuntimeError, match=r"inside `with sparse_kv\(model, cache\):`"):
        layer.update(good, good)
    with sparse_kv(model, cache):
        for name, pair in (("keys", (good / 0, good)), ("values", (good, good / 0))):
            with pytest.raises(ValueError, match=f"{name} of layer 1 hold NaN"):
                layer.update(*pair)
        with pytest.raises(TypeError, match="must be torch.float32"):
            layer.update(good, good.half())
        with pytest.raises(ValueError, match="before another batch"):
            layer.update(good.expand(2, -1, -1, -1), good.expand(2, -1, -1, -1))
        layer.update(good, good)
        with pytest.raises(TypeError, match="mask must be boolean"):
            layer.attend(torch.zeros(1, 4, 3, 64), torch.zeros(1, 1, 3, 3), 1.0)
        with pytest.raises(RuntimeError, match="handed no tokens"):
            layer.attend(good, None, 1.0)
    with pytest.raises(NotImplementedError, match="cannot be offloaded"):
        layer.offload()
