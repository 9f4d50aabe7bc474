"""The code of the README and of the pages runs as printed."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)


@pytest.mark.parametrize("page", ["README.md", "docs/own_prior.md", "docs/own_kernel.md", "docs/tutorial.md"])
def test_code_runs(page):
    code = "\n".join(BLOCK.findall((ROOT / page).read_text(encoding="utf-8")))
    assert "import" in code
    exec(compile(code, page, "exec"), {})  # noqa: S102 - the point is to run what the page prints
