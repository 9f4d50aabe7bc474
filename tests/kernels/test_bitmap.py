"""The bitmap format: what is stored where, that it grows, and what is refused."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors import _files
from sparsepriors.kernels import BitmapTensor, Packed, bitmap, pack_bitmap, reference

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def drawn(shape, seed, dtype=torch.float32, density=0.4):
    """Small integers, so that magnitudes are often tied, most of them zero, some of these negative zeros."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(-4, 5, shape, generator=g) + torch.randint(0, 2, shape, generator=g) / 4
    return torch.where(torch.rand(shape, generator=g) < density, x, -0.0).to(dtype)


def pruned(x, keep):
    return torch.where(reference.topk_mask(x.abs().float(), keep), x, 0)


def assert_same(a, b):
    """Equal kinds, equal contents; the memory behind may differ."""
    assert (a.shape, a.orientation, a.pad, a.dtype) == (b.shape, b.orientation, b.pad, b.dtype)
    assert torch.equal(a.bitmap, b.bitmap)
    assert torch.equal(a.offsets, b.offsets)
    assert torch.equal(a.dense(), b.dense())
    assert torch.equal(a.dense(), bitmap.unpacked(a))


@given(st.sampled_from(DTYPES), st.sampled_from(bitmap.ORIENTATIONS), st.sampled_from(bitmap.PADS),
       st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 3), st.sampled_from([1, 5, 64, 80, 128])),
       st.floats(0, 1), st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 10**6))
def test_packed_and_back(dtype, orientation, pad, shape, share, density, seed):
    batch, heads, blocks, channels = shape
    x = drawn((batch, heads, 64 * blocks, channels), seed, dtype, density)
    keep = round(share * channels)
    for kept, want in ((None, x), (keep, pruned(x, keep))):
        packed = pack_bitmap(x, orientation, kept, pad)
        assert torch.equal(packed.dense(), want)
        assert torch.equal(bitmap.unpacked(packed), want)
        assert packed.nnz == int((want != 0).sum())
        BitmapTensor(packed.bitmap, packed.offsets, packed.values, packed.shape, orientation, pad)


@pytest.mark.parametrize("orientation", bitmap.ORIENTATIONS)
def test_where_an_entry_lies(orientation):
    x = torch.zeros(1, 1, 128, 128)
    x[0, 0, 64 + 5, 64 + 7] = 3.0
    packed = pack_bitmap(x, orientation)
    tile, bit = (64 + 7, 5) if orientation == "key" else (64 + 5, 7)
    assert packed.bitmap.nonzero().tolist() == [[0, 1, tile]]
    assert packed.bitmap[0, 1, tile] == 1 << bit
    assert packed.offsets.tolist() == [[0, 0, 1]]


