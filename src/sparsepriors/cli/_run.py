"""``run``."""

from __future__ import annotations

import contextlib
import shlex
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import typer
from rich.console import Console
from rich.markup import escape

from sparsepriors import _files, papers
from sparsepriors.cli import _door, _progress
from sparsepriors.cli._show import VERDICT_STYLE, find
from sparsepriors.runs.execute import execute, read_status
from sparsepriors.runs.paper import Experiment, Scale
from sparsepriors.runs.progress import ProgressFactory
from sparsepriors.runs.results import publish
from sparsepriors.runs.run import run_folder
from sparsepriors.runs.schema import read_results


@dataclass
class _Outcome:
    slug: str
    folders: list[Path] = field(default_factory=list)
    results: Path | None = None
    error: str = ""

    def as_json(self, scale: Scale) -> dict[str, Any]:
        statuses = [read_status(f) for f in self.folders]
        return {"slug": self.slug, "scale": scale.value, "ok": not self.error, "error": self.error or None,
                "runs": [{"folder": str(f), **(asdict(s) if s else {})}
                         for f, s in zip(self.folders, statuses, strict=True)],
                "results_file": str(self.results) if self.results else None,
                "results": read_results(self.results) if self.results else None}


def run(slug: str, *, scale: str, seeds: str | None, device: str, out: Path, data: Path | None, resume: bool,
        results: Path, quiet: bool, as_json: bool) -> None:
    """Run the experiments and judge them; leaves with the documented exit codes."""
    at = _scale(scale)
    numbers = _seeds(seeds)
    place = checked_device(device)
    if data is not None and not data.is_dir():
        _door.usage(f"the data folder {data} does not exist")
    experiments = [find(s) for s in papers.slugs()] if slug == "all" else [find(slug)]
    _door.writable(out)
    _door.writable(results)
    console, outcomes = _door.err(), []
    with _door.stoppable(), _progress.bars(console, quiet=quiet or as_json) as bars:
        for experiment in experiments:
            outcome = _Outcome(experiment.paper.slug)
            outcomes.append(outcome)
            todo = numbers or (experiment.paper.seeds[:1] if at is Scale.SMOKE else experiment.paper.seeds)
            try:
                _one(experiment, outcome, at, todo, place, out, data, resume, results, console, bars)
            except KeyboardInterrupt:
                _stopped(slug, experiment, at, todo, place, out, data, results, console)
    if as_json:
        _door.print_json([o.as_json(at) for o in outcomes])
    else:
        for outcome in outcomes:
            _summary(outcome)
    if any(o.error for o in outcomes):
        raise typer.Exit(_door.FAILED)


def _one(experiment: Experiment, outcome: _Outcome, scale: Scale, seeds: tuple[int, ...], device: str, out: Path,
         data: Path | None, resume: bool, results: Path, console: Console, bars: ProgressFactory) -> None:
    slug = experiment.paper.slug
    try:
        with bars(len(seeds), f"{slug} ({scale})") as bar:
            for seed in seeds:
                folder = run_folder(out, slug, scale, seed)
                if not resume and folder.exists():
                    console.print(f"{slug} seed {seed}: the earlier run is kept beside the new one", style="dim")
                outcome.folders.append(folder)
                execute(experiment, out, scale=scale, seed=seed, device=device, data_dir=data, resume=resume,
                        progress=bars)
                bar.advance()
        outcome.results = publish(experiment.paper, scale, outcome.folders, results)
    except OSError as e:
        outcome.error = _door.reason(e)
    except (ValueError, ImportError) as e:
        outcome.error = _door.lacking(e) if isinstance(e, ModuleNotFoundError) else str(e)
        _keep_traceback(outcome)
    except Exception as e:  # an experiment may raise anything; one that does must not end the others
        outcome.error = f"{type(e).__name__}: {e}"
        _keep_traceback(outcome)
    if outcome.error:
        console.print(f"[bold red]error:[/] {slug}: {escape(outcome.error)}", soft_wrap=True)


def _keep_traceback(outcome: _Outcome) -> None:
    folder = outcome.folders[-1] if outcome.folders else None
    if folder is not None and folder.is_dir():
        with contextlib.suppress(OSError):
            _files.write_text(folder / "error.txt", traceback.format_exc())
            outcome.error += f" (traceback in {folder / 'error.txt'})"


def _stopped(asked: str, experiment: Experiment, scale: Scale, seeds: tuple[int, ...], device: str, out: Path,
             data: Path | None, results: Path, console: Console) -> None:
    words = ["sparsepriors", "run", asked, "--scale", str(scale)]
    words += ["--seeds", ",".join(map(str, seeds))] if asked != "all" else []
    words += ["--device", device] if device != "cpu" else []
    words += ["--out", str(out)] if out != Path("runs") else []
    words += ["--data", str(data)] if data else []
    words += ["--results", str(results)] if results != out / "results" else []
    console.print(f"interrupted in {experiment.paper.slug}; what was finished is kept. Continue with:\n"
                  f"  {escape(shlex.join([*words, '--resume']))}", soft_wrap=True)
    raise typer.Exit(_door.INTERRUPTED)


def _summary(outcome: _Outcome) -> None:
    console = _door.out()
    if outcome.results is None:
        return
    record = read_results(outcome.results)
    console.print(f"[bold]{outcome.slug}[/]  {len(record['rows'])} rows, {record['seconds']:.1f} s, "
                  f"{record['peak_rss_mb']:.0f} MB at peak; {escape(str(outcome.results))}", soft_wrap=True)
    for claim in record["claims"]:
        verdict = claim["verdict"]
        console.print(f"  [{VERDICT_STYLE[verdict]}]{verdict:>12}[/]  [bold]{claim['id']}[/]  {escape(claim['why'])}",
                      soft_wrap=True)


def _scale(text: str) -> Scale:
    known = [s.value for s in Scale]
    if text not in known:
        _door.unknown("scale", text, known)
    return Scale(text)


def _seeds(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    parts = [p.strip() for p in text.split(",")]
    if not all(p.isascii() and p.isdigit() and len(p) < 19 for p in parts) or len(set(map(int, parts))) != len(parts):
        _door.usage(f"--seeds takes distinct whole numbers such as 0,1,2, got {text!r}")
    return tuple(int(p) for p in parts)


def checked_device(text: str) -> str:
    """The name of a device that is here; ends the command on any other."""
    try:
        device = torch.device(text)
    except RuntimeError:
        _door.usage(f"--device takes cpu, cuda or cuda:N, got {text!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        _door.usage(f"there is no device {text!r} here: torch sees {torch.cuda.device_count()} GPUs "
                    f"(`sparsepriors doctor` says more)")
    if device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index):
        _door.usage(f"--device takes cpu, cuda or cuda:N, got {text!r}")
    return str(device)
