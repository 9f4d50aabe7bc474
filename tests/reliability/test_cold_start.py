"""Importing the package and its rooms loads torch and little else."""

import subprocess
import sys

HEAVY = ("matplotlib", "skimage", "nibabel", "nilearn", "pywt", "sklearn", "h5py", "pandas", "PIL", "scipy.stats",
         "rich", "typer")
ROOMS = ("priors", "operators", "solvers", "data", "kernels", "runs", "imaging", "networks", "papers")


def test_rooms_do_not_import_what_few_need():
    names = ", ".join(f"sparsepriors.{r}" for r in ROOMS)
    code = f"import sys, {names}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_does_not_import_torch():
    code = "import sys, sparsepriors.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
