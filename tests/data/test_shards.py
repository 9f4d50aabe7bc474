import json

import pytest
import torch
from torch import nn

from sparsepriors import _files
from sparsepriors.data import open_weights


@pytest.fixture
def tensors():
    return {"a.weight": torch.randn(3, 4), "b.weight": torch.randn(5, dtype=torch.bfloat16), "c": torch.arange(3)}


def test_a_file_a_folder_of_shards_a_dict_and_a_module_give_the_same_tensors(tensors, tmp_path):
    _files.write_tensors(tmp_path / "one.safetensors", tensors)
    folder = tmp_path / "shards"
    for i, (name, value) in enumerate(tensors.items()):
        _files.write_tensors(folder / f"model-{i}.safetensors", {name: value})
    for source in (tensors, tmp_path / "one.safetensors", str(folder)):
        opened = open_weights(source)
        assert set(opened) == set(tensors)
        for name, value in tensors.items():
            assert name in opened
            assert opened.shape(name) == tuple(value.shape)
            assert opened.dtype(name) == value.dtype == opened[name].dtype
            assert torch.equal(opened[name], value)
    assert "d" not in opened
    module = nn.Linear(2, 3)
    assert set(open_weights(module)) == {"weight", "bias"}


def test_an_index_says_which_file_counts(tensors, tmp_path):
    _files.write_tensors(tmp_path / "model-1.safetensors", tensors)
    _files.write_tensors(tmp_path / "consolidated.safetensors", {"a.weight": torch.zeros(1)})
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "model-1.safetensors")}))
    assert torch.equal(open_weights(tmp_path)["a.weight"], tensors["a.weight"])
    index.write_text(json.dumps({"weight_map": {"a.weight": "model-2.safetensors"}}))
    with pytest.raises(FileNotFoundError, match=r"names model-2\.safetensors"):
        open_weights(tmp_path)
    index.write_text(json.dumps({"weight_map": {"z": "model-1.safetensors"}}))
    with pytest.raises(ValueError, match=r"names 'z', which model-1\.safetensors does not hold"):
        open_weights(tmp_path)
    for wrong in ({}, {"weight_map": {"a.weight": "../one.safetensors"}}, []):
        index.write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match="must have a weight_map"):
            open_weights(tmp_path)
    index.unlink()
    with pytest.raises(ValueError, match=r"both hold 'a\.weight'"):
        open_weights(tmp_path)
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match="holds 2 indices"):
        open_weights(tmp_path)


def test_tied_weights_are_there_once():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5, bias=False))
    model[1].weight = model[0].weight
    assert list(open_weights(model)) == ["0.weight"]
    view = torch.randn(4, 4)
    assert list(open_weights({"a": view, "b": view.mT, "c": torch.zeros(0), "d": torch.zeros(0)})) == list("abcd")


@pytest.mark.public_door
def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        open_weights(tmp_path / "none")
    with pytest.raises(ValueError, match=r"holds no \.safetensors file"):
        open_weights(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"must be a \.safetensors file or a folder"):
        open_weights(tmp_path / "model.bin")
    (tmp_path / "m.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(ValueError, match="is not a readable safetensors file"):
        open_weights(tmp_path)
    with pytest.raises(TypeError, match="must be a path, a state dict or a module, got int"):
        open_weights(3)
    with pytest.raises(TypeError, match="must map names to tensors, got 'a': int"):
        open_weights({"a": 1})


def test_a_file_that_is_cut_off_after_it_was_opened_is_named(tensors, tmp_path):
    path = tmp_path / "one.safetensors"
    _files.write_tensors(path, tensors)
    opened = open_weights(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"one\.safetensors: 'a\.weight' cannot be read"):
        opened["a.weight"]
