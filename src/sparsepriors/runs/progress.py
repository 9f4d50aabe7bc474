"""How a long unit of work reports that it advances, without knowing who looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Progress(Protocol):
    """One bar."""

    def advance(self, steps: int = 1) -> None:
        """Report that this many more of the total steps are done."""
        ...


ProgressFactory = Callable[[int, str], AbstractContextManager[Progress]]
"""Opens a bar: ``with factory(total, label) as bar: ... bar.advance()``."""


class _Silent:
    def advance(self, steps: int = 1) -> None:
        pass


@contextmanager
def silent(total: int, label: str) -> Iterator[Progress]:
    """A bar that nobody sees."""
    yield _Silent()
