"""Pages open from the disk: no script, font, style or picture comes from an address, and names stay text."""

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer.testing

from sparsepriors import papers
from sparsepriors.cli import app
from sparsepriors.gallery import write_report
from sparsepriors.gallery.demo import Panel, write_demo
from sparsepriors.runs import Claim, Experiment, Paper
from sparsepriors.runs.execute import execute_demo

NASTY = "\"'><script src=//example.org/x.js></script><img src=x onerror=alert(1)>&"
LOADS = {"src", "srcset", "href", "data", "poster", "action", "formaction", "background", "xlink:href", "style"}
ROOT = Path(__file__).parents[2]


class Requests(HTMLParser):
    """What a browser would fetch, and every handler of events."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.scripts = 0
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        for name, value in attrs:
            if name.startswith("on"):
                self.asked.append(f"{name} on {tag}")
            elif name in LOADS and tag != "a" and not (value or "").startswith("data:image/"):
                self.asked.append(f"{tag} {name}={value}")
            elif tag == "a" and name == "href" and not re.match(r"https://|#", value or ""):
                self.asked.append(f"a href={value}")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)


def asks_for_nothing(page: str) -> None:
    found = Requests(page)
    assert found.asked == []
    assert found.scripts == 1  # the page's own
    for style in re.findall(r"(?s)<style>(.*?)</style>", page):
        assert not re.search(r"url\(|@import|@font-face|//", style)
    assert "default-src 'none'" in html.unescape(page)


def nasty_paper() -> Experiment:
    def demo(run):
        from matplotlib.figure import Figure

        run.log(method=NASTY, value=1.0)
        run.figure("picture", Figure(figsize=(1, 1)), NASTY, NASTY)

    paper = Paper("nasty-paper", NASTY, NASTY, 2020, "https://example.org/x", "imaging", (NASTY,),
                  (Claim("a", NASTY, NASTY, NASTY),))
    return Experiment(paper, lambda scale, seed, run: None, demo)


def test_the_report_of_hostile_names(tmp_path):
    some = {"mean": 1.0, "low": 0.9, "high": 1.1, "n": 5}
    claim = {"id": "a", "text": NASTY, "published": NASTY, "verdict": "held", "measured": some, "baseline": NASTY,
             "baseline_measured": some, "difference": some, "margin": 0.5, "better": "higher", "why": NASTY}
    (tmp_path / "x.json").write_text(json.dumps({
        "slug": "x", "scale": "default", "seeds": [0], "machine": {"cpu": NASTY, "gpu": NASTY, "python": NASTY},
        "version": NASTY, "seconds": 1.0, "peak_rss_mb": 2.0, "rows": [{NASTY: NASTY, "v": some}, {NASTY: "b", "v": 1}],
        "claims": [claim], "figures": [{"name": NASTY, "file": "absent.png", "caption": NASTY, "alt": NASTY}],
        "paper": {"title": NASTY, "authors": NASTY, "year": 2020, "url": "https://example.org/x", "room": NASTY,
                  "method": [NASTY]}}))
    write_report(tmp_path, tmp_path / "page.html")
    asks_for_nothing((tmp_path / "page.html").read_text())


def test_the_report_of_the_repository(tmp_path):
    if not (ROOT / "results").is_dir():
        pytest.skip("the repository's results are not here")
    answer = typer.testing.CliRunner().invoke(app, ["report", "--results", str(ROOT / "results"),
                                                    "--out", str(tmp_path / "page.html")])
    assert answer.exit_code == 0, answer.output
    page = (tmp_path / "page.html").read_text()
    asks_for_nothing(page)
    assert all(slug in page for slug in papers.slugs() if (ROOT / "results" / f"{slug}.json").exists())
    assert "data:image/" in page


def test_the_demonstration_of_hostile_names(tmp_path):
    experiment = nasty_paper()
    folder = execute_demo(experiment, tmp_path)
    panels = [Panel("nasty-paper", experiment.paper, folder, 1.0), Panel("failed", None, None, 1.0, NASTY)]
    asks_for_nothing(write_demo(panels, tmp_path / "index.html").read_text())


def test_the_search_finds_what_it_looks_for():
    bad = ('<link href="https://x/y.css"><img src="//x/y.png"/><script src="z.js"></script><p onclick="x"></p>'
           '<a href="javascript:x">y</a><iframe src="x"></iframe>')
    assert len(Requests(bad).asked) == 6
