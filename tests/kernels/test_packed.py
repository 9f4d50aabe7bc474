from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from sparsepriors import _files
from sparsepriors.kernels import BornTables, NMWeights, Packed, pack_nm


@pytest.fixture
def weights():
    return pack_nm(torch.tensor([[0.0, 5.0, 0.0, 7.0, 3.0, 0.0, 0.0, 0.0]], dtype=torch.bfloat16), 2, 4)


@pytest.mark.parametrize("reader", [Packed, NMWeights])
def test_a_file_gives_the_same_data_back(weights, reader, tmp_path):
    weights.save(tmp_path / "w.safetensors")
    back = reader.load(tmp_path / "w.safetensors")
    assert type(back) is NMWeights
    assert torch.equal(back.values, weights.values)
    assert back.values.dtype == torch.bfloat16
    assert torch.equal(back.index, weights.index)
    assert (back.n, back.m) == (2, 4)


def test_bytes_count_every_tensor(weights):
    assert weights.nbytes == 4 * 2 + 4 * 1


def test_moving_keeps_plain_fields(weights):
    moved = weights.to("cpu")
    assert torch.equal(moved.values, weights.values)
    assert (moved.index.device.type, moved.n, moved.m) == ("cpu", 2, 4)


@pytest.mark.public_door
def test_another_format_is_refused_by_name(weights, tmp_path):
    weights.save(tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="holds the format 'NMWeights', expected BornTables"):
        BornTables.load(tmp_path / "w.safetensors")


@pytest.mark.public_door
@pytest.mark.parametrize("metadata", [{}, {"packed": "{"}, {"packed": "[]"}, {"packed": '{"format": "NMWeights"}'},
                                      {"packed": '{"format": "os.system", "fields": {}}'},
                                      {"packed": '{"format": ["NMWeights"], "fields": {}}'},
                                      {"packed": '{"format": "NMWeights", "fields": {"n": 2, "m": 4, "o": 1}}'},
                                      {"packed": '{"format": "NMWeights", "fields": {"n": 2, "m": "4"}}'}])
def test_foreign_files_are_refused(weights, metadata, tmp_path):
    path = tmp_path / "w.safetensors"
    _files.write_tensors(path, {"values": weights.values, "index": weights.index}, metadata)
    with pytest.raises(ValueError, match="w.safetensors"):
        Packed.load(path)


@pytest.mark.public_door
@pytest.mark.parametrize(("values", "index", "message"), [
    (torch.ones(2), torch.tensor([1, 4], dtype=torch.uint8), "index must be below m = 4, got 4"),
    (torch.ones(2), torch.tensor([1, 2]), "must be uint8"),
    (torch.ones(3), torch.zeros(3, dtype=torch.uint8), "fill groups of n = 2"),
    (torch.ones(2), torch.zeros(4, dtype=torch.uint8), r"for values of shape \(2,\)"),
])
def test_indices_are_checked_before_a_kernel_follows_them(values, index, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        NMWeights(values, index, 2, 4)
    path = tmp_path / "w.safetensors"
    _files.write_tensors(path, {"values": values, "index": index},
                         {"packed": '{"format": "NMWeights", "fields": {"n": 2, "m": 4}}'})
    with pytest.raises(ValueError, match="w.safetensors"):
        NMWeights.load(path)


@pytest.mark.public_door
def test_two_formats_cannot_share_a_name():
    with pytest.raises(TypeError, match="needs another name"):
        @dataclass(frozen=True)
        class NMWeights(Packed):
            values: Tensor
