"""List every ``raise`` in floors 0 to 2 that no test executes, and the branch coverage of these floors.

``python scripts/unexecuted_raises.py`` runs the tests of these floors under coverage.py, in about a quarter of an hour;
with the path of a file that ``coverage json`` wrote it reads that instead. Exits with 1 if a raise is left or the
coverage is low.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "sparsepriors"
FLOORS = ("kernels", "priors", "operators", "data", "solvers", "runs")
TESTS = (*FLOORS, "cli", "gallery", "reliability/test_attacks.py", "networks/test_checkpoints.py", "test_checks.py",
         "test_conftest.py", "test_described.py", "test_norms.py")
LEAST = 90.0   # per cent of branches


def main() -> int:
    """Print what is left and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", nargs="?", type=Path, help="a file that `coverage json` wrote")
    path = parser.parse_args().measured
    files = json.loads((path or measure()).read_text())["files"]
    by_path = {(ROOT / name).resolve(): found for name, found in files.items()}
    left, branches, taken = [], 0, 0
    for source in sources():
        found = by_path.get(source)
        left += unexecuted(source, set(found["executed_lines"]) if found else set())
        if found:
            branches += found["summary"]["num_branches"]
            taken += found["summary"]["covered_branches"]
    share = 100 * taken / branches if branches else 0.0
    print(*left, sep="\n")
    print(f"{len(left)} raises that no test executes; {taken} of {branches} branches taken, {share:.1f} %")
    return int(bool(left) or share < LEAST)


def measure() -> Path:
    """Run the tests of the floors and return the path of what coverage.py saw."""
    folder = Path(tempfile.mkdtemp())
    data, out = folder / "coverage", folder / "coverage.json"
    tests = [str(ROOT / "tests" / t) for t in TESTS]
    run: list[Any] = [sys.executable, "-m", "coverage"]
    floors = ",".join([f"{PACKAGE}/_*.py", *(f"{PACKAGE}/{floor}/*" for floor in FLOORS)])
    subprocess.run([*run, "run", "--branch", f"--include={floors}", f"--data-file={data}", "-m", "pytest",
                    "-m", "not slow", *tests], cwd=ROOT, check=False)
    subprocess.run([*run, "json", "--quiet", f"--data-file={data}", "-o", out], cwd=ROOT, check=True)
    return out


def sources() -> list[Path]:
    """The modules of floors 0 to 2 and of what lies below them."""
    return sorted([*PACKAGE.glob("_*.py"), *(p for floor in FLOORS for p in (PACKAGE / floor).rglob("*.py"))])


def unexecuted(source: Path, lines: set[int]) -> list[str]:
    """The raises of a module whose first line was not reached, with place and text."""
    text = source.read_text(encoding="utf-8")
    raises = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Raise))
    return [f"{source.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)[:120]}"
            for node in sorted(raises, key=lambda n: n.lineno) if node.lineno not in lines]


if __name__ == "__main__":
    sys.exit(main())
