"""The panels of ``make demo``: each really runs and draws its pictures."""

import json

import pytest

from sparsepriors.cli._demo import PANELS
from sparsepriors.papers import get
from sparsepriors.runs.execute import execute_demo


@pytest.mark.slow
@pytest.mark.parametrize("slug", PANELS)
def test_a_panel_runs_and_draws(slug, tmp_path):
    folder = execute_demo(get(slug), tmp_path)
    drawn = list((folder / "figures").glob("*.png"))
    assert {p.stem for p in drawn} == set(json.loads((folder / "figures.json").read_text()))
    assert len(drawn) >= 2
    assert all(p.stat().st_size > 10_000 for p in drawn)
