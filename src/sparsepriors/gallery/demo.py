"""The page of the demonstration: one panel for each experiment, with its pictures and its rows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sparsepriors
from sparsepriors import _files
from sparsepriors.gallery import _numbers
from sparsepriors.gallery._figures import figures
from sparsepriors.gallery._html import Html, el, join
from sparsepriors.gallery._page import page
from sparsepriors.gallery._rows import row_tables
from sparsepriors.runs.machine import machine
from sparsepriors.runs.paper import Paper


@dataclass(frozen=True)
class Panel:
    """One experiment of the demonstration.

    Attributes
    ----------
    slug
        Its name.
    paper
        What it shows, if the module could be loaded.
    folder
        The finished run; ``None`` if it failed.
    seconds
        How long it took.
    error
        What went wrong, if it did.
    """

    slug: str
    paper: Paper | None
    folder: Path | None
    seconds: float
    error: str = ""


def write_demo(panels: Sequence[Panel], out: str | os.PathLike[str]) -> Path:
    """Write the page of the panels to ``out``.

    Raises
    ------
    ValueError
        If a run folder is damaged.
    OSError
        If the page cannot be written.
    """
    failed = sum(bool(p.error) for p in panels)
    here = machine()
    heading = join(
        el("h1", "One kind of object: the prior"),
        el("p", "A penalty, a pattern, a trained denoiser: each says what is believed about an unknown before the data "
                "speak. Below, priors restore a scan from a fraction of its measurements, thin out a trained network "
                "and image a scene by radar, each beside its baselines.", class_="lead"),
        el("p", f"One pass with one seed on this machine ({here['cpu']}, {here['cores']} cores), "
                f"{_numbers.duration(sum(p.seconds for p in panels))} in all. Verdicts on the papers' claims need "
                f"several seeds: ", el("code", "sparsepriors run all"), ".", class_="note"),
        el("p", f"{failed} of {len(panels)} panels failed.", class_="error") if failed else None)
    body = join(*(_panel(p) for p in panels))
    footer = el("p", f"Written by sparsepriors {sparsepriors.__version__}. This page is one file and loads nothing.")
    return _files.write_text(out, page("sparsepriors: demonstration", heading=heading, body=body, footer=footer))


def _panel(panel: Panel) -> Html:
    about = panel.paper
    cost = el("span", f"failed after {_numbers.duration(panel.seconds)}", class_="chip failed") if panel.error \
        else el("span", _numbers.duration(panel.seconds), class_="chip inconc")
    return el(
        "section",
        el("h2", about.room if about else panel.slug),
        el("article",
           el("h3", about.title if about else panel.slug),
           el("p", f"{about.authors}, {about.year}. " if about else None,
              el("a", "Paper", href=about.url, rel="noreferrer") if about else None, " ", cost, class_="by"),
           el("ol", (el("li", line) for line in about.method), class_="method") if about else None,
           el("p", panel.error, class_="error") if panel.error else None,
           _evidence(panel.folder) if panel.folder else None,
           el("pre", el("code", f"sparsepriors run {panel.slug}"))),
        id=panel.slug)


def _evidence(folder: Path) -> Html:
    listed = _read(folder / "figures.json", {})
    pictures = figures(folder / "figures", ({**about, "name": name} for name, about in listed.items()))
    rows = _read(folder / "rows.json", [])
    return join(pictures, row_tables(rows, "rows.json") if rows else None)


def _read(path: Path, default: Any) -> Any:
    if not path.exists():
        return default
    found = _files.read_json(path)
    if type(found) is not type(default):
        raise ValueError(f"{path} does not hold what a run writes there")
    return found
