"""The audit of a training as a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparsepriors.gallery._html import el, join
from sparsepriors.gallery._page import page


def audit_page(report: Mapping[str, Any], *, title: str) -> str:
    """One self-contained page from what `AuditReport.to_dict` gives."""
    counts = f"{report['failed']} failed, {report['warned']} warnings, {report['not_judged']} not judged"
    parts = [el("section", el("h2", f"{lesson['id']}: {lesson['verdict']}"), el("p", lesson["question"]), el(
        "table", el("tr", *(el("th", h) for h in ("status", "question", "evidence", "what to do"))),
        *(el("tr", *(el("td", f[k]) for k in ("status", "code", "evidence", "remedy"))) for f in lesson["findings"])))
             for lesson in report["lessons"]]
    return page(title, heading=join(el("h1", title), el("p", counts)), body=join(*parts),
                footer=el("p", "Each verdict comes from the number beside it; what was not recorded is not judged."))
