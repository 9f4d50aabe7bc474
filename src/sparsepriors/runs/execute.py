"""Running an experiment for one seed, so that whatever ends it leaves a folder that can be continued."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from sparsepriors import _checks, _files
from sparsepriors.runs import run as _run
from sparsepriors.runs.interrupts import interrupts_kept
from sparsepriors.runs.machine import peak_rss_mb, reset_peak_rss
from sparsepriors.runs.paper import Experiment, Scale
from sparsepriors.runs.progress import ProgressFactory, silent
from sparsepriors.runs.run import Run, run_folder

DONE, RUNNING, INTERRUPTED, FAILED = "done", "running", "interrupted", "failed"


@dataclass(frozen=True)
class Status:
    """How a run stands.

    Attributes
    ----------
    state
        ``running`` (or killed while it did), ``done``, ``interrupted`` or ``failed``.
    seconds
        Wall-clock time spent so far, all attempts together.
    peak_rss_mb
        Largest resident memory, in 10^6 bytes, all attempts together.
    attempts
        How often the run was entered.
    error
        What went wrong, in one line, if it failed.
    """

    state: str
    seconds: float = 0.0
    peak_rss_mb: float = 0.0
    attempts: int = 0
    error: str = ""


def read_status(folder: str | os.PathLike[str]) -> Status | None:
    """The status that a run folder states; ``None`` if there is no run.

    Raises
    ------
    ValueError
        If the status file is damaged.
    """
    path = Path(folder) / _run.STATUS
    if not path.exists():
        return None
    data = _files.read_json(path)
    try:
        status = Status(str(data["state"]), float(data["seconds"]), float(data["peak_rss_mb"]), int(data["attempts"]),
                        str(data["error"]))
        _checks.one_of("state", status.state, (DONE, RUNNING, INTERRUPTED, FAILED))
        for name in ("seconds", "peak_rss_mb", "attempts"):
            _checks.nonnegative(name, getattr(status, name))
    except (KeyError, TypeError, ValueError, OverflowError) as e:
        raise ValueError(f"{path} is not a run status: {e}") from e
    return status


def execute(experiment: Experiment, out: str | os.PathLike[str], *, scale: Scale, seed: int, device: str = "cpu",
            data_dir: str | os.PathLike[str] | None = None, resume: bool = False,
            progress: ProgressFactory = silent) -> Path:
    """Run one seed under ``out/slug/scale/seed-N`` and return that folder.

    A finished run is returned as it is when ``resume`` is true. Without ``resume`` an earlier folder is kept under a
    new name (``seed-N.earlier-K``), so that two runs never mix.

    Raises
    ------
    ValueError
        If the folder to resume was made with another configuration, or a claim of the paper was not measured.
    BlockingIOError
        If another process is running this seed in the same place.
    Exception
        Whatever the experiment raises, after the status is written.
    """
    folder = run_folder(out, experiment.paper.slug, scale, seed)
    with _taken(folder, anew=not resume):
        run = Run.start(experiment, folder, scale=scale, seed=seed, device=device, data_dir=data_dir, resume=resume,
                        progress=progress)
        before = read_status(folder) or Status(RUNNING)
        if before.state != DONE:
            _enter(run, before, lambda: _measure(experiment, run))
    return folder


def execute_demo(experiment: Experiment, out: str | os.PathLike[str], *, device: str = "cpu",
                 progress: ProgressFactory = silent) -> Path:
    """Run the paper's short demonstration under ``out/slug/demo`` from the start and return that folder.

    Raises
    ------
    ValueError
        If the paper has no demonstration.
    """
    if experiment.demo is None:
        raise ValueError(f"{experiment.paper.slug} has no demo")
    demo = experiment.demo
    folder = Path(out) / experiment.paper.slug / "demo"
    with _taken(folder, anew=True):
        run = Run.start(experiment, folder, scale=Scale.DEFAULT, seed=experiment.paper.seeds[0], device=device,
                        progress=progress)
        _enter(run, Status(RUNNING), lambda: demo(run))
    return folder


def _measure(experiment: Experiment, run: Run) -> None:
    experiment.run(run.scale, run.seed, run)
    missing = run.unmeasured()
    if missing and run.scale is not Scale.SMOKE:
        raise ValueError(f"{experiment.paper.slug} did not measure {', '.join(missing)}; each claim needs one pair "
                         f"for every seed")


def _enter(run: Run, before: Status, body: Callable[[], object]) -> None:
    began = time.monotonic()
    reset_peak_rss()
    attempts = before.attempts + 1

    def note(state: str, error: str = "") -> None:
        status = Status(state, round(before.seconds + time.monotonic() - began, 3),
                        round(max(before.peak_rss_mb, peak_rss_mb()), 1), attempts, error)
        _files.write_json(run.folder / _run.STATUS, asdict(status))

    note(RUNNING)
    try:
        with interrupts_kept():
            body()
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            note(INTERRUPTED)
        raise
    except Exception as e:
        with contextlib.suppress(OSError):  # a full disk is reported as such, not as a failure to write the status
            note(FAILED, f"{type(e).__name__}: {e}".splitlines()[0][:500])
        raise
    note(DONE)


@contextlib.contextmanager
def _taken(folder: Path, *, anew: bool) -> Iterator[None]:
    """Hold the folder of a run; ``anew`` first gives what it holds another name."""
    with _files.held(folder), contextlib.ExitStack() as also:
        if anew and any(folder.iterdir()):
            _set_aside(folder)
            also.enter_context(_files.held(folder))
        yield


def _set_aside(folder: Path) -> None:
    k = 1
    while (aside := folder.with_name(f"{folder.name}.earlier-{k}")).exists():
        k += 1
    folder.rename(aside)
