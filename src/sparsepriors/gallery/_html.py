"""HTML that cannot be injected into: text is escaped unless this module made it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

_VOID = {"br", "img", "input", "meta", "link", "hr"}
_NAME = re.compile(r"[a-z][a-z0-9:_-]*")


class Html(str):
    """Markup that is already safe."""

    __slots__ = ()


Child = str | int | float | None | Iterable["Child"]


def el(tag: str, *children: Child, **attributes: str | int | float | bool | None) -> Html:
    """One element. Strings are escaped; ``None`` and ``False`` attributes are left out; ``class_`` is ``class``."""
    if not _NAME.fullmatch(tag):
        raise ValueError(f"tag must be an element name, got {tag!r}")
    written = ""
    for name, value in attributes.items():
        name = name.rstrip("_").replace("_", "-")
        if value is None or value is False:
            continue
        written += f" {name}" if value is True else f' {name}="{html.escape(str(value), quote=True)}"'
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{join(*children)}</{tag}>")


def join(*children: Child) -> Html:
    """Children one after the other, escaped where they are plain text."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Html):
            parts.append(child)
        elif isinstance(child, str | int | float):
            parts.append(html.escape(str(child), quote=True))
        else:
            parts.append(join(*child))
    return Html("".join(parts))
