import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors import _files
from sparsepriors.networks.checkpoints import load_checkpoint, save_checkpoint

leaves = st.none() | st.booleans() | st.integers(-2**60, 2**60) | st.floats(allow_nan=False) | st.text(max_size=5)
trees = st.recursive(leaves, lambda t: st.lists(t, max_size=3) | st.tuples(t, t)
                     | st.dictionaries(st.integers() | st.text(max_size=3), t, max_size=3), max_leaves=12)


@given(trees)
def test_plain_data_come_back_equal_and_of_the_same_type(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("c") / "c.safetensors"
    save_checkpoint(path, tree)
    assert repr(load_checkpoint(path)) == repr(tree)


def test_tensors_come_back_to_the_bit_even_when_they_share_memory(tmp_path):
    base = torch.randn(6, dtype=torch.float64)
    tree = {0: {"a": base, "tied": base, "part": base[::2]}, "b": [torch.tensor(3), torch.zeros(0, 2).bfloat16()],
            "z": (torch.randn(2, dtype=torch.complex64), math.nan)}
    got = load_checkpoint(save_checkpoint(tmp_path / "c.safetensors", tree))
    assert torch.equal(got[0]["a"], base)
    assert torch.equal(got[0]["tied"], base)
    assert torch.equal(got[0]["part"], base[::2])
    assert got["b"][0].dtype == torch.int64
    assert got["b"][1].shape == (0, 2)
    assert torch.equal(got["z"][0], tree["z"][0])
    assert math.isnan(got["z"][1])


def test_what_cannot_be_kept_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\] holds a object"):
        save_checkpoint(tmp_path / "c.safetensors", {"a": [1, object()]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("metadata", [{}, {"format": "sparsepriors-checkpoint-2", "tree": "1"},
                                      {"format": "sparsepriors-checkpoint-1"},
                                      {"format": "sparsepriors-checkpoint-1", "tree": '{"tensor": "7"}'},
                                      {"format": "sparsepriors-checkpoint-1", "tree": '{"code": "7"}'},
                                      {"format": "sparsepriors-checkpoint-1", "tree": '{"a": 1, "b": 2}'},
                                      {"format": "sparsepriors-checkpoint-1", "tree": "{"}])
def test_foreign_and_damaged_files_are_refused(tmp_path, metadata):
    path = _files.write_tensors(tmp_path / "c.safetensors", {"0": torch.zeros(1)}, metadata)
    with pytest.raises(ValueError, match=r"c\.safetensors"):
        load_checkpoint(path)
