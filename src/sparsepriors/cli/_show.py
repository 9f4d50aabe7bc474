"""``list`` and ``show``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from sparsepriors import papers
from sparsepriors.cli import _door
from sparsepriors.runs.paper import Experiment
from sparsepriors.runs.schema import read_results

VERDICT_STYLE = {"held": "green", "not held": "red", "inconclusive": "yellow", "not measured": "dim"}


def find(slug: str) -> Experiment:
    """The experiment of a slug or of a module's path; ends the command on a name that does not exist."""
    if slug.endswith(".py"):
        path = Path(slug)
        if not path.is_file():
            _door.usage(f"there is no paper module {slug}")
        try:
            return papers.from_file(path)
        except ValueError as e:
            _door.usage(str(e))
    known = papers.slugs()
    if slug not in known:
        _door.unknown("experiment", slug, known)
    try:
        return papers.get(slug)
    except ImportError as e:
        _door.fail(f"{slug} cannot be loaded: {e}; `sparsepriors doctor` says what is missing")


def list_papers(*, as_json: bool) -> None:
    """Print every experiment; one whose packages are missing is listed with the reason."""
    rows: list[dict[str, Any]] = []
    for slug in papers.slugs():
        try:
            p = papers.get(slug).paper
        except ImportError as e:
            rows.append({"slug": slug, "error": str(e)})
        else:
            rows.append({"slug": slug, "title": p.title, "authors": p.authors, "year": p.year, "url": p.url,
                         "room": p.room, "claims": len(p.claims), "error": None})
    if as_json:
        _door.print_json(rows)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("experiment", "year", "room", "claims", "title"):
        table.add_column(column, justify="right" if column == "claims" else "left")
    for row in rows:
        if row["error"]:
            table.add_row(f"[dim]{row['slug']}[/]", "", "", "", f"[yellow]cannot be loaded: {escape(row['error'])}[/]")
        else:
            table.add_row(f"[cyan]{row['slug']}[/]", str(row["year"]), escape(row["room"]), str(row["claims"]),
                          escape(row["title"]))
    _door.out().print(table)


def show(slug: str, results: Path | None, *, as_json: bool) -> None:
    """Print one experiment, with the results that the folder, by default that of one's own runs, holds for it."""
    paper = find(slug).paper
    if results is not None and not results.is_dir():
        _door.fail(f"there is no results folder {results}")
    record: dict[str, Any] | None = None
    path = _door.results_folder(results) / f"{paper.slug}.json"
    if path.is_file():
        try:
            record = read_results(path)
        except ValueError as e:
            _door.fail(str(e))
    if as_json:
        _door.print_json({**asdict(paper), "results": record})
        return
    console = _door.out()
    console.print(f"[bold]{escape(paper.title)}[/]\n{escape(paper.authors)} ({paper.year})\n{paper.url}\n")
    console.print(f"room [cyan]{escape(paper.room)}[/]; run it with [cyan]sparsepriors run {escape(slug)}[/]\n")
    for line in paper.method:
        console.print(f"  {escape(line)}")
    console.print()
    measured = {c["id"]: c for c in record["claims"]} if record else {}
    for claim in paper.claims:
        found = measured.get(claim.id)
        verdict = found["verdict"] if found else "not measured"
        console.print(f"[{VERDICT_STYLE[verdict]}]{verdict:>12}[/]  [bold]{claim.id}[/]  {escape(claim.text)}")
        console.print(f"{'':14}published: {escape(claim.published)}; against: {escape(claim.baseline)}", style="dim")
        if found:
            console.print(f"{'':14}{escape(found['why'])}", style="dim")
    if record:
        console.print(f"\nscale {record['scale']}, seeds {', '.join(map(str, record['seeds']))}, "
                      f"{record['seconds']:.0f} s, {record['peak_rss_mb']:.0f} MB at peak, "
                      f"version {escape(record['version'])}", style="dim")
