"""Tables of evidence rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sparsepriors.gallery._html import Child, Html, el, join
from sparsepriors.gallery._numbers import number, plus_minus

MAX_ROWS = 150

Row = Mapping[str, Any]


def row_tables(rows: Sequence[Row], source: str) -> Html:
    """One table for each set of columns; what is the same in a whole table is said once above it."""
    tables: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        tables.setdefault(tuple(row), []).append(row)
    return join(*(_table(columns, some, source) for columns, some in tables.items()))


def _table(columns: tuple[str, ...], rows: Sequence[Row], source: str) -> Html:
    fixed = [c for c in columns if len(rows) > 2 and all(r[c] == rows[0][c] for r in rows)]
    shown = [c for c in columns if c not in fixed] or list(columns)
    numeric = {c: all(not isinstance(r[c], str | bool) for r in rows) for c in shown}
    above: list[str] = [f"{_title(c)} {_text(rows[0][c])}" for c in fixed if c not in shown]
    left_out = len(rows) - MAX_ROWS
    if left_out > 0:
        above.append(f"the first {MAX_ROWS} of {len(rows)} rows; the rest is in {source}")
    head = el("thead", el("tr", (el("th", _title(c), scope="col", class_="n" if numeric[c] else None) for c in shown)))
    body = el("tbody", (el("tr", (_cell(r[c], numeric[c]) for c in shown)) for r in rows[:MAX_ROWS]))
    return join(el("p", "; ".join(above), class_="note") if above else None,
                el("div", el("table", head, body, class_="sortable"), class_="scroll", tabindex=0, role="region",
                   aria_label="table of rows"))


def _cell(value: Any, numeric: bool) -> Html:
    raw: Child = None
    if isinstance(value, dict):
        raw = value.get("mean")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        raw = value
    return el("td", _text(value), class_="n" if numeric else None, data_value=raw)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return plus_minus(value) if "mean" in value else {"nan": "NaN", "inf": "∞", "-inf": "−∞"}[value["value"]]
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, int | float):
        return number(value)
    return str(value)


def _title(column: str) -> str:
    return column.replace("_", " ")
