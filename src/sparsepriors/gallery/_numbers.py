"""Numbers as a reader wants them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MINUS, NONE = "\N{MINUS SIGN}", "\N{EN DASH}"


def number(value: float | None) -> str:
    """Four significant digits; a dash for none."""
    if value is None:
        return NONE
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e6 if math.isfinite(value) else False):
        return _sign(f"{int(value)}")
    return _sign(f"{value:.4g}")


def spread(found: Mapping[str, Any]) -> str:
    """``mean [low, high]`` with as many decimals as the interval's width supports."""
    mean, low, high = found["mean"], found["low"], found["high"]
    if mean is None:
        return NONE
    if low is None or high is None or high == low:
        return number(mean)
    digits = decimals((high - low) / 2)
    return f"{_fixed(mean, digits)} [{_fixed(low, digits)}, {_fixed(high, digits)}]"


def plus_minus(found: Mapping[str, Any]) -> str:
    """``mean ± half-width``, for dense tables."""
    mean, low, high = found["mean"], found["low"], found["high"]
    if mean is None:
        return NONE
    if low is None or high is None or high == low:
        return number(mean)
    digits = decimals((high - low) / 2)
    return f"{_fixed(mean, digits)} ± {_fixed((high - low) / 2, digits)}"


def decimals(width: float) -> int:
    """Decimals that show two significant digits of ``width``."""
    return min(8, max(0, 1 - math.floor(math.log10(width)))) if width > 0 else 4


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def megabytes(mb: float) -> str:
    """Megabytes or gigabytes (10^6 and 10^9 bytes)."""
    return f"{mb:.0f} MB" if mb < 1000 else f"{mb / 1000:.1f} GB"


def _fixed(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return _sign(text[1:] if text.startswith("-") and float(text) == 0 else text)


def _sign(text: str) -> str:
    return text.replace("-", MINUS, 1) if text.startswith("-") else text
