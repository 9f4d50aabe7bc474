"""``sparsepriors train`` and ``compare``: what they write, how they are stopped and continued, what they refuse."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from sparsepriors import _files
from sparsepriors.cli import app
from sparsepriors.networks import preset_table
from sparsepriors.networks.train_loop import TrainLoop

SMALL = ("--data", "digits8", "--model", "mlp", "--epochs", "2", "--batch", "64", "--limit", "640")


def call(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.mark.parametrize(("preset", "options", "density"), [
    ("sr-ste", ("--pattern", "2:4"), 0.5), ("rigl", ("--density", "0.2"), 0.2), ("dense", (), 1.0)])
def test_a_training_writes_the_network_its_masks_and_the_books(tmp_path, preset, options, density):
    result = call("train", "--preset", preset, *options, *SMALL, "--epochs", 5, "--out", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["accuracy"] > 0.3
    assert facts["steps"] == 50
    assert facts["report"]["sparsity"]["density"] == pytest.approx(density, abs=0.01)
    weights = _files.read_tensors(tmp_path / "model.safetensors")
    assert sorted(weights) == sorted(f"layers.{i}.{kind}" for i in range(3) for kind in ("bias", "weight"))
    if preset != "dense":
        masks = _files.read_tensors(tmp_path / "masks.safetensors")
        assert all(bool((weights[n][~m] == 0).all()) for n, m in masks.items())
    assert _files.read_json(tmp_path / "report.json") == facts


@pytest.mark.parametrize("options", [("rigl", "--density", "0.2"), ("sr-ste",)])
def test_an_interrupted_training_continues_to_the_same_bits(tmp_path, monkeypatch, options):
    arguments = ("train", "--preset", *options, *SMALL, "--out")
    assert call(*arguments, tmp_path / "whole").exit_code == 0
    step = TrainLoop._one_step

    def interrupted(self):
        if self.step == 13:
            raise KeyboardInterrupt
        step(self)

    with monkeypatch.context() as patch:
        patch.setattr(TrainLoop, "_one_step", interrupted)
        stopped = call(*arguments, tmp_path / "parts")
    assert stopped.exit_code == 130
    assert "--resume" in stopped.stderr
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    again = call(*arguments, tmp_path / "parts")
    assert again.exit_code == 2
    assert "already holds a training" in again.stderr
    done = call(*arguments, tmp_path / "parts", "--resume")
    assert done.exit_code == 0, done.output
    for name in ("model.safetensors", "masks.safetensors", "report.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    other = call(*arguments, tmp_path / "parts", "--resume", "--seed", 1)
    assert other.exit_code == 2
    assert "seed was 0, is 1" in " ".join(other.stderr.split())


def test_an_interrupt_before_the_first_step_claims_nothing_and_is_continued_all_the_same(tmp_path, monkeypatch):
    arguments = ("train", "--preset", "rigl", *SMALL, "--out", tmp_path)

    def interrupted(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainLoop, "_one_step", interrupted)
        stopped = call(*arguments)
    assert stopped.exit_code == 130
    assert stopped.stderr.startswith("interrupted; no step was done. Give the same command with --resume")
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]
    assert call(*arguments, "--resume").exit_code == 0


@pytest.mark.parametrize(("arguments", "said"), [
    (("train", "--preset", "rigle"), "did you mean rigl?"),
    (("train", "--preset", "rigl", "--data", "digits9"), "did you mean digits8?"),
    (("train", "--preset", "rigl", "--model", "resnet9", "--data", "digits8"), "did you mean 'resnet8'?"),
    (("train", "--preset", "rigl", "--pattern", "2:4", "--data", "digits8"), "takes --density, not --pattern"),
    (("train", "--preset", "sr-ste", "--density", "0.5", "--data", "digits8"), "give --pattern N:M"),
    (("train", "--preset", "sr-ste", "--pattern", "4", "--data", "digits8"), "takes N:M such as 2:4"),
    (("train", "--preset", "sr-ste", "--pattern", "5:4", "--data", "digits8"), "n must be from 1 to 4"),
    (("train", "--preset", "dense", "--density", "0.5", "--data", "digits8"), "neither --pattern nor --density"),
    (("train", "--preset", "rigl", "--density", "1.5", "--data", "digits8"), "between 0 and 1"),
    (("train", "--preset", "rigl", "--density", "1", "--data", "digits8"), "use --preset dense"),
    (("train", "--preset", "rigl", "--limit", "5", "--data", "digits8"), "needs at least as many training examples"),
    (("train", "--preset", "rigl", "--optimizer", "sgdd", "--data", "digits8"), "did you mean 'sgd'"),
    (("train", "--preset", "rigl", "--threads", "0", "--data", "digits8"), "--threads must be from 1"),
    (("train", "--preset", "rigl", "--data", "mnist"), "name a data directory"),
    (("compare", "--presets", "gmp,rigle"), "did you mean rigl?"),
    (("compare", "--sparsity", "0.5,x"), "--sparsity takes numbers"),
    (("compare", "--sparsity", "1"), "between 0 and 1"),
    (("compare", "--seeds", "a"), "--seeds takes whole numbers"),
    (("compare", "--model", "mpl", "--data", "digits8", "--shrink", "1"), "did you mean 'mlp'"),
    (("compare", "--presets", "sdgf-stepwise", "--sparsity", "0.8", "--data", "digits8", "--shrink", "1"),
     "nothing can be trained"),
])
def test_wrong_usage_is_answered_with_code_2_and_leaves_nothing(tmp_path, arguments, said):
    result = call(*arguments, "--out", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


def test_comparisons_keep_what_was_finished(tmp_path, monkeypatch):
    arguments = ("compare", "--presets", "dense,gmp,random", "--sparsity", "0.8,0.9", "--seeds", "0,1", *SMALL,
                 "--epochs", "1", "--shrink", "1", "--out", tmp_path)
    measure, calls = preset_table.measure, []

    def counted(*args, **options):
        calls.append((options["name"], options["sparsity"], options["seed"]))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return measure(*args, **options)

    monkeypatch.setattr(preset_table, "measure", counted)
    stopped = call(*arguments)
    assert stopped.exit_code == 130
    assert "after 3 of 10 trainings" in " ".join(stopped.stderr.split())
    done = call(*arguments, "--resume", "--json")
    assert done.exit_code == 0, done.output
    assert len(calls) == 4 + 7
    record = json.loads(done.stdout)
    assert len(record["rows"]) == 10
    assert {r["sparsity"] for r in record["chain"]} == {0.8, 0.9}
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "| gmp | 0.9 |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "table.csv").read_text().startswith("preset,sparsity,seeds")
    more = call(*arguments, "--resume", "--presets", "gmp,sdgf-stepwise")
    assert more.exit_code == 0
    assert len(calls) == 11 + 2   # 2:16 can be reached step by step, 3:16 cannot
    assert "sdgf-stepwise at 0.8" in more.stdout


def test_a_damaged_or_foreign_folder_is_left_alone(tmp_path):
    arguments = ("train", "--preset", "rigl", *SMALL, "--out", tmp_path, "--resume")
    (tmp_path / "config.json").write_text("[1]")
    foreign = call(*arguments)
    assert foreign.exit_code == 2
    assert "was begun differently" in " ".join(foreign.stderr.split())
    (tmp_path / "config.json").write_text("{")
    damaged = call(*arguments)
    assert damaged.exit_code == 1
    assert "not a readable JSON file" in " ".join(damaged.stderr.split())
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]
