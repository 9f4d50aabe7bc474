"""``report``."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from sparsepriors.cli import _door


def report(results: Path, out: Path) -> None:
    """Write the page and say where it is."""
    from sparsepriors.gallery import write_report

    if not results.is_dir():
        _door.fail(f"there is no results folder {results}; `sparsepriors run` makes one, --results names another")
    if out.is_dir():
        _door.fail(f"{out} is a folder; --out names the page, such as {out / 'report.html'}")
    try:
        count = write_report(results, out)
    except OSError as e:
        _door.fail(_door.reason(e))
    except ValueError as e:
        _door.fail(str(e))
    _door.out().print(f"{count} systems, {out.stat().st_size / 1000:.0f} kB: {escape(str(out))}", soft_wrap=True)
