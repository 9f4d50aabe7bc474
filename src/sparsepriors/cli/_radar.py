"""``radar``: image one's own measurement."""

from __future__ import annotations

import io
import math
import time
import warnings
from pathlib import Path

import torch

from sparsepriors import _files
from sparsepriors.cli import _door, _progress
from sparsepriors.data.radar_files import Measurement, read_measurement, write_volume
from sparsepriors.imaging.radar import MIGRATIONS, PRIORS, migrate, reconstruct, tuned_settings
from sparsepriors.operators.radar import BornMIMO, VoxelGrid
from sparsepriors.runs.interrupts import interrupts_kept
from sparsepriors.solvers import State


def radar(measurement: Path, out: Path, *, low: str, high: str, shape: str, prior: str, snr_db: float,
          steps: int | None, iterations: int | None, swap_yz: bool, device: str, picture: Path | None, quiet: bool,
          as_json: bool) -> None:
    """Read, image, write, and say what came of it."""
    if out.suffix not in (".npz", ".safetensors"):
        _door.usage(f"--out must end in .npz or .safetensors, got {out}")
    if picture is not None and picture.suffix != ".png":
        _door.usage(f"--picture must end in .png, got {picture}")
    if prior not in (*PRIORS, *MIGRATIONS):
        _door.unknown("prior", prior, (*PRIORS, *MIGRATIONS))
    try:
        grid = VoxelGrid.box(_three("low", low), _three("high", high), _voxels(shape))
        data = read_measurement(measurement, swap_yz=swap_yz)
        data = data if steps is None else data.subset(steps)
    except (OSError, ValueError, TypeError, ImportError) as e:
        _door.usage(str(e))
    _door.writable(out.parent)
    start = time.perf_counter()
    with _door.stoppable():
        try:
            with interrupts_kept():
                volume, facts = _image(data, grid, prior, snr_db, iterations, torch.device(device), quiet=quiet)
        except KeyboardInterrupt:
            _door.fail("interrupted; nothing was written", _door.INTERRUPTED)
        except (ValueError, TypeError, FloatingPointError, RuntimeError) as e:
            _door.fail(str(e))
    try:
        write_volume(out, volume, (grid.x, grid.y, grid.z))
        if picture is not None:
            _draw(picture, volume, prior, grid)
    except OSError as e:
        _door.fail(_door.reason(e))
    facts = {"file": str(out), "prior": prior, "voxels": list(grid.shape), "measurements": data.y.numel(), **facts,
             "seconds": round(time.perf_counter() - start, 2)}
    if as_json:
        _door.print_json(facts)
        return
    size = " x ".join(map(str, grid.shape))
    _door.out().print(f"{out}: {size} voxels from {data.y.numel()} samples in {facts['seconds']:.1f} s"
                      + ("" if facts["iterations"] is None else f", {facts['iterations']} iterations, misfit "
                         f"{facts['residual_over_eps']:.2f} of the noise at {snr_db:g} dB"), soft_wrap=True)


def _image(data: Measurement, grid: VoxelGrid, prior: str, snr_db: float, iterations: int | None,
           device: torch.device, *, quiet: bool) -> tuple[torch.Tensor, dict[str, float | None]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # uneven frequencies cost memory here, nothing else
        op = BornMIMO(data.freqs, data.tx, data.rx, grid).to(device)
    y = data.y.to(device, op.dtype)
    if prior in MIGRATIONS:
        return migrate(y, op, prior).cpu(), {"iterations": None, "residual_over_eps": None}
    total = iterations or tuned_settings(prior, snr_db).max_iter
    with _progress.bars(_door.err(), quiet=quiet) as bars, bars(total, "radar image") as bar:

        def advance(state: State) -> None:
            bar.advance()

        solution = reconstruct(y, op, prior, snr_db=snr_db, max_iter=iterations, callback=advance)
    return solution.x.cpu(), {"iterations": solution.iterations,
                              "residual_over_eps": float(solution.extras["infeasibility"])}


def _draw(path: Path, volume: torch.Tensor, prior: str, grid: VoxelGrid) -> None:
    from sparsepriors.imaging.radar_figures import projections

    magnitude = volume.abs()
    buffer = io.BytesIO()
    fig = projections(None, {prior: (magnitude / magnitude.max(), math.nan)}, grid)
    fig.savefig(buffer, format="png", dpi=160, bbox_inches="tight")
    _files.write_bytes(path, buffer.getvalue())


def _three(name: str, text: str) -> tuple[float, float, float]:
    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError as e:
        raise ValueError(f"--{name} must be three numbers such as 0.1,0.1,0.5, got {text!r}") from e
    return x, y, z


def _voxels(text: str) -> tuple[int, int, int]:
    try:
        x, y, z = (int(part) for part in text.split(","))
    except ValueError as e:
        raise ValueError(f"--shape must be three integers such as 25,25,49, got {text!r}") from e
    return x, y, z
