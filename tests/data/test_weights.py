import pickle

import pytest
import torch

from sparsepriors.data.weights import read_torch_weights


def test_a_state_dict_is_read_as_it_was_written(tmp_path):
    state = {"a": torch.randn(3, 4), "b": torch.arange(3)}
    torch.save(state, tmp_path / "w.pth")
    found = read_torch_weights(tmp_path / "w.pth")
    assert list(found) == ["a", "b"]
    assert all(torch.equal(found[k], v) for k, v in state.items())


class Attack:
    def __reduce__(self):
        return (print, ("this must never run",))


@pytest.mark.parametrize("content", [Attack(), {"a": Attack()}], ids=["bare", "inside"])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, content, capsys):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="not a readable file"):
        read_torch_weights(tmp_path / "w.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match=r"old\.pth"):
        read_torch_weights(tmp_path / "old.pth")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"a": 3}, {1: torch.zeros(2)}, torch.zeros(3)],
                         ids=["list", "number", "key", "tensor"])
def test_only_named_tensors_pass(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="mapping of names to tensors"):
        read_torch_weights(tmp_path / "w.pth")


def test_damaged_files_are_refused(tmp_path):
    torch.save({"a": torch.randn(100)}, tmp_path / "w.pth")
    data = (tmp_path / "w.pth").read_bytes()
    for cut in (0, 1, 10, len(data) // 2, len(data) - 5):
        (tmp_path / "cut.pth").write_bytes(data[:cut])
        with pytest.raises(ValueError, match=r"cut\.pth"):
            read_torch_weights(tmp_path / "cut.pth")
    with pytest.raises(FileNotFoundError, match="no weight file"):
        read_torch_weights(tmp_path / "none.pth")
