"""Bars on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sparsepriors.runs.progress import Progress, ProgressFactory, silent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars


@contextmanager
def bars(console: Console, *, quiet: bool = False) -> Iterator[ProgressFactory]:
    """Bars that share the bottom lines of a terminal; silent when quiet or when nobody looks."""
    if quiet or not console.is_terminal:
        yield silent
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    with Bars(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
              TimeRemainingColumn(), console=console, transient=True) as shown:

        @contextmanager
        def one(total: int, label: str) -> Iterator[Progress]:
            bar = _Bar(shown, total, label)
            try:
                yield bar
            finally:
                bar.close()

        yield one


class _Bar:
    def __init__(self, shown: Bars, total: int, label: str) -> None:
        from rich.markup import escape

        self._shown = shown
        self._task = shown.add_task(escape(label), total=total)

    def advance(self, steps: int = 1) -> None:
        self._shown.advance(self._task, steps)

    def close(self) -> None:
        self._shown.remove_task(self._task)
