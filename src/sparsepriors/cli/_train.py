"""``train``: one network, sparse from the start or on the way."""

from __future__ import annotations

import inspect
import math
import re
from pathlib import Path
from typing import Any, NoReturn

import torch
import typer
from rich.markup import escape

from sparsepriors import _files
from sparsepriors.cli import _door, _networks, _progress
from sparsepriors.data import IMAGE_SETS
from sparsepriors.networks.preset_table import DENSE, plan_for
from sparsepriors.networks.recipe import Trained, train_classifier
from sparsepriors.networks.sparse import PRESETS, SparsePlan, preset
from sparsepriors.networks.sparse.ledger import sparsity_report
from sparsepriors.networks.train_loop import TrainingDivergedError, TrainState
from sparsepriors.priors.patterns import NM

CHECKPOINT = "state.safetensors"


def train(name: str, *, pattern: str | None, density: float | None, model: str, data: str, data_dir: Path | None,
          epochs: int, batch: int, optimizer: str, rate: float, shrink: int, limit: int | None, seed: int, out: Path,
          resume: bool, threads: int | None, quiet: bool, as_json: bool) -> None:
    """Train, write the network, its masks and the books, and print the report."""
    known = (DENSE, *PRESETS)
    if name not in known:
        _door.unknown("preset", name, known)
    if data not in IMAGE_SETS:
        _door.unknown("data set", data, IMAGE_SETS)
    with _networks.threads(threads), _door.stoppable():
        recipe = _networks.recipe(epochs=epochs, batch=batch, optimizer=optimizer, rate=rate)
        pictures = _networks.images(data, data_dir, shrink)
        try:
            examples = _networks.training_examples(pictures, limit, seed)
            steps = recipe.steps(len(examples[0]))
            plan = _plan(name, pattern, density, steps)
            generator = torch.Generator().manual_seed(seed)
            network = _networks.fresh(model, pictures, generator)
        except (TypeError, ValueError) as e:
            _door.usage(str(e))
        config = {"preset": name, "pattern": pattern, "density": density, "model": model, "data": data,
                  "epochs": epochs, "batch": batch, "optimizer": optimizer, "rate": rate, "shrink": shrink,
                  "limit": limit, "seed": seed}
        _networks.begin(out, config, resume=resume)
        total = recipe.steps(len(examples[0]), 1 if plan is None else plan.schedule.restarts)
        try:
            with _progress.bars(_door.err(), quiet=quiet or as_json) as bars, bars(total, f"{name} on {data}") as bar:
                done = [0]

                def advance(state: TrainState) -> None:
                    bar.advance(state.step - done[0])
                    done[0] = state.step

                trained = train_classifier(
                    network, examples, recipe, generator=generator, plan=plan, test=_networks.test_examples(pictures),
                    checkpoint=out / CHECKPOINT, checkpoint_every=max(1, total // 20), resume=resume, callback=advance)
        except KeyboardInterrupt:
            _stopped(out)
        except (TypeError, ValueError, TrainingDivergedError, FloatingPointError) as e:
            _door.fail(str(e))
        except OSError as e:
            _door.fail(_door.reason(e))
        _finish(out, config, network, trained, examples[0][:1], as_json=as_json)


def _plan(name: str, pattern: str | None, density: float | None, steps: int) -> SparsePlan | None:
    if name == DENSE:
        if pattern is not None or density is not None:
            raise ValueError("dense training takes neither --pattern nor --density")
        return None
    known = inspect.signature(PRESETS[name]).parameters
    if pattern is not None:
        if not (found := re.fullmatch(r"(\d{1,4}):(\d{1,4})", pattern)):
            raise ValueError(f"--pattern takes N:M such as 2:4, got {pattern!r}")
        n, m = map(int, found.groups())
        if "n" in known:
            return preset(name, n=n, m=m, **({"skip_unfit": True} if "skip_unfit" in known else {}))
        if "pattern" in known:
            return preset(name, pattern=NM(n, m))
        raise ValueError(f"{name} moves single weights and takes --density, not --pattern")
    if "density" not in known:
        if density is not None:
            raise ValueError(f"{name} has the density of its pattern: give --pattern N:M, not --density")
        return preset(name, skip_unfit=True)
    density = 0.1 if density is None else density
    if density == 1:
        raise ValueError("--density 1 leaves nothing out; use --preset dense")
    if not 0 < density < 1:
        raise ValueError(f"--density must be between 0 and 1, got {density}")
    return plan_for(name, 1 - density, steps)


def _stopped(out: Path) -> NoReturn:
    state = out / CHECKPOINT
    said = f"{escape(str(state))} has what was done" if state.exists() else "no step was done"
    _door.err().print(f"interrupted; {said}. Give the same command with --resume to continue to the same bits",
                      soft_wrap=True)
    raise typer.Exit(_door.INTERRUPTED)


def _finish(out: Path, config: dict[str, Any], network: torch.nn.Module, trained: Trained, example: torch.Tensor, *,
            as_json: bool) -> None:
    report = trained.report
    facts = {**config, "accuracy": None if math.isnan(trained.accuracy) else trained.accuracy,
             "steps": trained.training.steps, "final_loss": trained.training.trace["loss"][-1],
             "report": ({"sparsity": sparsity_report(network, example=example).to_dict()} if report is None
                        else report.to_dict())}
    try:
        _files.write_tensors(out / "model.safetensors", network.state_dict(), {"model": config["model"]})
        if report is not None:
            _files.write_tensors(out / "masks.safetensors", report.masks)
        _files.write_json(out / "report.json", facts)
    except OSError as e:
        _door.fail(_door.reason(e))
    if as_json:
        _door.print_json(facts)
        return
    text = sparsity_report(network, example=example).to_text() if report is None else report.to_text()
    console = _door.out()
    console.print(escape(text), soft_wrap=True)
    console.print(f"test accuracy [bold]{100 * trained.accuracy:.2f} %[/] after {trained.training.steps} steps; "
                  f"{escape(str(out))} holds model.safetensors and report.json", soft_wrap=True)
