from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from sparsepriors import _files
from sparsepriors.kernels import BornTables, Packed, PackedNM, pack_linear_nm


@pytest.fixture
def weights():
    return pack_linear_nm(torch.tensor([[0.0, 5.0, 0.0, 7.0, 3.0, 0.0, 0.0, 0.0]], dtype=torch.bfloat16), 2, 4)


@pytest.mark.parametrize("reader", [Packed, PackedNM])
def test_a_file_gives_the_same_data_back(weights, reader, tmp_path):
    weights.save(tmp_path / "w.safetensors")
    back = reader.load(tmp_path / "w.safetensors")
    assert type(back) is PackedNM
    assert torch.equal(back.values, weights.values)
    assert back.values.dtype == torch.bfloat16
    assert torch.equal(back.places, weights.places)
    assert (back.n, back.m) == (2, 4)


def test_bytes_count_every_tensor(weights):
    assert weights.nbytes == 16 * 4 * 2 + 2 * 8 + 16


def test_moving_keeps_plain_fields(weights):
    moved = weights.to("cpu")
    assert torch.equal(moved.values, weights.values)
    assert (moved.places.device.type, moved.n, moved.m) == ("cpu", 2, 4)


@pytest.mark.public_door
def test_another_format_is_refused_by_name(weights, tmp_path):
    weights.save(tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="holds the format 'PackedNM', expected BornTables"):
        BornTables.load(tmp_path / "w.safetensors")


SHAPE = '"out_features": 1, "in_features": 8, "n": 2, "bias": null'


@pytest.mark.public_door
@pytest.mark.parametrize("metadata", [{}, {"packed": "{"}, {"packed": "[]"}, {"packed": '{"format": "PackedNM"}'},
                                      {"packed": '{"format": "os.system", "fields": {}}'},
                                      {"packed": '{"format": ["PackedNM"], "fields": {}}'},
                                      {"packed": f'{{"format": "PackedNM", "fields": {{{SHAPE}, "m": 4, "o": 1}}}}'},
                                      {"packed": f'{{"format": "PackedNM", "fields": {{{SHAPE}, "m": "4"}}}}'},
                                      {"packed": f'{{"format": "PackedNM", "fields": {{{SHAPE}, "m": 2}}}}'}])
def test_foreign_files_are_refused(weights, metadata, tmp_path):
    path = tmp_path / "w.safetensors"
    _files.write_tensors(path, {"values": weights.values, "places": weights.places}, metadata)
    with pytest.raises(ValueError, match="w.safetensors"):
        Packed.load(path)


@pytest.mark.public_door
def test_two_formats_cannot_share_a_name():
    with pytest.raises(TypeError, match="needs another name"):
        @dataclass(frozen=True)
        class PackedNM(Packed):
            values: Tensor
