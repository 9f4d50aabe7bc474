"""Interrupts that are not lost on the way.

A Ctrl-C is raised as `KeyboardInterrupt` between any two steps of Python. Where such a step was called from compiled
code (an element that a tensor constructor asks for), that code may drop the exception and raise its own in its
place: the user's Ctrl-C then looks like a failure of the experiment.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interrupts_kept() -> Iterator[None]:
    """Raise `KeyboardInterrupt` at the end of the block if one was asked for in it, whatever came of it there.

    The handlers that stand (Python's own for Ctrl-C, another one for SIGTERM) still do their work, at once. Outside
    the main thread, where no signal arrives, the block runs as it is.

    Raises
    ------
    KeyboardInterrupt
        If SIGINT or SIGTERM came and the block ended without an exception or with an `Exception`, which is the cause.
    """
    asked = False
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    try:
        for number in (n for n in SIGNALS if callable(before[n])):
            signal.signal(number, ask)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    except Exception as e:
        if asked:
            raise KeyboardInterrupt from e
        raise
    finally:
        for number in (n for n in SIGNALS if callable(before[n])):
            signal.signal(number, before[number])
    if asked:
        raise KeyboardInterrupt
