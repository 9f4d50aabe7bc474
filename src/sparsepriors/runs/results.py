"""From run folders to ``results/SLUG.json``: rows of all seeds, verdicts, provenance, small figures."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sparsepriors
from sparsepriors import _checks, _files
from sparsepriors.runs import _plain
from sparsepriors.runs import run as _run
from sparsepriors.runs.evidence import interval, judge
from sparsepriors.runs.execute import DONE, read_status
from sparsepriors.runs.paper import Claim, Paper, Scale
from sparsepriors.runs.pictures import small_picture
from sparsepriors.runs.schema import check_figure, check_rows


def collect(paper: Paper, scale: Scale, folders: Sequence[str | os.PathLike[str]]) -> dict[str, Any]:
    """Judge a paper from the folders of its finished runs, one per seed.

    Returns
    -------
    dict
        What ``results/SLUG.json`` holds: see `sparsepriors.runs.schema`.

    Raises
    ------
    ValueError
        If a folder is not a finished run of this paper and scale, two have the same seed, or a file is damaged.
    """
    runs = sorted((_Finished(Path(f), paper, scale) for f in folders), key=lambda r: r.seed)
    if not runs:
        raise ValueError("folders must name at least one finished run")
    seeds = [r.seed for r in runs]
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"each seed counts once, got {seeds}")
    return {
        "slug": paper.slug,
        "paper": {"title": paper.title, "authors": paper.authors, "year": paper.year, "url": paper.url,
                  "room": paper.room, "method": list(paper.method)},
        "scale": scale.value,
        "seeds": seeds,
        "machine": runs[0].machine,
        "version": sparsepriors.__version__,
        "seconds": round(sum(r.seconds for r in runs), 1),
        "peak_rss_mb": max(r.peak_rss_mb for r in runs),
        "rows": aggregate({r.seed: r.rows for r in runs}),
        "claims": [_judged(c, [r.claims[c.id] for r in runs if c.id in r.claims]) for c in paper.claims],
        "figures": runs[0].figures,
    }


def publish(paper: Paper, scale: Scale, folders: Sequence[str | os.PathLike[str]],
            results: str | os.PathLike[str]) -> Path:
    """Write ``results/SLUG.json`` and ``results/figures/SLUG`` and return the former.

    Raises
    ------
    ValueError
        As `collect`; also if a figure is too large for the gallery even after shrinking.
    """
    results = Path(results)
    record = collect(paper, scale, folders)
    first = min(folders, key=lambda f: _Finished(Path(f), paper, scale).seed)
    kept: list[dict[str, str]] = []
    for figure in record["figures"]:
        data, ending = small_picture(Path(first) / "figures" / figure["file"])
        name = Path(figure["file"]).stem + ending
        _files.write_bytes(results / "figures" / paper.slug / name, data)
        kept.append({**figure, "file": f"figures/{paper.slug}/{name}"})
    path = _files.write_json(results / f"{paper.slug}.json", {**record, "figures": kept})
    named = {Path(f["file"]).name for f in kept}
    folder = results / "figures" / paper.slug
    if folder.is_dir():  # pictures of an earlier run that this one no longer has
        for old in folder.iterdir():
            if old.name not in named and old.is_file():
                old.unlink()
    return path


def aggregate(rows: Mapping[int, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of several seeds as one table.

    Rows that agree in their columns and in every text and truth value belong together, in the order in which each
    seed logged them. A number that is the same for all seeds stays a number; one that differs becomes
    ``{"mean", "low", "high", "n"}`` with its 95 % interval. Where the seeds logged different numbers of rows of a
    kind, these rows stay apart and carry their ``seed``.
    """
    groups: dict[str, dict[int, list[Mapping[str, Any]]]] = {}
    for seed in sorted(rows):
        for row in rows[seed]:
            name = json.dumps([(k, v if isinstance(v, bool | str) else None) for k, v in row.items()])
            groups.setdefault(name, {}).setdefault(seed, []).append(row)
    table: list[dict[str, Any]] = []
    for group in groups.values():
        counts = {len(group.get(seed, [])) for seed in rows}
        if len(counts) == 1:
            table += [_merge(same) for same in zip(*group.values(), strict=True)]
        else:
            table += [{"seed": seed, **row} for seed, some in group.items() for row in some]
    return table


def _merge(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if all(v == values[0] and type(v) is type(values[0]) for v in values):
            merged[name] = values[0]
        else:
            merged[name] = asdict(interval([math.nan if v is None else float(_plain.decode(v)) for v in values]))
    return merged


class _Finished:
    """The evidence in the folder of a finished run, checked."""

    def __init__(self, folder: Path, paper: Paper, scale: Scale) -> None:
        config = _record(folder / _run.CONFIG)
        status = read_status(folder)
        if config.get("slug") != paper.slug or config.get("scale") != scale.value:
            raise ValueError(f"{folder} is a run of {config.get('slug')} at scale {config.get('scale')}, "
                             f"not of {paper.slug} at scale {scale}")
        if status is None or status.state != DONE:
            raise ValueError(f"{folder} is not finished: {status.state if status else 'not begun'}")
        try:
            self.seed = _checks.count("seed", config.get("seed"))
            self.rows: list[dict[str, Any]] = _kept(folder / _run.ROWS, [])
            check_rows(self.rows)
            self.claims = {k: (_measure(v, "ours"), _measure(v, "baseline"))
                           for k, v in _kept(folder / _run.CLAIMS, {}).items()}
            self.figures = [{"name": name, **about} for name, about in _kept(folder / _run.FIGURES, {}).items()]
            for figure in self.figures:
                check_figure(figure)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as e:
            raise ValueError(f"{folder} does not hold what a run writes there: {e}") from e
        self.machine = _record(folder / _run.MACHINE)
        self.seconds, self.peak_rss_mb = status.seconds, status.peak_rss_mb


def _measure(pair: Mapping[str, Any], name: str) -> float:
    return float(_plain.decode(pair[name]))


def _record(path: Path) -> dict[str, Any]:
    data = _files.read_json(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return data


def _kept(path: Path, empty: Any) -> Any:
    return _files.read_json(path) if path.exists() else empty


def _judged(claim: Claim, pairs: Iterable[tuple[float, float]]) -> dict[str, Any]:
    pairs = list(pairs)
    found = judge(claim, [p[0] for p in pairs], [p[1] for p in pairs])
    return {
        "id": claim.id,
        "text": claim.text,
        "published": claim.published,
        "verdict": found.verdict.value,
        "measured": asdict(found.ours),
        "baseline": claim.baseline,
        "baseline_measured": asdict(found.baseline),
        "difference": asdict(found.difference),
        "margin": float(claim.margin),
        "better": claim.better,
        "why": found.why,
    }
