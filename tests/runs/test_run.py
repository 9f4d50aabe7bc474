import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sparsepriors import _files, papers
from sparsepriors.runs import Claim, Experiment, Paper, Run, Scale
from sparsepriors.runs.execute import execute, execute_demo, read_status
from sparsepriors.runs.results import aggregate, collect, publish
from sparsepriors.runs.schema import read_results

TINY = papers.from_file(Path(__file__).parent.parent / "tiny_paper.py")


def start(folder, **kwargs):
    return Run.start(TINY, folder, **{"scale": Scale.SMOKE, "seed": 0, **kwargs})


def test_a_unit_of_work_is_computed_once_in_the_life_of_a_folder(tmp_path):
    first = start(tmp_path / "r").once("u", lambda: {"a": torch.tensor(1.5), "b": (1, 2), "c": float("nan")})
    again = start(tmp_path / "r", resume=True).once("u", lambda: pytest.fail("computed twice"))
    assert again["a"] == first["a"] == 1.5
    assert again["b"] == [1, 2]
    assert again["c"] != again["c"]


def test_tensors_come_back_bit_for_bit(tmp_path):
    x = torch.randn(3, 4, dtype=torch.complex64).T
    start(tmp_path / "r").tensors("t", lambda: {"x": x})
    assert torch.equal(start(tmp_path / "r", resume=True).tensors("t", dict)["x"], x)


def test_a_folder_is_not_mixed(tmp_path):
    start(tmp_path / "r")
    with pytest.raises(FileExistsError, match="already holds a run"):
        start(tmp_path / "r")
    with pytest.raises(ValueError, match="seed was 0, is 1"):
        start(tmp_path / "r", seed=1, resume=True)


@pytest.mark.public_door
def test_bad_input_is_named(tmp_path):
    run = start(tmp_path / "r")
    with pytest.raises(ValueError, match="key must be"):
        run.once("../up", dict)
    with pytest.raises(TypeError, match="must return a dict"):
        run.once("k", lambda: 3)
    with pytest.raises(TypeError, match="Run.tensors"):
        run.once("t", lambda: {"x": torch.ones(2)})
    with pytest.raises(ValueError, match="two units"):
        run.once("k", dict)
    with pytest.raises(ValueError, match="a row must have at least one column"):
        run.log()
    with pytest.raises(ValueError, match="column name must be letters, digits and underscores, got 'a b'"):
        run.log(**{"a b": 1})
    with pytest.raises(TypeError, match=r"x has the key 1; keys must be strings"):
        run.once("keys", lambda: {"x": {1: 2}})
    with pytest.raises(TypeError, match="must return a dict of tensors, got list"):
        run.tensors("list", lambda: [torch.ones(2)])
    with pytest.raises(TypeError, match="ours must be a number, got str"):
        run.claim("better", ours="1", baseline=1.0)
    run.claim("better", ours=torch.tensor(float("nan")), baseline=1)
    with pytest.raises(ValueError, match="measured twice"):
        run.claim("better", ours=1.0, baseline=1.0)
    with pytest.raises(ValueError, match="did you mean 'better'"):
        run.claim("beter", ours=1.0, baseline=1.0)
    with pytest.raises(TypeError, match="scalar"):
        run.log(x=[1])
    with pytest.raises(ValueError, match="hyphens"):
        Claim("A b", "t", "p", "b")
    with pytest.raises(ValueError, match="https"):
        Paper("a", "t", "a", 2000, "javascript:alert(1)", "r", ("m",), ())


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(FileExistsError, match=r"is not empty and holds no config\.json"):
        start(tmp_path)


def test_each_seed_counts_once(tmp_path):
    folder = execute(TINY, tmp_path, scale=Scale.SMOKE, seed=0)
    with pytest.raises(ValueError, match=r"each seed counts once, got \[0, 0\]"):
        collect(TINY.paper, Scale.SMOKE, [folder, folder])
    with pytest.raises(ValueError, match="at least one finished run"):
        collect(TINY.paper, Scale.SMOKE, [])
    with pytest.raises(ValueError, match="is a run of tiny-paper at scale smoke, not of"):
        collect(TINY.paper, Scale.DEFAULT, [folder])


def test_an_experiment_must_measure_its_claims_and_may_lack_a_demo(tmp_path):
    empty = Experiment(TINY.paper, lambda scale, seed, run: None)
    execute(empty, tmp_path, scale=Scale.SMOKE, seed=0)
    with pytest.raises(ValueError, match="tiny-paper did not measure better"):
        execute(empty, tmp_path, scale=Scale.DEFAULT, seed=0)
    with pytest.raises(ValueError, match="tiny-paper has no demo"):
        execute_demo(empty, tmp_path)


