"""Cold start: importing the library against importing torch alone, and first calls against second ones.

    python benchmarks/cold_start.py

Every measurement is a fresh process; pairs of processes take turns. Within each, imports are timed from before the
first of them, and first calls after them and after their input was drawn. The processes keep Python's bytecode, as an
installed package has it; the first of each pair, which may have to write it, is reported but not compared.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from typing import Any

from _paired import Paired, command, row, time_row

IMPORT_TARGET, CALL_TARGET = 1.3, 2.0
CALLS = {
    "TV(0.1).prox, 128 x 128": ("torch.rand(128, 128)", "TV(0.1).prox(x)"),
    "NM(2, 4).mask, 512 x 512": ("torch.rand(512, 512)", "NM(2, 4).mask(x)"),
    "FISTA, 200 x 400": ("torch.rand(200, 400) - 0.5",
                         "proximal_gradient(Matrix(x), x[:, 0], L1(0.1), max_iter=50)"),
}
ROOMS = {"priors, operators, solvers": ("priors", "operators", "solvers"),
         "every room": ("priors", "operators", "solvers", "data", "kernels", "runs", "imaging", "networks",
                        "language", "regression", "dictionaries", "papers")}


def fresh(code: str) -> list[float]:
    """The numbers that code prints in a process of its own."""
    keeps_bytecode = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", f"import time\nstart = time.perf_counter()\n{code}"],
                          capture_output=True, text=True, check=True, env=keeps_bytecode)
    return [float(word) for word in done.stdout.split()]


def measure(quick: bool) -> list[dict[str, Any]]:
    pairs = 2 if quick else 9
    rows = []
    for case, rooms in ROOMS.items():
        ours, peer = (f"import {what}\nprint(time.perf_counter() - start)"
                      for what in (", ".join(f"sparsepriors.{room}" for room in rooms), "torch"))
        first = fresh(ours)[0]
        fresh(peer)
        turns = [(fresh(ours)[0], fresh(peer)[0]) for _ in range(pairs)]
        found = Paired(tuple(a for a, _ in turns), tuple(b for _, b in turns), first)
        rows.append(time_row(f"import {case}", "import torch", found,
                             target=round(1 / IMPORT_TARGET, 3)))
    for case, (draw, call) in CALLS.items():
        code = ("import torch\nfrom sparsepriors.priors import *\nfrom sparsepriors.operators import Matrix\n"
                "from sparsepriors.solvers import proximal_gradient\ntorch.set_num_threads(1)\n"
                f"x = {draw}\ndef call():\n    start = time.perf_counter()\n"
                f"    {call}\n    return time.perf_counter() - start\nprint(call(), call())")
        runs = [fresh(code) for _ in range(pairs)]
        first, second = (statistics.median(run[i] for run in runs) for i in (0, 1))
        rows.append(row(case, "ms", round(1e3 * first, 3), "its second call", round(1e3 * second, 3),
                        round(statistics.median(b / a for a, b in runs), 3), round(1 / CALL_TARGET, 3)))
    return rows


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print and write the rows."""
    return command("cold_start", __doc__ or "", measure, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
