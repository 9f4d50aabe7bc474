"""The same seed gives the same bits: in two processes, and for one and two threads where that is promised."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).with_name("bits_driver.py")
ANY_THREADS = {"born_forward", "born_adjoint", "topk_mask", "nm_mask", "patterns"}


def bits(threads: int, folder: Path) -> dict[str, str]:
    done = subprocess.run([sys.executable, DRIVER, str(threads), folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_processes_and_threads(tmp_path):
    one, again, two = bits(1, tmp_path / "a"), bits(1, tmp_path / "b"), bits(2, tmp_path / "c")
    assert set(one) == {*ANY_THREADS, "prox", "network", "rows.json", "claims.json"}
    assert again == one
    assert {k: two[k] for k in ANY_THREADS} == {k: one[k] for k in ANY_THREADS}
    assert len(set(one.values())) == len(one)
