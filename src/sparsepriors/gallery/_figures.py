"""Pictures as parts of the page."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sparsepriors.gallery._html import Html, el, join
from sparsepriors.runs.pictures import small_picture

_TYPES = {".png": "image/png", ".webp": "image/webp", ".svg": "image/svg+xml"}
_WIDE, _LARGE = 1.9, 1500   # width over height, and pixels: half a page leaves such a figure's words too small to read


def figures(folder: Path, listed: Iterable[Mapping[str, Any]]) -> Html:
    """The figures of a record, wide and large ones across the page; one whose file is missing is said to be missing."""
    shown = [_figure(folder, about) for about in listed]
    return el("div", shown, class_="figures") if shown else join()


def size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG or WebP file; ``None`` for anything else."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) >= 24:
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and len(data) >= 30:
        kind, little = data[12:16], int.from_bytes
        if kind == b"VP8 ":
            return little(data[26:28], "little") & 0x3FFF, little(data[28:30], "little") & 0x3FFF
        if kind == b"VP8L":
            bits = little(data[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        if kind == b"VP8X":
            return little(data[24:27], "little") + 1, little(data[27:30], "little") + 1
    return None


def _figure(folder: Path, about: Mapping[str, Any]) -> Html:
    caption = el("figcaption", about["caption"]) if about["caption"] else None
    path = folder / about["file"]
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        return el("figure", el("p", f"The picture {about['file']} is missing.", class_="error"), caption)
    try:
        data, ending = small_picture(path)
    except (ImportError, ValueError) as e:
        return el("figure", el("p", f"The picture {about['file']} cannot be shown: {e}", class_="error"), caption)
    shape = size(data)
    wide = shape is not None and (shape[0] > _WIDE * shape[1] or shape[0] > _LARGE)
    image = el("img", src=f"data:{_TYPES[ending]};base64,{base64.b64encode(data).decode()}", alt=about["alt"],
               width=shape[0] if shape else None, height=shape[1] if shape else None)
    if not wide:
        return el("figure", image, caption)
    held = el("div", image, class_="scroll", tabindex=0, role="group", aria_label=about["alt"])
    return el("figure", held, caption, class_="wide")
