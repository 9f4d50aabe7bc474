"""The page of an inspected checkpoint: maps over blocks and matrices, and tables that sort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sparsepriors.gallery._html import Html, el, join
from sparsepriors.gallery._numbers import number
from sparsepriors.gallery._page import page

_CELL, _LABEL, _TOP = 18, 190, 16

_CSS = """
.map{display:block;max-width:100%;height:auto;margin:.5rem 0 1.5rem}
.map rect{fill:var(--accent);stroke:var(--line);stroke-width:.5}
.map text{font:10px var(--sans);fill:var(--soft)}
"""

Row = Mapping[str, Any]


def inspection_page(found: Mapping[str, Any]) -> str:
    """One self-contained page of what ``sparsepriors inspect --json`` prints.

    Parameters
    ----------
    found
        With ``model`` and ``weights``, and where they were asked for ``other``, ``update`` and ``activations``.
    """
    weights = found["weights"]
    total = weights["total"]
    title = f"Sparsity of {found['model']}"
    facts = (f"{total['matrices']} matrices{' of the blocks' if weights['blocks'] else ''}, {total['weights']:,} "
             f"entries: {_percent(total['zeros'])} are zero, {_percent(total['near_zero'])} are nearly; the smallest "
             f"{_percent(total['drop_point'])} hold 1 % of the squared norm.")
    parts = [el("section", el("h2", "Weights"),
                *(_map(weights["rows"], "matrix", key, text) for key, text in (
                    ("zeros", "Share of zeros"),
                    ("near_zero", f"Share below {weights['tau']:g} standard deviations"),
                    ("drop_point", "Share of the smallest that holds 1 % of the squared norm: a guess, without any "
                                   "data, at what can go"))),
                _details("All matrices", weights["rows"], ("name", "shape", "dtype", "weights", "std", "zeros",
                                                           "near_zero", "drop_point", "pattern")))]
    if "update" in found:
        update = found["update"]
        rows = [{**row, "changed": 1 - row["exact_sparsity"]} for row in update["rows"]]
        columns = [c for c in ("name", "shape", "exact_sparsity", "relative_change", "rank", "full", "stable_rank",
                               "null_stable_rank") if any(c in row for row in rows)]
        said = (f"{_percent(update['same'])} of {update['entries']:,} entries are equal in {found['other']}, compared "
                f"{update['compared_as']}; {len(update['skipped'])} tensors left out.")
        parts.append(el("section", el("h2", "Differences"),
                        el("p", said),
                        _map(rows, "matrix", "changed", "Share of entries that changed"),
                        _details("All tensors", rows, columns)))
    if "activations" in found:
        seen = found["activations"]
        rows = [{**row, "matrix": "activations", "active": row["percent_nonzero"] / 100} for row in seen["rows"]]
        parts.append(el("section", el("h2", "Activations"),
                        el("p", f"{seen['percent_zero']:.1f} % are inactive on {rows[0]['tokens']:,} tokens; active "
                                f"means {seen['measure']}."),
                        _map(rows, "matrix", "active", "Share of active neurons"),
                        _details("All places", rows, ("place", "neurons", "percent_nonzero", "most", "dead"))))
    return page(title, style=_CSS, heading=[el("h1", title), el("p", facts, class_="lead")], body=join(*parts),
                footer=el("p", "Darker is more; each map has a scale of its own. Point at a cell for its number. "
                               "Shares are of entries: 0.5 is one half."))


def _map(rows: Sequence[Row], row_key: str, value: str, text: str) -> Html:
    """Blocks from left to right, kinds of matrices from top to bottom."""
    inside = [row for row in rows if row["layer"] is not None]
    if not inside:
        return el("p", f"{text}: no tensor lies in a numbered block.", class_="note")
    layers, kinds = sorted({row["layer"] for row in inside}), list(dict.fromkeys(row[row_key] for row in inside))
    most = max(row[value] for row in inside)
    if most == 0:
        return el("p", f"{text}: 0 everywhere.", class_="note")
    marks: list[Html] = []
    for row in inside:
        x, y = _LABEL + _CELL * layers.index(row["layer"]), _TOP + _CELL * kinds.index(row[row_key])
        name = row.get("name", row.get("place", ""))
        marks.append(el("rect", el("title", f"{name}: {_percent(row[value])}"), x=x, y=y, width=_CELL - 1,
                        height=_CELL - 1, fill_opacity=f"{row[value] / most:.3f}"))
    marks += [el("text", kind.removesuffix(".weight"), x=_LABEL - 6, y=_TOP + _CELL * i + 13, text_anchor="end")
              for i, kind in enumerate(kinds)]
    marks += [el("text", str(layer), x=_LABEL + _CELL * i + _CELL // 2, y=_TOP - 4, text_anchor="middle")
              for i, layer in enumerate(layers) if i % max(1, len(layers) // 15) == 0]
    marks.append(el("text", "block", x=_LABEL - 6, y=_TOP - 4, text_anchor="end"))
    width, height = _LABEL + _CELL * len(layers), _TOP + _CELL * len(kinds)
    return join(el("h4", f"{text} (darkest: {_percent(most)})"),
                el("div", el("svg", *marks, class_="map", viewBox=f"0 0 {width} {height}", width=width, height=height,
                             role="img", aria_label=f"{text}, by block and matrix, at most {_percent(most)}"),
                   class_="scroll", tabindex=0, role="region", aria_label=text))


def _details(title: str, rows: Sequence[Row], columns: Sequence[str]) -> Html:
    head = el("thead", el("tr", (el("th", c.replace("_", " "), scope="col") for c in columns)))
    body = el("tbody", (el("tr", (_cell(row.get(c)) for c in columns)) for row in rows))
    return el("details", el("summary", f"{title} ({len(rows)})"),
              el("div", el("table", head, body, class_="sortable"), class_="scroll", tabindex=0, role="region",
                 aria_label=title))


def _cell(value: Any) -> Html:
    if isinstance(value, list):
        return el("td", " x ".join(map(str, value)))
    if isinstance(value, str):
        return el("td", value)
    return el("td", number(value), class_="n", data_value=value)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
