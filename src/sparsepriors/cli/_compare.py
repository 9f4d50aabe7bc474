"""``compare``: sparse training methods beside each other, on the same networks, data and seeds."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
import typer
from rich.markup import escape
from torch import nn

from sparsepriors import _files
from sparsepriors.cli import _door, _networks, _progress
from sparsepriors.data import IMAGE_SETS
from sparsepriors.networks import preset_table
from sparsepriors.networks.preset_table import DENSE
from sparsepriors.networks.sparse import PRESETS
from sparsepriors.networks.train_loop import TrainingDivergedError
from sparsepriors.runs.interrupts import interrupts_kept
from sparsepriors.runs.machine import machine

_Unit = tuple[str, float, int]


def compare(presets: str, *, sparsity: str, model: str, data: str, data_dir: Path | None, epochs: int, batch: int,
            optimizer: str, rate: float, shrink: int, limit: int | None, seeds: str, out: Path, resume: bool,
            threads: int | None, quiet: bool, as_json: bool) -> None:
    """Train every preset at every sparsity for every seed; write table and plot, and print the table."""
    names = _names(presets)
    levels, numbers = _levels(sparsity), _seeds(seeds)
    if data not in IMAGE_SETS:
        _door.unknown("data set", data, IMAGE_SETS)
    with _networks.threads(threads), _door.stoppable():
        recipe = _networks.recipe(epochs=epochs, batch=batch, optimizer=optimizer, rate=rate)
        pictures = _networks.images(data, data_dir, shrink)
        try:
            network = _networks.fresh(model, pictures, torch.Generator())
        except (TypeError, ValueError) as e:
            _door.usage(str(e))
        units, left_out = _units(names, levels, numbers, network,
                                 recipe.steps(min(limit or len(pictures.train), len(pictures.train))))
        config = {"model": model, "data": data, "epochs": epochs, "batch": batch, "optimizer": optimizer, "rate": rate,
                  "shrink": shrink, "limit": limit}
        _networks.begin(out, config, resume=resume)
        rows: list[dict[str, Any]] = []
        test = _networks.test_examples(pictures)
        try:
            with (interrupts_kept(), _progress.bars(_door.err(), quiet=quiet or as_json) as bars,
                  bars(len(units), "trainings") as bar):
                for name, level, seed in units:
                    path = out / "units" / f"{name}_{level:g}_{seed}.json"
                    if not path.exists():
                        _files.write_json(path, preset_table.measure(
                            lambda g: _networks.fresh(model, pictures, g),
                            _networks.training_examples(pictures, limit, seed), test, recipe, name=name,
                            sparsity=level, seed=seed))
                    rows.append(_files.read_json(path))
                    bar.advance()
        except KeyboardInterrupt:
            _door.err().print(f"interrupted after {len(rows)} of {len(units)} trainings, which are kept; give the same "
                              f"command with --resume to continue", soft_wrap=True)
            raise typer.Exit(_door.INTERRUPTED) from None
        except (TypeError, ValueError, TrainingDivergedError, FloatingPointError) as e:
            _door.fail(str(e))
        except OSError as e:
            _door.fail(_door.reason(e))
    _write(out, {**config, "seeds": list(numbers)}, rows, left_out, as_json=as_json)


def _names(text: str) -> list[str]:
    if text == "all":
        return [DENSE, *PRESETS]
    names = list(dict.fromkeys(p.strip() for p in text.split(",")))
    for name in names:
        if name not in (DENSE, *PRESETS):
            _door.unknown("preset", name, (DENSE, *PRESETS))
    return names


def _levels(text: str) -> list[float]:
    try:
        levels = [float(p) for p in text.split(",")]
    except ValueError:
        _door.usage(f"--sparsity takes numbers such as 0.5,0.9, got {text!r}")
    if not all(0 < s < 1 for s in levels):
        _door.usage(f"--sparsity takes numbers between 0 and 1, got {text!r}")
    return sorted(set(levels))


def _seeds(text: str) -> list[int]:
    parts = [p.strip() for p in text.split(",")]
    if not all(p.isascii() and p.isdigit() and len(p) < 19 for p in parts):
        _door.usage(f"--seeds takes whole numbers such as 0,1,2, got {text!r}")
    return sorted({int(p) for p in parts})


def _units(names: list[str], levels: list[float], seeds: list[int], network: nn.Module,
           steps: int) -> tuple[list[_Unit], list[str]]:
    """What is trained, and why the rest is not; dense training knows no sparsity and is done once for each seed."""
    units, left_out = [], []
    for name in names:
        for level in levels[:1] if name == DENSE else levels:
            try:
                preset_table.plan_for(name, level, steps, network)
            except ValueError as e:
                left_out.append(f"{name} at {level:g}: {e}")
            else:
                units += [(name, level, seed) for seed in seeds]
    if not units:
        _door.usage(f"nothing can be trained: {'; '.join(left_out)}")
    return units, left_out


def _write(out: Path, config: dict[str, Any], rows: list[dict[str, Any]], left_out: list[str], *,
           as_json: bool) -> None:
    table, order = preset_table.summary(rows), preset_table.chain(rows)
    record = {"config": config, "machine": machine(), "rows": rows, "table": table, "chain": order,
              "left_out": left_out}
    plot = io.BytesIO()
    try:
        _files.write_json(out / "table.json", record)
        _files.write_text(out / "table.csv", preset_table.csv(rows))
        _files.write_text(out / "table.md", preset_table.markdown(rows))
        try:
            preset_table.figure(rows).savefig(plot, format="png", dpi=130, facecolor="white",
                                              metadata={"Software": None})
            _files.write_bytes(out / "plot.png", plot.getvalue())
        except ImportError:
            left_out.append("the plot needs matplotlib: pip install 'sparsepriors[networks]'")
    except OSError as e:
        _door.fail(_door.reason(e))
    if as_json:
        _door.print_json(record)
        return
    console = _door.out()
    console.print(escape(preset_table.text(rows)), soft_wrap=True)
    for line in left_out:
        console.print(escape(line), style="dim", soft_wrap=True)
    console.print(f"{escape(str(out))} holds table.json, table.csv, table.md and plot.png", soft_wrap=True)
