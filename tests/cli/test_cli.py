import json
import shlex
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import sparsepriors
from sparsepriors import _files, papers
from sparsepriors.cli import app
from sparsepriors.cli._doctor import rooms

TINY = str(Path(__file__).parent.parent / "tiny_paper.py")


def call(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def test_run_judges_reports_and_resumes(tmp_path):
    done = call("run", TINY, "--out", tmp_path, "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)[0]
    assert record["ok"]
    assert record["results"]["claims"][0]["verdict"] == "held"
    assert [r["state"] for r in record["runs"]] == ["done"] * 5
    again = json.loads(call("run", TINY, "--out", tmp_path, "--json", "--resume").stdout)[0]
    assert again["results"]["rows"] == record["results"]["rows"]
    page = tmp_path / "page.html"
    assert call("report", "--results", tmp_path / "results", "--out", page).exit_code == 0
    assert "A tiny experiment" in page.read_text()


@pytest.mark.parametrize(("args", "said"), [
    (["run", TINY, "--scale", "smok"], "did you mean smoke?"),
    (["run", TINY, "--seeds", "0,x"], "distinct whole numbers"),
    (["run", TINY, "--seeds", "1,1"], "distinct whole numbers"),
    (["run", TINY, "--device", "gpu9"], "--device takes cpu"),
    (["run", TINY, "--device", "cpu:3"], "--device takes cpu"),
    (["run", TINY, "--data", "/nowhere/at/all"], "does not exist"),
    (["run", "nowhere.py"], "no paper module"),
    (["show", "prune-pretrainde"], "did you mean prune-pretrained?"),
])
def test_wrong_usage_is_answered_with_code_2(args, said):
    answer = call(*args)
    assert answer.exit_code == 2
    assert said in " ".join(answer.stderr.split())


def test_the_version_is_one_line_and_no_error():
    answer = call("--version")
    assert (answer.exit_code, answer.stdout) == (0, f"{sparsepriors.__version__}\n")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    answer = call("run", TINY, "--out", tmp_path / "file" / "runs")
    assert answer.exit_code == 1
    assert answer.stderr.count("\n") == 1
    assert "cannot be used" in answer.stderr


def test_a_failing_experiment_is_reported_with_code_1(tmp_path):
    paper = tmp_path / "bad.py"
    head = Path(TINY).read_text().split("def run(")[0]
    paper.write_text(head + "def run(scale, seed, run):\n    raise KeyError('x')\n")
    answer = call("run", paper, "--out", tmp_path / "runs", "--json")
    assert answer.exit_code == 1
    assert "KeyError" in json.loads(answer.stdout)[0]["error"]


def test_an_interrupted_run_says_how_to_continue(tmp_path):
    paper = tmp_path / "stop.py"
    paper.write_text(Path(TINY).read_text().replace("total = 0.0", "total = 0.0\n    raise KeyboardInterrupt"))
    asked = ["run", str(paper), "--scale", "smoke", "--seeds", "3", "--out", str(tmp_path / "my runs"),
             "--results", str(tmp_path / "judged")]
    answer = call(*asked)
    assert answer.exit_code == 130
    assert shlex.split(answer.stderr.splitlines()[-1]) == ["sparsepriors", *asked, "--resume"]


def test_a_run_that_another_process_is_at_ends_with_code_1(tmp_path):
    with _files.held(tmp_path / "tiny-paper" / "smoke" / "seed-0"):
        answer = call("run", TINY, "--scale", "smoke", "--out", tmp_path)
    assert answer.exit_code == 1
    assert "another process is at work in it" in answer.stderr


def test_a_package_that_is_missing_comes_with_advice(tmp_path):
    paper = tmp_path / "lean.py"
    paper.write_text(Path(TINY).read_text().replace("total = 0.0", "import no_such_package_here"))
    answer = call("run", paper, "--scale", "smoke", "--out", tmp_path / "runs")
    assert answer.exit_code == 1
    assert "`sparsepriors doctor` says how to get" in answer.stderr


def test_results_that_are_not_there_are_not_shown_as_not_measured(tmp_path):
    answer = call("show", TINY, "--results", tmp_path / "none")
    assert answer.exit_code == 1
    assert "there is no results folder" in answer.stderr


def test_list_show_and_doctor_speak_json():
    listed = json.loads(call("list", "--json").stdout)
    assert [r["slug"] for r in listed] == papers.slugs()
    assert json.loads(call("show", TINY, "--json").stdout)["slug"] == "tiny-paper"
    found = json.loads(call("doctor", "--json").stdout)
    assert {"sparsepriors", "machine", "threads", "kernels", "rooms"} <= set(found)


def test_a_missing_room_comes_with_its_command():
    found = rooms(['numpy>=1; extra == "full"', 'no-such-package-here; extra == "bare"', 'torch>=999; extra == "new"'])
    assert [r["usable"] for r in found] == [True, False, False]
    assert "sparsepriors[bare]" in found[1]["get"]


def test_the_room_of_gpus_needs_one(monkeypatch):
    room = ['numpy>=1; platform_system == "Linux" and extra == "gpu"']
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [(r["usable"], r["missing"]) for r in rooms(room)] == [(False, ["a GPU"])]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [r["usable"] for r in rooms(room)] == [True]


def test_the_results_folder_is_that_of_ones_own_runs_or_the_one_that_is_there(tmp_path, monkeypatch):
    from sparsepriors.cli._door import results_folder

    monkeypatch.chdir(tmp_path)
    assert results_folder(None) == Path("runs/results")
    (tmp_path / "results").mkdir()
    assert results_folder(None) == Path("results")
    (tmp_path / "runs/results").mkdir(parents=True)
    assert results_folder(None) == Path("runs/results")
    assert results_folder(Path("elsewhere")) == Path("elsewhere")
