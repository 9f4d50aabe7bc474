"""Without a compiler the package builds all the same, and its references compute what the kernels do."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import torch

import sparsepriors
from sparsepriors import kernels
from sparsepriors.priors import NM

ROOT = Path(__file__).parents[2]
CODE = """
import json, sys, warnings
sys.path[:0] = [{wheel!r}, {packages!r}]
import torch
import sparsepriors
from sparsepriors import kernels
from sparsepriors.cli._doctor import examine
from sparsepriors.priors import NM
torch.set_num_threads(1)
x = torch.sin(torch.arange(64.0)).reshape(4, 16)
print(json.dumps({{"file": sparsepriors.__file__, "doctor": examine()["kernels"],
                   "mask": kernels.nm_mask(x, 2, 4).tolist(), "top": kernels.topk_mask(x, 5).tolist(),
                   "projected": NM(1, 4).project(x).tolist()}}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "CMakeLists.txt").is_file(), reason="the sources are not here")
def test_a_wheel_without_a_compiler(tmp_path):
    nothing = dict.fromkeys(("CC", "CXX"), "/bin/false")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SKBUILD", "CMAKE"))} | nothing
    words = ("-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check",
             "--wheel-dir", tmp_path, "--config-settings", f"build-dir={tmp_path / 'build'}", ROOT)
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    wheel, = tmp_path.glob("sparsepriors-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not [n for n in archive.namelist() if n.endswith((".so", ".pyd", ".dylib"))]
        packed = {n for n in archive.namelist() if n.startswith("sparsepriors/")}
        archive.extractall(tmp_path / "installed")
    source = ROOT / "src"
    assert packed >= {str(p.relative_to(source)) for p in source.rglob("*.py")}
    assert packed >= {str(p.relative_to(source)) for p in (source / "sparsepriors" / "priors" / "weights").iterdir()}
    code = CODE.format(wheel=str(tmp_path / "installed"), packages=sysconfig.get_path("purelib"))
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert Path(found["file"]).is_relative_to(tmp_path)
    assert found["file"] != sparsepriors.__file__
    assert found["doctor"]["native"] is False
    assert "C++17 compiler" in found["doctor"]["why_not"]
    assert set(found["doctor"]["kernels"].values()) == {"reference"}
    x = torch.sin(torch.arange(64.0)).reshape(4, 16)
    assert found["mask"] == kernels.nm_mask(x, 2, 4).tolist()
    assert found["top"] == kernels.topk_mask(x, 5).tolist()
    assert found["projected"] == NM(1, 4).project(x).tolist()
