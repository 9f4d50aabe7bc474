"""Two gloo processes train as one does on the joint batch, and never disagree on a mask."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sparsepriors import _files

DRIVER = Path(__file__).with_name("parallel_driver.py")
CASES = ("rigl:1", "rigl:2", "snfs:2", "itop:2", "gmp:1", "imp:1", "sr-ste:2")   # preset and parts of a batch


def trained(folder, processes):
    """What every process saw; sockets are closed to the tests themselves, not to processes of their own."""
    outs = [folder / f"{processes}-{rank}.safetensors" for rank in range(processes)]
    paths = [str(DRIVER.parents[2]), str(DRIVER.parents[3] / "src")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "GLOO_SOCKET_IFNAME": "lo"}
    meeting = str(folder / f"meet{processes}")
    running = [subprocess.Popen([sys.executable, str(DRIVER), str(rank), str(processes), meeting, str(out), *CASES],
                                env=env, stderr=subprocess.PIPE, text=True) for rank, out in enumerate(outs)]
    for process in running:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    return [_files.read_tensors(out) for out in outs]


@pytest.mark.slow
def test_processes_agree_with_each_other_and_with_one(tmp_path):
    first, second = trained(tmp_path, 2)
    assert first.keys() == second.keys()
    assert [k for k, v in first.items() if not torch.equal(v, second[k])] == []
    (alone,) = trained(tmp_path, 1)
    # Sums of gradients come in another order: in double precision no decision changes.
    assert [k for k, v in alone.items() if not torch.allclose(v.double(), first[k].double(), atol=1e-10)] == []
