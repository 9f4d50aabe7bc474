"""The pages of the documentation take their numbers from what was measured."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
PLACE = re.compile(r"^<!-- (results|benchmark|comparison|figure): .*-->$", re.M)


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(DOCS)))
def test_every_table_and_figure_that_a_page_names_is_there(page, hooks):
    assert not PLACE.findall(hooks.on_page_markdown(page.read_text(encoding="utf-8")))


def test_a_page_with_measurements_shows_their_machine(hooks):
    assert "Scale default, seeds 0, 1" in hooks.on_page_markdown("<!-- results: sparse-mri -->")


def test_what_is_not_there_is_named(hooks):
    with pytest.raises(FileNotFoundError, match="results/full/nothing.json is named by a page"):
        hooks.on_page_markdown("<!-- results: full/nothing -->")
    with pytest.raises(ValueError, match="has no figure 'nothing'"):
        hooks.on_page_markdown("<!-- figure: sparse-mri/nothing -->")
