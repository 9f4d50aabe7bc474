"""``sparsepriors sae``: what it writes, how a killed training continues, what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from sparsepriors.cli import app
from sparsepriors.dictionaries import SparseAutoencoder, write_shards

SMALL = ("--latents", "32", "--k", "3", "--steps", "40", "--batch", "64", "--rate", "1e-2")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    g = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(20, 8, generator=g), dim=1)
    x = ((torch.rand(600, 20, generator=g) < 0.1) * (1 + torch.rand(600, 20, generator=g))) @ atoms
    np.save(tmp_path / "x.npy", x.numpy())
    write_shards(tmp_path / "shards", [x], rows=250)
    return tmp_path / "x.npy"


def call(*arguments: object):
    return CliRunner().invoke(app, ["sae", *map(str, arguments)])


@pytest.mark.parametrize("prior", ["topk", "batch-topk", "jumprelu", "l1", "matching-pursuit"])
def test_a_training_is_written_and_can_be_evaluated(tmp_path: Path, data: Path, prior: str) -> None:
    out = tmp_path / "out"
    trained = call("train", data, *SMALL, "--prior", prior, "--out", out, "--json")
    assert trained.exit_code == 0, trained.output
    facts = json.loads(trained.stdout)
    assert facts["samples"] == 600
    assert facts["fvu"] < 0.9
    for rows in (data, tmp_path / "shards"):
        again = call("eval", out, rows, "--json")
        assert again.exit_code == 0, again.output
        assert json.loads(again.stdout) == {k: v for k, v in facts.items() if k != "steps"}
    assert "variance explained" in call("eval", out, data, "--limit", 100).stdout


def test_shards_are_trained_on_as_the_rows_in_them(tmp_path: Path, data: Path) -> None:
    for rows, out in ((data, "a"), (tmp_path / "shards", "b")):
        assert call("train", rows, *SMALL, "--prefixes", "4,12", "--out", tmp_path / out).exit_code == 0
    weights = [(tmp_path / out / "weights.safetensors").read_bytes() for out in ("a", "b")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_killed_training_continues_to_the_same_bits(tmp_path: Path, data: Path) -> None:
    def process(out: Path, *more: str) -> subprocess.Popen:
        arguments = ("train", data, *SMALL, "--steps", "1500", "--quiet", "--threads", "1", "--out", out, *more)
        return subprocess.Popen([sys.executable, "-m", "sparsepriors", "sae", *map(str, arguments)],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert process(whole).wait() == 0
    killed = process(parts)
    try:
        deadline = time.monotonic() + 120
        while not (parts / "state.safetensors").exists() and killed.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
    finally:
        killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert not (parts / "weights.safetensors").exists()
    refused = call("train", data, *SMALL, "--out", parts)
    assert refused.exit_code == 2
    assert "--resume" in refused.stderr
    assert process(parts, "--resume").wait() == 0
    for name in ("weights.safetensors", "cfg.json", "report.json"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


def test_ctrl_c_leaves_a_checkpoint(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = SparseAutoencoder.forward
    steps = [0]

    def interrupted(self, x, **options):
        steps[0] += 1
        if steps[0] == 7:
            raise KeyboardInterrupt
        return forward(self, x, **options)

    monkeypatch.setattr(SparseAutoencoder, "forward", interrupted)
    result = call("train", data, *SMALL, "--out", tmp_path / "out")
    assert result.exit_code == 130
    assert "--resume" in result.stderr
    assert (tmp_path / "out" / "state.safetensors").exists()


def test_bad_calls_say_what_is_wrong(tmp_path: Path, data: Path) -> None:
    np.save(tmp_path / "nan.npy", np.full((100, 8), np.nan, np.float32))
    np.save(tmp_path / "cube.npy", np.zeros((4, 4, 4), np.float32))
    for arguments, code, words in (
            ((data, "--prior", "batch-topc"), 2, "did you mean batch-topk"),
            ((data, "--prior", "topk", "--k", "2.5"), 2, "--k must be whole for topk"),
            ((data, "--prefixes", "4,x"), 2, "--prefixes takes numbers"),
            ((data, "--latents", "0"), 2, "n_latents must be at least 1"),
            ((data, "--scale", "mean-nrm"), 1, "did you mean 'mean norm'"),
            ((data, "--batch", "601"), 1, "batch must be from 1 to 600"),
            ((tmp_path / "none.npy",), 2, "there is no file"),
            ((tmp_path / "cube.npy",), 2, "must hold rows of activations"),
            ((tmp_path / "nan.npy",), 1, "x holds NaN")):
        result = call("train", arguments[0], *SMALL, *arguments[1:], "--out", tmp_path / f"out {words}")
        assert result.exit_code == code, (arguments, result.output)
        assert words in result.stderr.replace("\n", " ")
    missing = call("eval", tmp_path / "nothing", data)
    assert missing.exit_code == 1
    assert "cannot read" in missing.stderr
