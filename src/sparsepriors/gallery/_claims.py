"""Claims beside measurements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sparsepriors.gallery._html import Html, el, join
from sparsepriors.gallery._numbers import number, spread
from sparsepriors.runs.evidence import Verdict

ORDER = (Verdict.NOT_HELD.value, Verdict.INCONCLUSIVE.value, Verdict.HELD.value)
_CLASS = {Verdict.HELD.value: "held", Verdict.NOT_HELD.value: "nothel", Verdict.INCONCLUSIVE.value: "inconc"}
_SIGN = {Verdict.HELD.value: "●", Verdict.NOT_HELD.value: "✕", Verdict.INCONCLUSIVE.value: "○"}
_WIDTH, _HEIGHT, _EDGE = 176, 40, 6


def claims_table(claims: Sequence[Mapping[str, Any]]) -> Html:
    """All claims of a system, those that do not hold first."""
    head = el("thead", el("tr", (el("th", t, scope="col") for t in
                                 ("claim", "published", "measured", "against", "improvement", "verdict"))))
    return el("table", head, el("tbody", (_row(c) for c in in_order(claims))), class_="claims stack")


def in_order(claims: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Not held, inconclusive, held; as the paper lists them within each."""
    return sorted(claims, key=lambda c: ORDER.index(c["verdict"]))


def chip(verdict: str) -> Html:
    """The verdict as a word and a sign, so that no reader depends on the colour."""
    return el("span", f"{_SIGN[verdict]} {verdict}", class_=f"chip {_CLASS[verdict]}")


def dots(claims: Iterable[Mapping[str, Any]]) -> Html:
    """One sign for each claim, for overviews."""
    ordered = in_order(claims)
    counts = {v: sum(c["verdict"] == v for c in ordered) for v in ORDER}
    label = ", ".join(f"{n} {v}" for v, n in counts.items() if n)
    return el("span", (el("span", _SIGN[c["verdict"]], class_=_CLASS[c["verdict"]]) for c in ordered),
              class_="dots", role="img", aria_label=label, title=label)


def legend() -> Html:
    """What the signs mean."""
    return join(*(x for v in reversed(ORDER) for x in
                  (el("span", el("span", _SIGN[v], class_=_CLASS[v]), class_="dots"), f" {v}   ")))


def forest(claim: Mapping[str, Any]) -> Html | None:
    """The improvement's interval on a line with zero and the asked margin; right is better."""
    found, goal = claim["difference"], claim["margin"]
    mean, low, high = found["mean"], found["low"], found["high"]
    if mean is None:
        return None
    low, high = (mean if low is None else low), (mean if high is None else high)
    left, right = min(low, 0.0, goal), max(high, 0.0, goal)
    span = right - left or 1.0

    def x(value: float) -> float:
        return round(_EDGE + (_WIDTH - 2 * _EDGE) * (value - left) / span, 1)

    tone, middle = _CLASS[claim["verdict"]], 14
    label = f"improvement {spread(found)}, asked {number(goal)}"
    return el(
        "svg",
        el("title", label),
        el("line", x1=0, x2=_WIDTH, y1=middle, y2=middle, class_="axis"),
        el("line", x1=x(0), x2=x(0), y1=4, y2=24, class_="zero"),
        el("line", x1=x(goal), x2=x(goal), y1=2, y2=26, class_="goal") if goal else None,
        el("line", x1=x(low), x2=x(high), y1=middle, y2=middle, class_=f"bar {tone}"),
        el("circle", cx=x(mean), cy=middle, r=4, class_=f"dot {tone}"),
        el("text", "0", x=x(0), y=37, text_anchor=_anchor(x(0))),
        el("text", f"asked {number(goal)}", x=x(goal), y=37, text_anchor=_anchor(x(goal)))
        if goal and abs(x(goal) - x(0)) > 55 else None,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}", class_="forest", role="img", aria_label=label,
    )


def _anchor(x: float) -> str:
    return "start" if x < 40 else "end" if x > _WIDTH - 40 else "middle"


def _row(claim: Mapping[str, Any]) -> Html:
    found = claim["measured"]
    n = found["n"]
    return el(
        "tr",
        el("td", el("span", claim["text"], class_="text"), el("span", claim["why"], class_="why")),
        el("td", claim["published"], data_label="published"),
        el("td", el("span", spread(found), class_="value"), el("span", f"{n} seed{'' if n == 1 else 's'}", class_="of"),
           data_label="measured"),
        el("td", el("span", spread(claim["baseline_measured"]), class_="value"),
           el("span", claim["baseline"], class_="of"), data_label="against"),
        el("td", forest(claim), data_label="improvement"),
        el("td", chip(claim["verdict"]), data_label="verdict"),
        data_verdict=claim["verdict"],
    )
