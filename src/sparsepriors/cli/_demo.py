"""``demo``: three experiments, one page of pictures."""

from __future__ import annotations

import time
from pathlib import Path

import typer
from rich.markup import escape

from sparsepriors import papers
from sparsepriors.cli import _door, _progress
from sparsepriors.gallery.demo import Panel, write_demo
from sparsepriors.runs.execute import execute_demo
from sparsepriors.runs.progress import ProgressFactory

PANELS = ("sparse-mri", "prune-pretrained", "radar-pnp")


def demo(out: Path, *, device: str, quiet: bool) -> None:
    """Run the panels and write the page; a panel that fails is shown as failed."""
    from sparsepriors.cli._run import checked_device

    device = checked_device(device)
    _door.writable(out)
    console = _door.err()
    page = out / "index.html"
    began = time.monotonic()
    panels: list[Panel] = []
    try:
        with _door.stoppable(), _progress.bars(console, quiet=quiet) as bars:
            for slug in PANELS:
                panels.append(_panel(slug, out, device, bars))
                if panels[-1].error:
                    console.print(f"[bold red]error:[/] {slug}: {escape(panels[-1].error)}", soft_wrap=True)
    except KeyboardInterrupt:
        console.print(f"interrupted; {len(panels)} of {len(PANELS)} panels were finished in {escape(str(out))}")
        raise typer.Exit(_door.INTERRUPTED) from None
    try:
        write_demo(panels, page)
    except OSError as e:
        _door.fail(_door.reason(e))
    _door.out().print(f"{escape(str(page))}  ({time.monotonic() - began:.0f} s)", soft_wrap=True)
    if any(p.error for p in panels):
        raise typer.Exit(_door.FAILED)


def _panel(slug: str, out: Path, device: str, bars: ProgressFactory) -> Panel:
    began = time.monotonic()
    experiment = None
    try:
        experiment = papers.get(slug)
        with bars(1, slug):
            folder = execute_demo(experiment, out / "runs", device=device, progress=bars)
    except OSError as e:
        error = _door.reason(e)
    except Exception as e:  # one panel that fails must not take the others with it; the page says what happened
        error = (_door.lacking(e) if isinstance(e, ModuleNotFoundError)
                 else str(e) if isinstance(e, ImportError | ValueError) else f"{type(e).__name__}: {e}")
    else:
        return Panel(slug, experiment.paper, folder, time.monotonic() - began)
    return Panel(slug, experiment.paper if experiment else None, None, time.monotonic() - began, error)
