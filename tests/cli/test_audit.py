import json

import pytest
import torch
from typer.testing import CliRunner

from sparsepriors import _files
from sparsepriors.cli import app

RECORD = {"training": {"mask": "dynamic", "churn": 0.0, "steps": 10, "baseline_steps": 10},
          "claims": [{"kind": "same-budget"}]}


def call(*arguments):
    return CliRunner().invoke(app, ["audit", *map(str, arguments)])


def test_a_fault_ends_with_one_and_is_shown_in_every_form(tmp_path):
    path = _files.write_json(tmp_path / "run.json", RECORD)
    table = call(path)
    assert table.exit_code == 1
    assert "churn" in table.stdout
    found = call(path, "--json", "--html", tmp_path / "audit.html")
    report = json.loads(found.stdout)
    assert (report["failed"], report["lessons"][4]["verdict"]) == (1, "fail")
    page = (tmp_path / "audit.html").read_text()
    assert "L5: fail" in page
    assert "http-equiv" in page
    lost = call(path, "--html", path / "audit.html")
    assert lost.exit_code == 1
    assert "cannot write" in lost.stderr
    RECORD["training"]["churn"] = 0.5
    assert call(_files.write_json(path, RECORD)).exit_code == 0


def test_weights_in_files_and_folders_are_audited(tmp_path):
    weight = torch.randn(64, 64)
    weight[:, ::2] = 0
    _files.write_tensors(tmp_path / "model.safetensors", {"fc.weight": weight, "fc.bias": torch.ones(64)})
    torch.save({"fc.weight": weight}, tmp_path / "model.pt")
    for path in (tmp_path, tmp_path / "model.safetensors", tmp_path / "model.pt"):
        found = call(path, "--json")
        assert found.exit_code == 0, found.output
        assert "channel" in found.stdout


@pytest.mark.parametrize(("name", "content", "code", "message"), [
    ("absent.json", None, 2, "there is no file"), ("absent.txt", None, 2, "there is no file"),
    ("bad.json", "{", 1, "not a readable JSON file"), ("bad.safetensors", "x", 1, "safetensors"),
    ("notes.txt", "x", 1, "must be a record")])
def test_what_cannot_be_read_is_said_in_a_line(tmp_path, name, content, code, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    found = call(tmp_path / name)
    assert found.exit_code == code
    assert message in " ".join(found.output.split())
    (tmp_path / "empty").mkdir()
    assert call(tmp_path / "empty").exit_code == 2
