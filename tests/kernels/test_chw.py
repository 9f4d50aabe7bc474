import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.kernels import Packed, PackedCHW, pack_1x1, spmm_chw
from sparsepriors.kernels.chw import best_block


def _weight(outputs: int, channels: int, density: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, channels, generator=generator)
    return torch.where(torch.rand(outputs, channels, generator=generator) < density, weight, 0)


@given(st.integers(0, 14), st.integers(0, 20), st.sampled_from([0.0, 0.1, 0.5, 1.0]),
       st.sampled_from([1, 2, 4, "auto"]), st.integers(0, 999))
def test_packed_weights_come_back_to_the_bit(outputs, channels, density, block, seed):
    weight = _weight(outputs, channels, density, seed)
    bias = torch.randn(outputs, generator=torch.Generator().manual_seed(seed))
    packed = pack_1x1(weight, bias, block)
    assert torch.equal(packed.dense(), weight)
    assert torch.equal(packed.bias, bias)
    assert packed.nnz == torch.count_nonzero(weight)
    assert packed.block == (best_block(weight) if block == "auto" else block)


@given(st.sampled_from([1, 2, 4]), st.integers(1, 20), st.integers(0, 99))
def test_blocks_of_one_size_come_longest_first_and_columns_rise(block, outputs, seed):
    packed = pack_1x1(_weight(outputs, 30, 0.3, seed), block=block)
    counts, full = packed.starts.diff(), outputs // block
    assert (counts[:full].diff() <= 0).all()
    assert (counts[full:].diff() <= 0).all()
    for first, last in zip(packed.starts[:-1], packed.starts[1:], strict=True):
        assert (packed.columns[first:last].diff() > 0).all()


def test_a_kept_block_stores_its_zeros_and_a_4d_weight_is_a_matrix():
    weight = torch.zeros(5, 3)
    weight[1, 2], weight[4, 0] = 2.0, 3.0
    packed = pack_1x1(weight[:, :, None, None], block=4)
    assert packed.values.tolist() == [0, 2, 0, 0, 3]
    assert packed.columns.tolist() == [2, 0]
    assert (packed.rows.tolist(), packed.starts.tolist()) == ([0, 4], [0, 1, 2])
    assert packed.density == 2 / 15
    assert packed.nbytes == 4 * (5 + 2 + 3 + 2 + 5)


def test_the_block_follows_the_pattern():
    shared = _weight(16, 200, 0.2, 0).repeat_interleave(4, dim=0)
    assert best_block(shared) == 4
    assert best_block(_weight(64, 200, 0.2, 0).repeat_interleave(2, dim=0)) == 2
    assert best_block(_weight(64, 200, 0.1, 0)) == 1
    assert best_block(torch.ones(64, 200)) == 4


def test_weights_survive_files_and_copies(tmp_path):
    packed = pack_1x1(_weight(9, 12, 0.3, 1), torch.ones(9), 2)
    x = torch.randn(1, 12, 20, generator=torch.Generator().manual_seed(0))
    want = spmm_chw(x, packed)   # compiled weights are held from here on
    packed.save(tmp_path / "w.safetensors")
    for again in (Packed.load(tmp_path / "w.safetensors"), copy.deepcopy(packed), packed.to("cpu")):
        assert isinstance(again, PackedCHW)
        assert torch.equal(spmm_chw(x, again), want)


def test_the_result_goes_where_it_is_asked_for_and_gradients_pass():
    packed = pack_1x1(_weight(6, 8, 0.4, 2))
    x = torch.randn(2, 8, 3, 5, generator=torch.Generator().manual_seed(0))
    out = torch.empty(2, 6, 3, 5)
    assert spmm_chw(x, packed, 0.0, 6.0, out) is out
    assert torch.equal(out, spmm_chw(x, packed, 0.0, 6.0))
    x.requires_grad_()
    spmm_chw(x, packed).sum().backward()
    assert torch.allclose(x.grad, packed.dense().sum(dim=0)[None, :, None, None].expand_as(x), atol=1e-5)


