"""The frame of a page: everything inside one file, and a policy that keeps it so."""

from __future__ import annotations

import base64
import hashlib

from sparsepriors.gallery._html import Child, Html, el, join
from sparsepriors.gallery._style import CSS, SCRIPT


def page(title: str, *, heading: Child, body: Child, footer: Child, style: str = "", script: str = SCRIPT) -> str:
    """A complete document without a single request: style, script and pictures are inside.

    ``style`` comes after the pages' common style, ``script`` in place of their common script. The content security
    policy refuses every address and every script but that one, so that even markup which slipped through would stay
    inert.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return "<!DOCTYPE html>\n" + el(
        "html",
        el("head",
           el("meta", charset="utf-8"),
           el("meta", http_equiv="Content-Security-Policy", content=policy),
           el("meta", name="viewport", content="width=device-width, initial-scale=1"),
           el("meta", name="referrer", content="no-referrer"),
           el("title", title),
           el("style", Html(CSS + style))),
        el("body",
           el("header", heading, class_="top"),
           el("main", body),
           el("footer", footer),
           el("script", Html(script))),
        lang="en") + "\n"


def paragraphs(*texts: Child) -> Html:
    """Paragraphs of running text."""
    return join(el("p", text) for text in texts)
