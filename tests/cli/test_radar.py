"""``sparsepriors radar``: a measurement in, a volume out, and one line for every mistake."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from sparsepriors.cli import app
from sparsepriors.data.arrays import read_arrays
from sparsepriors.data.radar import random_blobs
from sparsepriors.data.radar_files import Measurement, write_measurement
from sparsepriors.operators.radar import BornMIMO

SHAPE = (9, 9, 10)


@pytest.fixture
def bench(tmp_path):
    op = BornMIMO.crossed(SHAPE, 4)
    truth = random_blobs(1, SHAPE, torch.Generator().manual_seed(2))[0]
    data = Measurement(op(truth.to(torch.complex64)), op.frequencies, op.transmitters, op.receivers)
    return write_measurement(tmp_path / "bench.npz", data), truth


def call(*arguments: object):
    return CliRunner().invoke(app, ["radar", *map(str, arguments)])


@pytest.mark.parametrize("prior", ["network", "kirchhoff"])
def test_a_measurement_becomes_a_volume(tmp_path, bench, prior):
    path, truth = bench
    out = tmp_path / "v.npz"
    result = call(path, "--out", out, "--shape", "9,9,10", "--prior", prior, "--iterations", 20, "--snr", 30, "--json",
                  "--picture", tmp_path / "v.png")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["voxels"] == list(SHAPE)
    assert facts["iterations"] == (20 if prior == "network" else None)
    found = read_arrays(out)
    assert found["volume"].shape == SHAPE
    assert np.corrcoef(found["magnitude"].ravel(), truth.numpy().ravel())[0, 1] > (0.6 if prior == "network" else 0.2)
    assert (tmp_path / "v.png").stat().st_size > 5000


def test_fewer_frequencies_and_a_line_of_text(tmp_path, bench):
    result = call(bench[0], "--out", tmp_path / "v.safetensors", "--shape", "9,9,10", "--steps", 2, "--iterations", 2)
    assert result.exit_code == 0, result.output
    assert "9 x 9 x 10 voxels from 312 samples" in result.stdout
    assert "2 iterations" in result.stdout


@pytest.mark.parametrize(("arguments", "message"), [
    (("--prior", "netwrok"), "did you mean network"),
    (("--shape", "9,9"), "--shape must be three integers"),
    (("--low", "a,b,c"), "--low must be three numbers"),
    (("--out", "v.txt"), "--out must end in .npz or .safetensors"),
    (("--picture", "v.jpg"), "--picture must end in .png"),
    (("--steps", "9"), "steps must be at most 4"),
])
def test_mistakes_end_with_code_two_and_say_so(bench, arguments, message):
    result = call(bench[0], *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_file_that_is_not_there(tmp_path):
    result = call(tmp_path / "no.npz")
    assert result.exit_code == 2
    assert "no.npz" in result.stderr
    assert not (tmp_path / "volume.npz").exists()