@pytest.mark.parametrize(("outputs", "channels", "pixels"), [(500, 64, 197), (20, 200, 900), (33, 400, 113)])
@pytest.mark.parametrize("block", [1, 4])
@pytest.mark.parametrize("images", [1, 2, 3, 5])
def test_threads_that_share_outputs_or_pixels_change_no_bit(images, outputs, channels, pixels, block):
    generator = torch.Generator().manual_seed(images)
    rows = torch.linspace(0.05, 1.0, outputs)[:, None]   # from few weights to all
    weight = torch.where(torch.rand(outputs, channels, generator=generator) < rows, 1.5, 0.0)
    packed, x = pack_1x1(weight, block=block), torch.randn(images, channels, pixels, generator=generator)
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            found.append(spmm_chw(x, packed))
    finally:
        torch.set_num_threads(before)
    assert torch.allclose(found[0], weight @ x, atol=1e-3)
    assert all(torch.equal(y, found[0]) for y in found)


@given(st.integers(0, 3), st.integers(1, 70), st.integers(1, 9), st.integers(0, 99))
def test_linear_in_the_input_and_bounds_come_after_the_bias(images, pixels, outputs, seed):
    packed = pack_1x1(_weight(outputs, 11, 0.5, seed), torch.full((outputs,), 0.5))
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(images, 11, pixels, generator=generator)
    y = spmm_chw(x, packed)
    assert torch.allclose(spmm_chw(2 * x, packed) - 0.5, 2 * (y - 0.5), atol=1e-4)
    assert torch.equal(spmm_chw(x, packed, -0.25, 0.75), y.clamp(-0.25, 0.75))
    exact = torch.einsum("nc,bcp->bnp", packed.dense().double(), x.double()) + 0.5
    assert (y - exact).abs().max().item() <= 1e-5 * (1 + exact.abs().max().item()) if y.numel() else True


@pytest.mark.public_door
@pytest.mark.parametrize(("arguments", "error", "words"), [
    ((torch.ones(3),), ValueError, r"weight must have shape \(outputs, channels\)"),
    ((torch.ones(3, 2, 3, 3),), ValueError, r"got \(3, 2, 3, 3\)"),
    ((torch.ones(3, 2, dtype=torch.float64),), TypeError, "weight must be torch.float32"),
    ((torch.tensor([[torch.nan]]),), ValueError, "weight holds NaN"),
    ((torch.ones(3, 2), torch.ones(2)), ValueError, r"bias must have shape \(3,\), got \(2,\)"),
    ((torch.ones(3, 2), torch.tensor([1.0, 2.0, torch.inf])), ValueError, "bias holds NaN or infinite"),
    ((torch.ones(3, 2), None, 3), ValueError, "block must be 1, 2, 4 or 'auto', got 3"),
    ((torch.ones(3, 2), None, "4"), ValueError, "block must be 1, 2, 4 or 'auto', got '4'"),
])
def test_what_cannot_be_packed_is_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        pack_1x1(*arguments)


def _vector(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


@pytest.mark.public_door
@pytest.mark.parametrize(("fields", "words"), [
    ({"columns": _vector(0, 4)}, "columns must be from 0 to 3"),
    ({"columns": _vector(-1, 2)}, "columns must be from 0 to 3"),
    ({"starts": _vector(0, 3, 2)}, "starts must rise from 0 to the 2 kept"),
    ({"starts": _vector(0, 1, 3)}, "starts must rise"),
    ({"starts": _vector(0, 1)}, "starts and rows must have 3 and 2 entries"),
    ({"rows": _vector(0, 1)}, "rows must name the first output channel of every block once"),
    ({"rows": _vector(2, 0)}, "rows must name"),
    ({"values": torch.ones(4)}, "values must have 3 entries, got 4"),
    ({"values": torch.ones(3).double()}, "values must be a contiguous vector of torch.float32"),
    ({"columns": torch.tensor([0, 1])}, "columns must be a contiguous vector of torch.int32"),
    ({"block": 3}, r"block must be one of \(1, 2, 4\), got 3"),
    ({"channels": -1}, "channels must be at least 0"),
])
def test_damaged_weights_are_refused(fields, words):
    fine = {"values": torch.ones(3), "columns": _vector(0, 3), "starts": _vector(0, 1, 2), "rows": _vector(0, 2),
            "bias": torch.zeros(3), "channels": 4, "block": 2}
    assert PackedCHW(**fine).nnz == 3
    with pytest.raises(ValueError, match=words):
        PackedCHW(**fine | fields)


@pytest.mark.public_door
def test_another_device_is_refused():
    with pytest.raises(ValueError, match="x must be on cpu like the weights, got meta"):
        spmm_chw(torch.ones(1, 3, 2, 2, device="meta"), pack_1x1(torch.ones(4, 3)))
