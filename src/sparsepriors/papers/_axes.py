"""Logarithmic axes whose ticks are read without counting in powers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axis import Axis


def plain_ticks(axis: Axis) -> None:
    """Write 12, 15 and 20 where matplotlib writes 1.2 x 10^1, ... on a logarithmic axis that is drawn."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    span = high / low
    steps = (1, 2, 5) if span > 6 else (1, 1.5, 2, 3, 4, 5, 7) if span > 2.5 else (
        1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