def test_the_published_example():
    """Channels 0, 1 and 63 of a token are there: the word 0xC000000000000001, eight values, four pairs."""
    x = torch.zeros(1, 1, 64, 64)
    x[0, 0, 0, [0, 1, 63]] = torch.tensor([1.5, -2.0, 0.5])
    words, offsets, values = pack_bitmap(x, "value").official()
    assert words[0, 0] == 0xC000000000000001 - 2**64
    assert not words[0, 1:].any()
    assert offsets.tolist() == [[0] + 64 * [4]]
    assert values.tolist() == [[1.5, -2.0, 0.5, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize("orientation", bitmap.ORIENTATIONS)
@pytest.mark.parametrize("pad", bitmap.PADS)
def test_the_official_layout_reads_back(orientation, pad):
    """By the formula of the published kernel: entry e is values[popcount(word >> (64 - e))] of its tile."""
    x = drawn((2, 2, 128, 64), 3)
    words, offsets, values = pack_bitmap(x, orientation, pad=pad).official()
    tiles = x.reshape(4, 2, 64, 64)
    tiles = (tiles.mT if orientation == "key" else tiles).reshape(4, 128, 64)
    for row, tile in ((0, 0), (1, 77), (3, 127)):
        word = int(words[row, tile]) % 2**64
        mine = values[row, 2 * offsets[row, tile]:2 * offsets[row, tile + 1]]
        assert mine.numel() % 8 == 0
        got = [mine[(word >> (64 - e)).bit_count()] if word >> (63 - e) & 1 else 0.0 for e in range(64)]
        assert torch.equal(torch.tensor(got), tiles[row, tile])


@given(st.sampled_from(bitmap.ORIENTATIONS), st.sampled_from(bitmap.PADS), st.booleans(),
       st.lists(st.integers(0, 2), min_size=1, max_size=4), st.integers(0, 10**6))
def test_appending_is_packing_the_whole(orientation, pad, keep, blocks, seed):
    x = drawn((2, 2, 64 * sum(blocks), 64), seed)
    kept = 20 if keep else None
    parts = [pack_bitmap(part, orientation, kept, pad) for part in x.split([64 * n for n in blocks], dim=2)]
    steps = parts[:1]
    for part in parts[1:]:
        steps.append(steps[-1].append(part))
    for n, step in enumerate(steps):
        assert_same(step, pack_bitmap(x[:, :, :64 * sum(blocks[:n + 1])], orientation, kept, pad))


def test_two_futures_of_one_cache_do_not_disturb_each_other():
    x = drawn((1, 2, 64 * 42, 64), 0)
    past = pack_bitmap(x[:, :, :64 * 40], "key").append(pack_bitmap(x[:, :, 64 * 40:64 * 41], "key"))
    here = past.append(pack_bitmap(x[:, :, 64 * 41:], "key"))
    assert here.values.untyped_storage().data_ptr() == past.values.untyped_storage().data_ptr()
    there = past.append(pack_bitmap(-x[:, :, 64 * 41:], "key"))
    again = here.crop(64 * 41).append(pack_bitmap(x[:, :, :64], "key"))
    assert torch.equal(past.dense(), x[:, :, :64 * 41])
    assert torch.equal(here.dense(), x)
    assert torch.equal(there.dense(), torch.cat((x[:, :, :64 * 41], -x[:, :, 64 * 41:]), dim=2))
    assert torch.equal(again.dense(), torch.cat((x[:, :, :64 * 41], x[:, :, :64]), dim=2))


def test_growing_moves_the_cache_seldom_and_holds_little_spare():
    block = pack_bitmap(drawn((1, 2, 64, 64), 1, torch.bfloat16, density=1.0), "value", keep=19)
    cache, moves, memory = block, 0, 0
    for _ in range(199):
        cache = cache.append(block)
        moves += cache.values.untyped_storage().data_ptr() != memory
        memory = cache.values.untyped_storage().data_ptr()
        if cache.blocks > 32:
            assert cache.spare_nbytes < cache.nbytes / 12
    assert moves < 80
    fresh = pack_bitmap(cache.dense(), "value")
    assert fresh.nbytes == cache.nbytes - cache.spare_nbytes + fresh.spare_nbytes
    assert fresh.spare_nbytes == 2 * bitmap.SLACK * 2


def test_bytes_against_dense():
    """At half the channels a tile of values takes 8 bytes and 32 values, and a block 4 bytes more."""
    x = torch.randn(1, 2, 4096, 128).bfloat16()
    packed = pack_bitmap(x, "value", keep=64)
    assert packed.nbytes - packed.spare_nbytes == 2 * (4096 * 2 * (8 + 2 * 32) + 4 * 65)
    for orientation in bitmap.ORIENTATIONS:
        assert pack_bitmap(x, orientation, keep=38).nbytes < 0.37 * x.nbytes


def test_beams_are_chosen_and_repeated():
    x = drawn((3, 2, 64, 64), 5)
    packed = pack_bitmap(x, "key", keep=10)
    order = torch.tensor([2, 0, 0, 1])
    assert_same(packed.select(order), pack_bitmap(x[order], "key", keep=10))
    assert_same(packed.select(torch.tensor([True, False, True])), pack_bitmap(x[[0, 2]], "key", keep=10))
    assert_same(packed.repeat_interleave(2), pack_bitmap(x.repeat_interleave(2, dim=0), "key", keep=10))


def test_a_file_gives_the_same_data_back(tmp_path):
    x = drawn((2, 2, 192, 64), 7, torch.bfloat16)
    packed = pack_bitmap(x[:, :, :128], "value", pad=8).append(pack_bitmap(x[:, :, 128:], "value", pad=8))
    packed.save(tmp_path / "cache.safetensors")
    back = Packed.load(tmp_path / "cache.safetensors")
    assert isinstance(back, BitmapTensor)
    assert_same(back, packed)
    assert torch.equal(back.dense(), x)


def damaged(**change):
    packed = pack_bitmap(drawn((1, 2, 128, 64), 0), "key")
    return {f.name: getattr(packed, f.name) for f in dataclasses.fields(packed) if f.init} | {
        name: value(getattr(packed, name)) for name, value in change.items()}


@pytest.mark.public_door
@pytest.mark.parametrize(("change", "error", "words"), [
    ({"offsets": lambda t: t + 1}, ValueError, "begin at 0"),
    ({"offsets": lambda t: t * 100}, ValueError, "end 64 entries before the width"),
    ({"values": lambda t: t[:, :-1]}, ValueError, "end 64 entries before the width"),
    ({"bitmap": lambda t: t ^ 1}, ValueError, "do not agree with the bits"),
    ({"bitmap": lambda t: t[:, :1]}, ValueError, r"bitmap must have shape \(2, 2, 64\), got \(2, 1, 64\)"),
    ({"values": lambda t: t.double()}, TypeError, "values must be torch.float32"),
    ({"offsets": lambda t: t.long()}, TypeError, "offsets must be torch.int32"),
    ({"shape": lambda s: (1, 2, 100, 64)}, ValueError, "a multiple of 64 tokens"),
    ({"shape": lambda s: (1, 2, 128)}, ValueError, "shape must be"),
    ({"orientation": lambda o: "keys"}, ValueError, "did you mean 'key'"),
    ({"pad": lambda p: 4}, ValueError, "pad must be one of 1, 8, got 4"),
])
def test_damage_is_found(change, error, words, tmp_path):
    parts = damaged(**change)
    with pytest.raises(error, match=words):
        BitmapTensor(**parts)
    tensors = {name: t for name, t in parts.items() if isinstance(t, torch.Tensor)}
    plain = {name: value for name, value in parts.items() if name not in tensors}
    path = tmp_path / "cache.safetensors"
    _files.write_tensors(path, tensors, {"packed": str({"format": "BitmapTensor", "fields": plain})
                                         .replace("'", '"').replace("(", "[").replace(")", "]")})
    with pytest.raises(ValueError, match="cache.safetensors"):
        BitmapTensor.load(path)


@pytest.mark.public_door
@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda p: p.append(pack_bitmap(torch.ones(1, 1, 64, 8), "key")), ValueError, "block must have .*1, 2, 8, 'key'"),
    (lambda p: p.append(pack_bitmap(torch.ones(1, 2, 64, 8), "value")), ValueError, "block must have"),
    (lambda p: p.crop(100), ValueError, "tokens must be a multiple of 64, got 100"),
    (lambda p: p.crop(256), ValueError, "tokens must be from 0 to 128"),
    (lambda p: p.select(torch.tensor([1])), ValueError, "places from 0 to 0"),
    (lambda p: p.select(torch.tensor([True, False])), ValueError, "each of 1 sequences"),
    (lambda p: p.select([0]), TypeError, "vector of places"),
    (lambda p: p.repeat_interleave(0), ValueError, "repeats must be at least 1"),
    (lambda p: bitmap.check_offset(2**31 - 64), ValueError, "a head can hold 2147483583 values"),
])
def test_what_does_not_fit_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call(pack_bitmap(torch.ones(1, 2, 128, 8), "key"))
