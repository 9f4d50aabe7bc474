"""A run that is killed at any moment resumes to the bits of one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sparsepriors import _files
from sparsepriors.networks.checkpoints import load_checkpoint
from sparsepriors.runs.execute import read_status
from sparsepriors.runs.schema import read_results

HERE = Path(__file__).parent
PAPER = HERE / "real_paper.py"
TIMES = ("seconds", "peak_rss_mb")


def plain(value):
    """A tree with its tensors as bytes, so that equal means equal to the bit."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value.numpy().tobytes() if hasattr(value, "numpy") else value


def evidence(out):
    """All that a run measured: units of work, weights, states of generators, rows, claims, the judged results."""
    found = {}
    for path in sorted((out / "real-paper").rglob("*")):
        name = str(path.relative_to(out))
        if path.suffix == ".safetensors" and path.name.startswith("training"):
            found[name] = plain(load_checkpoint(path))
        elif path.suffix == ".safetensors":
            found[name] = plain(_files.read_tensors(path))
        elif path.suffix == ".json" and path.name != "status.json":
            found[name] = path.read_bytes()
    found["results"] = {k: v for k, v in read_results(out / "results" / "real-paper.json").items() if k not in TIMES}
    return found


@pytest.mark.slow
def test_twenty_kills_at_drawn_moments_change_no_bit(tmp_path):
    done = subprocess.run([sys.executable, HERE / "kill_driver.py", tmp_path, PAPER, "7", "20"], capture_output=True,
                          text=True, check=False, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout)["ends"]
    assert len(ends) == 20
    assert sum(e["killed"] for e in ends) >= 15  # a kill that comes after the end kills nothing
    assert len({len(e["held"]) for e in ends}) >= 2  # they came at different moments
    assert [e["resumed"] for e in ends] == [0] * 20
    want = evidence(tmp_path / "whole")
    assert len(want) >= 20
    for k in range(20):
        assert evidence(tmp_path / f"killed-{k}") == want
        status = read_status(tmp_path / f"killed-{k}" / "real-paper" / "smoke" / "seed-0")
        assert status is not None
        assert status.state == "done"


def call(out, *more):
    return [sys.executable, "-m", "sparsepriors", "run", str(PAPER), "--scale", "smoke", "--out", str(out), *more]


def interrupt(out, number):
    """Begin a run, send it a signal once it has kept something, and return its exit code and what it said."""
    child = subprocess.Popen(call(out), stderr=subprocess.PIPE, text=True, preexec_fn=take_ctrl_c)
    try:
        deadline = time.monotonic() + 60
        while not (seed_folder(out) / "once").is_dir() and time.monotonic() < deadline:
            time.sleep(0.01)
        child.send_signal(number)
        _, said = child.communicate(timeout=60)
    finally:
        child.kill()
    return child.returncode, said


def take_ctrl_c():
    """A suite that runs in the background ignores Ctrl-C, and its children would, too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def seed_folder(out):
    return out / "real-paper" / "smoke" / "seed-0"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_one_interrupt_leaves_a_folder_that_says_so_and_goes_on(tmp_path, number):
    out, code, said = tmp_path, 0, ""
    for attempt in range(5):  # on a busy machine the run may end before the signal is sent
        out = tmp_path / f"interrupted-{attempt}"
        code, said = interrupt(out, number)
        if code != 0:
            break
    assert code == 130, said
    assert "--resume" in said
    status = read_status(seed_folder(out))
    assert status is not None
    assert (status.state, status.attempts) == ("interrupted", 1)
    assert not list(out.rglob("*.part"))
    subprocess.run(call(out, "--resume", "--quiet"), check=True, capture_output=True, timeout=60)
    status = read_status(seed_folder(out))
    assert status is not None
    assert (status.state, status.attempts) == ("done", 2)
    subprocess.run(call(tmp_path / "whole"), check=True, capture_output=True, timeout=60)
    assert evidence(out) == evidence(tmp_path / "whole")
