"""Reading ``results/SLUG.json``: everything is checked before anybody shows it.

The file may come from elsewhere. Nothing in it is trusted: sizes are limited, numbers are finite, figure paths stay
inside the results folder, and unknown keys are refused.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from sparsepriors import _files
from sparsepriors.runs.evidence import Verdict
from sparsepriors.runs.paper import URL, Scale

MAX_BYTES = 8_000_000
_MAX_TEXT = 4000
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

Check = Callable[[str, Any], None]


def read_results(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read and check one results file.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is too large, damaged, or not of the stated shape; the message names the file and the field.
    """
    path = Path(path)
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} holds more than {MAX_BYTES} bytes")
    data = _files.read_json(path)
    try:
        check_results(data)
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e
    if data["slug"] != path.stem:
        raise ValueError(f"{path}: slug must be {path.stem!r}, got {data['slug']!r:.100}")
    return data


def check_rows(data: Any) -> None:
    """Raise `ValueError` unless these are rows as a run keeps them."""
    _list(_row, 20_000)("rows", data)


def check_figure(data: Any) -> None:
    """Raise `ValueError` unless this describes a figure whose file lies where it is said to."""
    _FIGURE("figure", data)


def check_results(data: Any) -> None:
    """Raise `ValueError` that names the first field which is not as ``results/SLUG.json`` has it."""
    _RESULTS("results", data)


def _fail(where: str, expected: str, value: Any) -> None:
    raise ValueError(f"{where} must be {expected}, got {value!r:.100}")


def _text(where: str, value: Any) -> None:
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        _fail(where, f"text of at most {_MAX_TEXT} characters", value)


def _number(where: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        _fail(where, "a finite number", value)


def _natural(where: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        _fail(where, "a whole number >= 0", value)


def _maybe(check: Check) -> Check:
    def checked(where: str, value: Any) -> None:
        if value is not None:
            check(where, value)

    return checked


def _slug(where: str, value: Any) -> None:
    if not isinstance(value, str) or len(value) > 64 or not _SLUG.fullmatch(value):
        _fail(where, "lower-case words joined by hyphens", value)


def _among(*allowed: str) -> Check:
    def checked(where: str, value: Any) -> None:
        if value not in allowed:
            _fail(where, " or ".join(map(repr, allowed)), value)

    return checked


def _list(check: Check, most: int) -> Check:
    def checked(where: str, value: Any) -> None:
        if not isinstance(value, list) or len(value) > most:
            _fail(where, f"a list of at most {most}", value)
        for i, item in enumerate(value):
            check(f"{where}[{i}]", item)

    return checked


def _object(fields: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    optional = optional or {}

    def checked(where: str, value: Any) -> None:
        if not isinstance(value, dict):
            _fail(where, "an object", value)
        if missing := sorted(set(fields) - set(value)):
            raise ValueError(f"{where} lacks {', '.join(missing)}")
        if extra := sorted(set(value) - set(fields) - set(optional)):
            raise ValueError(f"{where} has unknown fields: {', '.join(extra)[:200]}")
        for name, item in value.items():
            (fields.get(name) or optional[name])(f"{where}.{name}", item)

    return checked


def _scalar(where: str, value: Any) -> None:
    if isinstance(value, str):
        _text(where, value)
    elif value is not None and not isinstance(value, bool):
        _number(where, value)


def _machine(where: str, value: Any) -> None:
    _mapping(where, value, _scalar)


def _cell(where: str, value: Any) -> None:
    if not isinstance(value, dict):
        _scalar(where, value)
    elif set(value) == {"kind", "value"}:
        _object({"kind": _among("float"), "value": _among("nan", "inf", "-inf")})(where, value)
    else:
        _INTERVAL(where, value)


def _row(where: str, value: Any) -> None:
    _mapping(where, value, _cell)


def _mapping(where: str, value: Any, check: Check) -> None:
    if not isinstance(value, dict) or len(value) > 100:
        _fail(where, "an object of at most 100 fields", value)
    for name, item in value.items():
        _text(f"a name in {where}", name)
        check(f"{where}.{name}", item)


def _figure_file(where: str, value: Any) -> None:
    _text(where, value)
    path = PurePosixPath(value)
    if (path.is_absolute() or ".." in path.parts or "\\" in value or ":" in value or "\0" in value
            or path.suffix not in (".png", ".webp", ".svg")):
        _fail(where, "the relative path of a png, webp or svg file inside the results folder", value)


def _url(where: str, value: Any) -> None:
    if not isinstance(value, str) or len(value) > _MAX_TEXT or not URL.fullmatch(value):
        _fail(where, "an https address", value)


_INTERVAL = _object({"mean": _maybe(_number), "low": _maybe(_number), "high": _maybe(_number), "n": _natural})
_CLAIM = _object({
    "id": _slug, "text": _text, "published": _text, "verdict": _among(*(v.value for v in Verdict)),
    "measured": _INTERVAL, "baseline": _text, "baseline_measured": _INTERVAL,
    "difference": _INTERVAL, "margin": _number,
    "better": _among("higher", "lower"), "why": _text,
})
_FIGURE = _object({"name": _text, "file": _figure_file, "caption": _text, "alt": _text})
_PAPER = _object({"title": _text, "authors": _text, "year": _natural, "url": _url, "room": _text,
                  "method": _list(_text, 5)})
_RESULTS = _object({
    "slug": _slug, "scale": _among(*(s.value for s in Scale)), "seeds": _list(_natural, 10_000), "machine": _machine,
    "version": _text, "seconds": _number, "peak_rss_mb": _number, "rows": _list(_row, 20_000),
    "claims": _list(_CLAIM, 100),
}, optional={"paper": _PAPER, "figures": _list(_FIGURE, 100)})