def test_pictures_that_a_run_no_longer_has_leave_the_results(tmp_path):
    def run(scale, seed, run):
        from matplotlib.figure import Figure

        run.claim("better", ours=1.0, baseline=1.0)
        run.figure("shown", Figure(figsize=(1, 1)))

    folder = execute(Experiment(TINY.paper, run), tmp_path / "runs", scale=Scale.SMOKE, seed=0)
    old = tmp_path / "results" / "figures" / "tiny-paper" / "old.png"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"x")
    publish(TINY.paper, Scale.SMOKE, [folder], tmp_path / "results")
    assert [p.name for p in old.parent.iterdir()] == ["shown.png"]


def test_a_finished_run_is_judged_and_its_record_keeps_the_shape(tmp_path):
    folders = [execute(TINY, tmp_path, scale=Scale.DEFAULT, seed=s) for s in range(5)]
    record = read_results(publish(TINY.paper, Scale.DEFAULT, folders, tmp_path / "results"))
    assert {"slug", "scale", "seeds", "machine", "version", "seconds", "peak_rss_mb", "rows",
            "claims"} <= set(record)
    assert record["claims"][0]["verdict"] == "held"
    assert record["claims"][0]["measured"]["n"] == 5
    assert len(record["rows"]) == 12


def test_an_earlier_run_is_kept_aside_and_a_finished_one_is_not_repeated(tmp_path):
    folder = execute(TINY, tmp_path, scale=Scale.SMOKE, seed=0)
    execute(TINY, tmp_path, scale=Scale.SMOKE, seed=0)
    assert (folder.parent / "seed-0.earlier-1" / "config.json").exists()
    execute(TINY, tmp_path, scale=Scale.SMOKE, seed=0, resume=True)
    status = read_status(folder)
    assert status is not None
    assert (status.state, status.attempts) == ("done", 1)


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_goes_on_is_left_alone_by_another(tmp_path, resume):
    """The second neither renames the folder of the first nor writes into it; once the first has gone it may."""
    meanwhile = []

    def first(scale, seed, run):
        with pytest.raises(BlockingIOError, match="another process is at work"):
            execute(TINY, tmp_path, scale=scale, seed=seed, resume=resume)
        meanwhile.extend(sorted(p.name for p in run.folder.parent.iterdir()))

    folder = execute(Experiment(TINY.paper, first), tmp_path, scale=Scale.SMOKE, seed=0)
    assert meanwhile == ["seed-0"]
    assert not (folder / "once").exists()
    execute(TINY, tmp_path, scale=Scale.SMOKE, seed=1, resume=resume)  # another seed is another folder
    execute(TINY, tmp_path, scale=Scale.SMOKE, seed=0)
    assert (folder / "once").exists()


def test_a_folder_is_free_again_when_its_process_is_killed(tmp_path):
    hold = ("import sys, time; from sparsepriors import _files\n"
            "with _files.held(sys.argv[1]): print('held', flush=True); time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", hold, tmp_path], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError), _files.held(tmp_path):
            pytest.fail("two hold it")
        other.kill()
        other.wait()
    with _files.held(tmp_path):
        pass


def test_a_failure_is_recorded_and_an_unfinished_run_is_not_judged(tmp_path):
    def broken(scale, seed, run):
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        execute(Experiment(TINY.paper, broken), tmp_path, scale=Scale.SMOKE, seed=0)
    folder = tmp_path / "tiny-paper" / "smoke" / "seed-0"
    assert json.loads((folder / "status.json").read_text())["error"] == "RuntimeError: no luck"
    with pytest.raises(ValueError, match="not finished: failed"):
        collect(TINY.paper, Scale.SMOKE, [folder])


def test_rows_of_seeds_are_merged_by_text_and_order():
    rows = {s: [{"m": "a", "k": 1, "v": float(s)}, {"m": "a", "k": 2, "v": 7.0}] for s in range(3)}
    table = aggregate(rows)
    assert [r["k"] for r in table] == [1, 2]
    assert (table[0]["v"]["mean"], table[0]["v"]["n"], table[1]["v"]) == (1.0, 3, 7.0)
    rows[1].pop()
    assert {r["seed"] for r in aggregate(rows)} == {0, 1, 2}
