"""Importing the package and its rooms loads torch and little else, and a first call loads nothing more.

What that takes in time is measured by the benchmarks, against ``import torch`` on a quiet machine.
"""

import json
import pkgutil
import subprocess
import sys

import pytest

import sparsepriors

HEAVY = ("matplotlib", "skimage", "nibabel", "nilearn", "pywt", "sklearn", "h5py", "pandas", "PIL", "scipy.stats",
         "rich", "typer", "hypothesis", "transformers")
COMPILERS = ("torch._dynamo", "torch._inductor", "triton", "numba", "sympy")
ROOMS = sorted(m.name for m in pkgutil.iter_modules(sparsepriors.__path__)
               if m.ispkg and m.name not in ("cli", "gallery", "testing"))


def loaded(code: str, names: tuple[str, ...]) -> list[str]:
    """Which of the modules a fresh interpreter has after running the code."""
    code = f"{code}\nimport json, sys\nprint(json.dumps([m for m in {names!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_does_not_import_what_few_need(room):
    assert loaded(f"import sparsepriors.{room}", HEAVY) == []


def test_a_first_call_compiles_nothing():
    before = loaded("import torch", COMPILERS)
    calls = """
import torch
from sparsepriors.operators import FourierTransform, Sampling
from sparsepriors.priors import L1, NM, TV
from sparsepriors.solvers import proximal_gradient
TV(0.1).prox(torch.rand(8, 8))
NM(2, 4).project(torch.randn(4, 8))
A = Sampling(torch.rand(8, 8) < 0.5, torch.complex64) @ FourierTransform((8, 8))
proximal_gradient(A, A(torch.randn(8, 8, dtype=torch.complex64)), L1(0.02), max_iter=3)
"""
    assert loaded(calls, COMPILERS) == before


def test_help_does_not_import_torch():
    assert loaded("import sparsepriors.cli", ("torch",)) == []
