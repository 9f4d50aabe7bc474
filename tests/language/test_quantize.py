"""Quantised keys and values: how far an entry can move, what comes back exactly, what it weighs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsepriors.language.quantize import pack_codes, quantize_kv, unpack_codes


def sample(blocks, block, dim, scale, offset, seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, blocks * block, dim, generator=generator) * scale
    return (x + offset * torch.randn(2, 3, 1, dim, generator=generator)).to(dtype)


CASES = {"blocks": st.integers(0, 3), "block": st.sampled_from([1, 2, 5, 64]), "dim": st.integers(1, 7),
         "scale": st.sampled_from([1e-6, 0.1, 1.0, 300.0]), "offset": st.sampled_from([0.0, 1.0, 100.0]),
         "seed": st.integers(0, 99)}


@settings(max_examples=20)
@given(bits=st.sampled_from([4, 8]), **CASES)
def test_no_entry_moves_by_more_than_half_a_step_of_its_channel(bits, **case):
    x, block = sample(**case), case["block"]
    back = quantize_kv(x, bits, block).dequantize()
    assert back.shape == x.shape
    assert back.dtype == x.dtype
    parts = x.unflatten(-2, (-1, block)) if x.shape[-2] else x.reshape(2, 3, 0, block, x.shape[-1])
    step = (parts.amax(-2) - parts.amin(-2)) / (2**bits - 1)
    error = (back - x).abs().reshape(parts.shape)
    rounding = 1e-6 * parts.abs() + 2.0**-24 * 2**bits * parts.abs()
    assert (error <= 0.5 * step[..., None, :] * (1 + 1e-5) + rounding).all()


@settings(max_examples=20)
@given(bits=st.sampled_from([4, 8]), **CASES)
def test_quantising_what_was_quantised_changes_no_code(bits, **case):
    x, block = sample(**case), case["block"]
    once = quantize_kv(x, bits, block)
    twice = quantize_kv(once.dequantize(), bits, block)
    span = unpack_codes(once.codes, bits, once.dim)
    assert (unpack_codes(twice.codes, bits, once.dim).int() - span.int()).abs().max() <= 1 if x.numel() else True
    torch.testing.assert_close(twice.dequantize(), once.dequantize(), rtol=1e-4, atol=1e-4 * float(once.scale.max())
                               if x.numel() else 0)


@pytest.mark.parametrize("bits", [4, 8])
def test_the_extremes_use_the_whole_range_and_constants_are_kept(bits):
    x = torch.randn(1, 1, 64, 5)
    x[..., 2], x[..., 3] = 0.0, -7.25
    q = quantize_kv(x, bits)
    codes = unpack_codes(q.codes, bits, 5)
    for channel in (0, 1, 4):
        assert int(codes[..., channel].min()) == 0
        assert int(codes[..., channel].max()) == 2**bits - 1
    assert torch.equal(q.dequantize()[..., 2:4], x[..., 2:4])


def test_blocks_are_independent():
    x = torch.randn(2, 128, 8)
    y = x.clone()
    y[:, 64:] *= 50
    assert torch.equal(quantize_kv(x).dequantize()[:, :64], quantize_kv(y).dequantize()[:, :64])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_comes_back(dtype):
    x = torch.randn(64, 6).to(dtype)
    back = quantize_kv(x).dequantize()
    assert back.dtype == dtype
    torch.testing.assert_close(back.double(), x.double(), rtol=0.02, atol=0.02)


@given(st.integers(1, 9), st.integers(0, 99))
def test_packed_codes_come_back(dim, seed):
    codes = torch.randint(0, 16, (3, dim), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    assert torch.equal(unpack_codes(pack_codes(codes, 4), 4, dim), codes)
    assert pack_codes(codes, 4).shape[-1] == (dim + 1) // 2


def test_bytes_are_those_of_codes_and_scales():
    x = torch.randn(2, 3, 128, 64)
    assert quantize_kv(x, 8).nbytes() == x.numel() + 2 * 3 * 2 * 64 * 8
    assert quantize_kv(x, 4).nbytes() == x.numel() // 2 + 2 * 3 * 2 * 64 * 8


@pytest.mark.public_door
@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: quantize_kv(torch.ones(64, 4), bits=3), ValueError, "bits must be one of 4, 8, got 3"),
    (lambda: quantize_kv(torch.ones(65, 4)), ValueError, r"multiple of block = 64, got \(65, 4\)"),
    (lambda: quantize_kv(torch.ones(64, 4), block=0), ValueError, "block must be at least 1"),
    (lambda: quantize_kv(torch.ones(64, 4, dtype=torch.long)), TypeError, "x must be floating point"),
    (lambda: quantize_kv(torch.ones(64, 4, dtype=torch.complex64)), TypeError, "x must be real"),
    (lambda: quantize_kv(torch.full((64, 4), torch.nan)), ValueError, "NaN or infinite"),
])
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
