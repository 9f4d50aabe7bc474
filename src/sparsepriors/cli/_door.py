"""What all commands share: where they print, how they fail, how they are stopped."""

from __future__ import annotations

import difflib
import errno
import json
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted (Ctrl-C or SIGTERM)."

_FULL = {errno.ENOSPC: "no space is left on the device", errno.EDQUOT: "the disk quota is used up",
         errno.EROFS: "the file system is read-only", errno.EACCES: "permission is denied",
         errno.EPERM: "the operation is not permitted", errno.ENOTDIR: "a part of the path is a file, not a folder",
         errno.EEXIST: "a file of this name is in the way"}


def out() -> Console:
    """Results go here."""
    return Console(highlight=False)


def err() -> Console:
    """Progress and errors go here."""
    return Console(stderr=True, highlight=False)


def print_json(data: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(data, indent=1, allow_nan=False))


def fail(message: str, code: int = FAILED) -> NoReturn:
    """One line on standard error, and the exit code."""
    err().print(f"[bold red]error:[/] {_escaped(message)}", soft_wrap=True)
    raise typer.Exit(code)


def usage(message: str) -> NoReturn:
    """As `fail`, for a command that was asked wrongly."""
    fail(message, USAGE)


def unknown(what: str, value: str, known: Sequence[str]) -> NoReturn:
    """Fail on a name that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(value, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else f"; there is {', '.join(known)}" if known else ""
    usage(f"no {what} is called {value!r}{hint}")


def reason(e: OSError) -> str:
    """An operating-system error in words, with the file it is about."""
    words = _FULL.get(e.errno or 0, e.strerror or str(e))
    return f"cannot write {e.filename}: {words}" if e.filename else words


def lacking(e: ImportError) -> str:
    """What cannot be imported, and who knows how to get it."""
    return f"{e}; `sparsepriors doctor` says how to get what is missing"


def writable(folder: Path) -> None:
    """Fail now, in one line, if nothing can be written into this folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()  # without a name, it cannot stay behind
    except OSError as e:
        fail(f"the output folder {folder} cannot be used: {_FULL.get(e.errno or 0, e.strerror or str(e))}")


def write_page(path: Path, text: str) -> None:
    """Write a page, or end the command with the reason why it cannot be written."""
    from sparsepriors import _files

    try:
        _files.write_text(path, text)
    except OSError as e:
        fail(f"cannot write {path}: {_FULL.get(e.errno or 0, e.strerror or str(e))}")


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM end the work as Ctrl-C does: the folder on disk stays valid."""

    def stop(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: signals are somebody else's
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def results_folder(named: Path | None) -> Path:
    """The folder of results that was named, else that of one's own runs, else the one that the repository keeps."""
    own, kept = Path("runs/results"), Path("results")
    return named if named is not None else kept if kept.is_dir() and not own.is_dir() else own
