"""Where a tensor of a checkpoint belongs, as far as its name says."""

from __future__ import annotations

import re

_BLOCK = re.compile(r"(?:^|\.)(\d+)\.")


def place(name: str) -> tuple[int | None, str]:
    """The block of a tensor, the first number among the parts of its name, and what the tensor is in every block."""
    match = _BLOCK.search(name)
    return (None, name) if match is None else (int(match[1]), name[match.end():])
