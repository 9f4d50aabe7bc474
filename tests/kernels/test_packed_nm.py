import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.kernels import PackedNM, nm_mask, pack_linear_nm

PATTERNS = [(1, 1), (1, 2), (2, 4), (1, 4), (3, 5), (4, 8), (1, 8), (5, 16), (1, 32), (8, 31)]


def sparse(out_features: int, groups: int, n: int, m: int, seed: int) -> torch.Tensor:
    """A weight with up to n nonzeros in a group, fewer in many."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out_features, groups * m, generator=generator)
    weight = torch.where(nm_mask(weight.abs(), n, m), weight, 0.0)
    return torch.where(torch.rand(weight.shape, generator=generator) < 0.3, 0.0, weight)


@given(st.sampled_from(PATTERNS), st.integers(1, 40), st.integers(1, 9),
       st.sampled_from([torch.float32, torch.bfloat16]), st.integers(0, 999))
def test_what_was_packed_comes_back_to_the_bit(nm, out_features, groups, dtype, seed):
    n, m = nm
    weight = sparse(out_features, groups, n, m, seed).to(dtype)
    packed = pack_linear_nm(weight, n, m)
    assert packed.values.dtype == dtype
    assert torch.equal(packed.dense(), weight)
    values, places = packed.unpacked()
    assert values.shape == places.shape == (out_features, groups * n)
    assert (places.unflatten(1, (groups, n)).diff(dim=-1) > 0).all()


@pytest.mark.parametrize(("n", "m", "dtype", "share"), [
    (2, 4, torch.float32, (4 + 2 / 8) * 2 / 16), (2, 4, torch.bfloat16, (2 + 2 / 8) * 2 / 8),
    (1, 8, torch.float32, (4 + 3 / 8) / 32), (1, 4, torch.bfloat16, (2 + 2 / 8) / 8)])
def test_bytes_are_values_and_as_few_bits_of_places_as_they_need(n, m, dtype, share):
    packed = pack_linear_nm(sparse(64, 64, n, m, 0), n, m, dtype=dtype)
    assert packed.nbytes == round(share * packed.dense_nbytes) + 16


def test_the_record_of_a_pair():
    weight = torch.zeros(16, 4)
    weight[0, [1, 3]] = torch.tensor([5.0, 7.0])
    weight[5, 2] = 3.0
    packed = pack_linear_nm(weight, 2, 4)
    assert packed.values.shape == (1, 1, 2, 16)
    assert packed.values[0, 0, :, 0].tolist() == [5.0, 7.0]
    assert packed.values[0, 0, :, 5].tolist() == [0.0, 3.0]   # a zero at the first free place, in front of column 2
    rows = {0: 0b1101, 5: 0b1000}                             # second place, first place
    record = sum(rows.get(r, 0b0100) << 4 * r for r in range(16))
    assert bytes(packed.places[:8].tolist()) == record.to_bytes(8, "little")


def test_the_bias_is_kept_in_single_precision():
    weight = sparse(5, 2, 2, 4, 0)
    bias = torch.randn(5, dtype=torch.float64)
    packed = pack_linear_nm(weight, 2, 4, bias)
    assert torch.equal(packed.bias, bias.float())
    assert packed.nbytes - pack_linear_nm(weight, 2, 4).nbytes == 5 * 4


def test_nan_and_infinite_weights_are_kept():
    weight = torch.tensor([[0.0, torch.nan, 0.0, torch.inf]])
    assert torch.equal(pack_linear_nm(weight, 2, 4).dense(), weight) is False
    assert pack_linear_nm(weight, 2, 4).dense().isnan().tolist() == [[False, True, False, False]]
    assert pack_linear_nm(weight, 2, 4).dense()[0, 3] == torch.inf


@pytest.mark.public_door
@pytest.mark.parametrize(("arguments", "error", "message"), [
    ((torch.ones(2, 8), 2, 4), ValueError, r"not 2:4 sparse: group \(0, 0\) has 4 nonzeros"),
    ((torch.zeros(2, 6), 2, 4), ValueError, "the rows of weight must be a multiple of m = 4, got 6"),
    ((torch.zeros(8), 2, 4), ValueError, r"weight must have shape \(out_features, in_features\), got \(8,\)"),
    ((torch.zeros(0, 8), 2, 4), ValueError, r"weight must have shape .* got \(0, 8\)"),
    ((torch.zeros(1, 64), 2, 64), ValueError, "m must be from 1 to 32"),
    ((torch.zeros(1, 8), 5, 4), ValueError, "n must be from 1 to 4"),
    ((torch.zeros(1, 8, dtype=torch.int64), 2, 4), TypeError, "weight must be a floating point tensor"),
    ((torch.zeros(1, 8), 2, 4, torch.zeros(2)), ValueError, r"bias must have shape \(1,\), got \(2,\)"),
    ((torch.zeros(1, 8), 2, 4, 0.0), ValueError, r"bias must have shape \(1,\), got float"),
])
def test_what_cannot_be_packed_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        pack_linear_nm(*arguments)


@pytest.mark.public_door
def test_other_dtypes_are_refused():
    with pytest.raises(ValueError, match=r"dtype must be torch\.float32 or torch\.bfloat16, got torch\.float16"):
        pack_linear_nm(torch.zeros(1, 8), 2, 4, dtype=torch.float16)


@pytest.mark.public_door
@pytest.mark.parametrize(("change", "message"), [
    ({"values": torch.zeros(1, 2, 2, 8)}, r"values must be float32 or bfloat16 of shape \(1, 2, 2, 16\)"),
    ({"values": torch.zeros(1, 2, 2, 16, dtype=torch.float16)}, r"got torch\.float16"),
    ({"values": None}, "values must be a tensor"),
    ({"places": torch.zeros(15, dtype=torch.uint8)}, r"places must be uint8 of shape \(32,\)"),
    ({"places": torch.zeros(32)}, r"got torch\.float32"),
    ({"places": torch.full((32,), 255, dtype=torch.uint8)}, "places must be below m = 3, got 3"),
    ({"bias": torch.zeros(3)}, r"bias must be float32 of shape \(2,\)"),
    ({"bias": [0.0, 0.0]}, "bias must be a tensor"),
    ({"out_features": 0}, "out_features must be at least 1"),
    ({"out_features": "2"}, "out_features must be an integer"),
    ({"in_features": 7}, "in_features must be a multiple of m = 3, got 7"),
    ({"n": 4}, "n must be from 1 to 3"),
])
def test_indices_and_shapes_are_checked_before_a_kernel_follows_them(change, message):
    packed = pack_linear_nm(torch.eye(2, 6), 2, 3, torch.zeros(2))
    with pytest.raises((TypeError, ValueError), match=message):
        dataclasses.replace(packed, **change)


@pytest.mark.parametrize("bias", [None, torch.ones(5)])
def test_a_file_holds_the_bias_or_none(bias, tmp_path):
    packed = pack_linear_nm(sparse(5, 3, 2, 4, 1), 2, 4, bias)
    packed.save(tmp_path / "w.safetensors")
    back = PackedNM.load(tmp_path / "w.safetensors")
    assert torch.equal(back.dense(), packed.dense())
    assert back.bias is None if bias is None else torch.equal(back.bias, bias)
