"""The report: every result of a folder on one page."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sparsepriors
from sparsepriors import _files
from sparsepriors.gallery import _numbers
from sparsepriors.gallery._claims import ORDER, claims_table, dots, legend
from sparsepriors.gallery._figures import figures
from sparsepriors.gallery._html import Html, el, join
from sparsepriors.gallery._page import page
from sparsepriors.gallery._rows import row_tables
from sparsepriors.runs.schema import read_results

Record = Mapping[str, Any]


def write_report(results: str | os.PathLike[str], out: str | os.PathLike[str]) -> int:
    """Write the page of every ``results/*.json`` to ``out`` and return how many systems it shows.

    Raises
    ------
    FileNotFoundError
        If the folder holds no results.
    ValueError
        If a file is damaged or not of the stated shape; the message names it and the field. Nothing is written then.
    OSError
        If the page cannot be written.
    """
    folder = Path(results)
    records = [read_results(p) for p in sorted(folder.glob("*.json"))]
    if not records:
        raise FileNotFoundError(f"{folder} holds no results (*.json)")
    _files.write_text(out, render(records, folder))
    return len(records)


def render(records: Sequence[Record], folder: Path) -> str:
    """The page of these records; figures are read from ``folder``."""
    rooms: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: (_room(r), r["slug"])):
        rooms.setdefault(_room(record), []).append(record)
    claims = [c for r in records for c in r["claims"]]
    count = {v: sum(c["verdict"] == v for c in claims) for v in ORDER}
    heading = join(
        el("h1", "Published claims, measured again"),
        el("p", f"{_plural(len(records), 'system')} and {_plural(len(claims), 'claim')}: {count['held']} held, "
                f"{count['not held']} not held, {count['inconclusive']} inconclusive. Each verdict is computed from "
                f"paired differences over seeds: a claim holds if the one-sided 95 % lower bound of the mean "
                f"improvement reaches the margin that it asks for, and does not hold if the upper bound stays below.",
           class_="lead"))
    body = join(_index(rooms), *(
        el("section", el("h2", room), *(_system(r, folder) for r in some), id=f"room-{_anchor(room)}")
        for room, some in rooms.items()))
    footer = el("p", f"Written by sparsepriors {sparsepriors.__version__}. This page is one file: it loads nothing and "
                     f"reads the same without a script.")
    return page("sparsepriors: published claims, measured again", heading=heading, body=body, footer=footer)


def _index(rooms: Mapping[str, Sequence[Record]]) -> Html:
    head = el("thead", el("tr", el("th", "system", scope="col"), el("th", "room", scope="col"),
                          el("th", "claims", scope="col"), el("th", "seeds", scope="col", class_="n"),
                          el("th", "time", scope="col", class_="n"), el("th", "peak memory", scope="col", class_="n")))
    lines = [el("tr",
                el("td", el("a", r["slug"], href=f"#{r['slug']}")),
                el("td", room, data_label="room"),
                el("td", dots(r["claims"]), data_label="claims"),
                el("td", len(r["seeds"]), class_="n", data_label="seeds", data_value=len(r["seeds"])),
                el("td", _numbers.duration(r["seconds"]), class_="n", data_label="time", data_value=r["seconds"]),
                el("td", _numbers.megabytes(r["peak_rss_mb"]), class_="n", data_label="peak memory",
                   data_value=r["peak_rss_mb"]))
             for room, some in rooms.items() for r in some]
    boxes = [el("label", el("input", type="checkbox", value=v, checked=True), v) for v in ORDER]
    return el("nav", el("h2", "Systems"),
              el("table", head, el("tbody", lines), class_="sortable stack"),
              el("p", legend(), class_="note"),
              el("fieldset", el("legend", "show claims that are"), *boxes, class_="filter", hidden=True),
              aria_label="systems")


def _system(record: Record, folder: Path) -> Html:
    about = record.get("paper")
    slug = record["slug"]
    claims = record["claims"]
    aside = el("aside", el("pre", el("code", _command(record))), provenance(record))
    text = join(
        el("h3", about["title"] if about else slug),
        el("p", about["authors"], f", {about['year']}. ", el("a", "Paper", href=about["url"], rel="noreferrer"),
           class_="by") if about else None,
        el("ol", (el("li", line) for line in about["method"]), class_="method") if about else None)
    rows = record["rows"]
    return el(
        "article",
        el("div", el("div", text), aside, class_="intro"),
        el("h4", "Claims"),
        claims_table(claims) if claims else el("p", "No claims were stated.", class_="note"),
        figures(folder, record.get("figures", ())),
        el("details", el("summary", f"All rows ({len(rows)})"), row_tables(rows, f"{slug}.json")) if rows else None,
        id=slug)


def provenance(record: Record) -> Html:
    """Where, when and at what cost it was measured."""
    machine = record["machine"]
    cpu = ", ".join(str(v) for v in (machine.get("cpu"), f"{machine['cores']} cores" if "cores" in machine else None,
                                     machine.get("instruction_set")) if v)
    facts = [
        ("scale", record["scale"]),
        ("seeds", ", ".join(map(str, record["seeds"]))),
        ("time", f"{_numbers.duration(record['seconds'])} for all seeds"),
        ("peak memory", _numbers.megabytes(record["peak_rss_mb"])),
        ("processor", cpu),
        ("gpu", machine.get("gpu")),
        ("threads", machine.get("threads")),
        ("torch", machine.get("torch")),
        ("python", machine.get("python")),
        ("version", record["version"]),
    ]
    return el("dl", *(join(el("dt", name), el("dd", str(value))) for name, value in facts if value is not None))


def _command(record: Record) -> str:
    scale = "" if record["scale"] == "default" else f" --scale {record['scale']}"
    return f"sparsepriors run {record['slug']}{scale}"


def _room(record: Record) -> str:
    about = record.get("paper")
    return about["room"].split(".")[0] if about else "other"


def _anchor(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text)


def _plural(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"
