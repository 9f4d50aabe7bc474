"""Run a command in forked children, kill them at drawn moments, resume, and print how each ended.

One process imports the package once; its children are what is killed. Arguments: folder, paper, seed, kills.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from sparsepriors import networks, solvers  # noqa: F401  the children find them imported
from sparsepriors.cli import app
from sparsepriors.runs.machine import code_digest, machine

torch.set_num_threads(1)  # before the first fork, and for every child
machine()
code_digest("")  # kept: every child is of one version, whoever edits the sources meanwhile


def begin(*args: object) -> int:
    """Start the command in a child and return its process id."""
    child = os.fork()
    if child:
        return child
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
    try:
        app([str(a) for a in args], standalone_mode=True)
    except SystemExit as e:
        os._exit(int(e.code or 0))
    os._exit(0)


def command(folder: Path, paper: str, *more: str) -> tuple[object, ...]:
    return "run", paper, "--scale", "smoke", "--out", folder, "--quiet", *more


def main(root: Path, paper: str, seed: int, kills: int) -> None:
    draw = random.Random(seed)
    started = time.monotonic()
    _, code = os.waitpid(begin(*command(root / "whole", paper)), 0)
    lasts = time.monotonic() - started
    assert code == 0, f"the uninterrupted run ended with {code}"
    ends = []
    for k in range(kills):
        folder = root / f"killed-{k}"
        child = begin(*command(folder, paper))
        time.sleep(draw.uniform(0.02, 1.0) * lasts)
        os.kill(child, signal.SIGKILL)
        _, code = os.waitpid(child, 0)
        held = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
        _, resumed = os.waitpid(begin(*command(folder, paper, "--resume")), 0)
        ends.append({"killed": os.WIFSIGNALED(code), "held": held, "resumed": os.waitstatus_to_exitcode(resumed)})
    print(json.dumps({"seconds": lasts, "ends": ends}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
