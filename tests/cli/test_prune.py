"""``sparsepriors prune``: a checkpoint that loads, numbers beside dense, one line for every mistake."""

import json
import signal

import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from sparsepriors.cli import _language, _prune, app
from sparsepriors.language.stand_in import stand_in


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Random weights in the place of the real ones."""
    monkeypatch.setattr(_language, "load", lambda name, dtype, data_dir: stand_in(0, dtype=dtype))


def call(out, *arguments):
    return CliRunner().invoke(app, ["prune", "smollm2", "--out", str(out), "--dtype", "float32", "--length", "32",
                                    "--windows", "2", "--judge", "2", *map(str, arguments)])


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_the_checkpoint_loads_and_is_in_the_pattern(tmp_path, method):
    result = call(tmp_path / "pruned", "--method", method, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (facts["layers"], facts["density"], facts["method"]) == (14, 0.5, method)
    assert facts["perplexity"]["dense"] != facts["perplexity"]["pruned"]
    assert json.loads((tmp_path / "pruned" / "pruning.json").read_text())["nonzeros"] == facts["nonzeros"]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "pruned", local_files_only=True)
    weight = loaded.model.layers[1].mlp.down_proj.weight
    assert ((weight != 0).reshape(-1, 4).sum(dim=1) <= 2).all()
    assert torch.isfinite(loaded(torch.tensor([[1, 2, 3]])).logits).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pruned"]


def test_shares_of_zeros_and_text_of_ones_own(tmp_path):
    (tmp_path / "text.txt").write_text("Once upon a time there was a sparse network. " * 5, encoding="utf-8")
    result = call(tmp_path / "a", "--pattern", "0.75", "--calibrate", tmp_path / "text.txt")
    assert result.exit_code == 0, result.output
    assert "(25.0%)" in result.stdout
    assert "perplexity of 2 windows" in result.stdout
    result = call(tmp_path / "b", "--pattern", "0.75", "--judge", 0)
    assert "perplexity" not in result.stdout


@pytest.mark.parametrize(("arguments", "message"), [
    (("--method", "wnada"), "no method is called 'wnada'; did you mean wanda?"),
    (("--pattern", "2:5"), "does not fit the pattern"),
    (("--pattern", "4:4"), "1 <= N < M, got 4:4"),
    (("--pattern", "half"), "takes N:M such as 2:4, or a share of zeros such as 0.5, got 'half'"),
    (("--pattern", "1.5"), "or a share of zeros"),
    (("--dtype", "float23"), "did you mean float32"),
    (("--windows", 10**6), "the text has"),
    (("--calibrate", "nowhere.txt"), "nowhere.txt"),
])
def test_mistakes_get_one_line_and_leave_nothing(tmp_path, arguments, message):
    result = call(tmp_path / "out", *arguments)
    assert result.exit_code in (1, 2)
    assert message in " ".join(result.output.split())
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_not_touched(tmp_path):
    (tmp_path / "note.txt").write_text("mine", encoding="utf-8")
    result = call(tmp_path)
    assert result.exit_code == 2
    assert "is there already" in result.output
    assert [p.name for p in tmp_path.iterdir()] == ["note.txt"]


def test_an_empty_folder_will_do(tmp_path):
    (tmp_path / "empty").mkdir()
    assert call(tmp_path / "empty", "--method", "magnitude").exit_code == 0


def test_ctrl_c_writes_nothing(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(_prune, "_write", lambda *a: signal.raise_signal(signal.SIGINT))
    try:
        result = call(tmp_path / "out", "--method", "magnitude")
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == 130
    assert "nothing was written" in result.output
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device", str(tmp_path / "out"))

    monkeypatch.setattr(_prune._files, "write_json", full)
    result = call(tmp_path / "out", "--method", "magnitude")
    assert result.exit_code == 1
    assert "no space is left" in " ".join(result.output.split())
    assert not list(tmp_path.iterdir())
