import json
import re

import pytest
from PIL import Image

from sparsepriors.gallery import write_report
from sparsepriors.gallery._figures import figures
from sparsepriors.gallery._html import el
from sparsepriors.gallery._numbers import number, spread

NASTY = "<script>alert(1)</script>\"'&"


def some(n=5):
    return {"mean": 1.0, "low": 0.9, "high": 1.1, "n": n}


def record(**over):
    claim = {"id": "a", "text": NASTY, "published": NASTY, "verdict": "held", "measured": some(), "baseline": NASTY,
             "baseline_measured": some(), "difference": some(), "margin": 0.5, "better": "higher", "why": NASTY}
    return {"slug": "x", "scale": "default", "seeds": [0], "machine": {"cpu": NASTY}, "version": NASTY, "seconds": 1.0,
            "peak_rss_mb": 2.0, "rows": [{"m": NASTY, "v": some()}, {"m": "b", "v": 1}],
            "claims": [claim, {**claim, "id": "b", "verdict": "not held"}], **over}


def write(tmp_path, data):
    (tmp_path / "x.json").write_text(data if isinstance(data, str) else json.dumps(data))
    write_report(tmp_path, tmp_path / "page.html")
    return (tmp_path / "page.html").read_text()


def test_text_from_files_stays_text(tmp_path):
    page = write(tmp_path, record())
    assert "<script>alert" not in page
    assert page.count("<script>") == 1


def test_the_page_asks_for_nothing(tmp_path):
    page = write(tmp_path, record())
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)
    assert "url(" not in page
    assert "@import" not in page


def test_claims_that_do_not_hold_come_first(tmp_path):
    page = write(tmp_path, record())
    assert page.index('data-verdict="not held"') < page.index('data-verdict="held"')


@pytest.mark.parametrize("data", [
    record(slug="y"), record(seconds="1"), record(seeds=[-1]), record(seeds=[True]), record(scale="huge"),
    record(extra=1), record(rows=[[1]]), record(rows=[{"v": {"mean": 1}}]), record(machine=[]), record(version=["v"]),
    record(rows=[{"v": {"kind": "float", "value": "1e3"}}]), record(claims=[{}]), record(claims={}),
    record(figures=[{"name": "n", "file": "../../etc/passwd.png", "caption": "", "alt": ""}]),
    record(figures=[{"name": "n", "file": "/etc/x.png", "caption": "", "alt": ""}]),
    record(figures=[{"name": "n", "file": "javascript:x.png", "caption": "", "alt": ""}]),
    record(figures=[{"name": "n", "file": "x.html", "caption": "", "alt": ""}]),
    record(paper={"title": "t", "authors": "a", "year": 1, "url": "javascript:alert(1)", "room": "r", "method": []}),
    record(version="x" * 5000), record(peak_rss_mb=None),
    json.dumps(record(seconds=float("nan"))), json.dumps(record(seconds=float("inf"))), "[" * 100_000, "", "{", "[]",
    "null", '"text"', "\x00", "9" * 5000,
])
def test_damaged_and_hostile_results_are_refused_and_nothing_is_written(tmp_path, data):
    with pytest.raises(ValueError, match=r"x\.json"):
        write(tmp_path, data)
    assert not (tmp_path / "page.html").exists()


def test_numbers_read_well():
    assert spread({"mean": 26.0444, "low": 25.561, "high": 26.528, "n": 5}) == "26.04 [25.56, 26.53]"
    assert (number(-0.5), number(None), number(3.0)) == ("−0.5", "–", "3")


def test_elements_escape():
    assert el("a", "<&", href='"') == '<a href="&quot;">&lt;&amp;</a>'


@pytest.mark.parametrize(("size", "wide"), [((1000, 700), False), ((1000, 500), True), ((1700, 1000), True)],
                         ids=["small", "wide", "large"])
def test_a_figure_whose_words_half_a_page_would_shrink_has_the_whole_of_it(tmp_path, size, wide):
    Image.new("L", size).save(tmp_path / "f.png")
    found = str(figures(tmp_path, [{"file": "f.png", "caption": "", "alt": "a figure"}]))
    assert ('class="wide"' in found) == wide
