"""``sae train`` and ``sae eval``: sparse autoencoders of activations in files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
import typer
from rich.markup import escape
from torch import Tensor

from sparsepriors import _files
from sparsepriors.cli import _door, _networks, _progress
from sparsepriors.dictionaries import AuxK, MatchingPursuit, SparseAutoencoder, fit
from sparsepriors.dictionaries.activations import ActivationShards
from sparsepriors.dictionaries.evaluation import evaluate
from sparsepriors.dictionaries.sources import mapped
from sparsepriors.networks.train_loop import TrainingDivergedError, TrainState
from sparsepriors.priors import L1, BatchTopK, JumpReLU, Matryoshka, Prior, TopK

CHECKPOINT = "state.safetensors"
PRIORS: dict[str, Callable[[float, float], Prior]] = {
    "topk": lambda k, weight: TopK(int(k)),
    "batch-topk": lambda k, weight: BatchTopK(k),
    "jumprelu": lambda k, weight: JumpReLU(weight=weight),
    "l1": lambda k, weight: L1(weight),
    "matching-pursuit": lambda k, weight: MatchingPursuit(int(k)),
}
_MOST_EVALUATED = 2**16


def train(data: Path, *, latents: int, prior: str, k: float, weight: float, prefixes: str | None, aux: bool, steps: int,
          batch: int, rate: float | None, scale: str, seed: int, out: Path, resume: bool, threads: int | None,
          quiet: bool, as_json: bool) -> None:
    """Train, write the autoencoder and its report, and print what it reaches."""
    if prior not in PRIORS:
        _door.unknown("prior", prior, tuple(PRIORS))
    signals = _signals(data)
    with _networks.threads(threads), _door.stoppable():
        try:
            sae = SparseAutoencoder(signals.shape[1], latents, _prior(prior, k, weight, prefixes),
                                    aux=AuxK() if aux and prior != "matching-pursuit" else None,
                                    generator=torch.Generator().manual_seed(seed))
        except (TypeError, ValueError) as e:
            _door.usage(str(e))
        _networks.begin(out, {"data": str(data), "latents": latents, "prior": sae.prior.to_dict(), "aux": aux,
                              "steps": steps, "batch": batch, "rate": rate, "scale": scale, "seed": seed},
                        resume=resume)
        try:
            with _progress.bars(_door.err(), quiet=quiet or as_json) as bars, bars(steps, f"{prior} on {data}") as bar:
                done = [0]

                def advance(state: TrainState) -> None:
                    bar.advance(state.step - done[0])
                    done[0] = state.step

                fit(sae, signals, steps=steps, batch=batch, lr=rate, seed=seed, callback=advance,
                    input_scale=None if scale == "none" else scale.replace("-", " "), checkpoint=out / CHECKPOINT,
                    checkpoint_every=max(1, steps // 20), resume=resume)
            sae.finalize().save(out, {"data": str(data)})
            facts = {"steps": steps, **asdict(evaluate(sae, signals[:_MOST_EVALUATED]))}
            _files.write_json(out / "report.json", facts)
        except KeyboardInterrupt:
            state = out / CHECKPOINT
            said = f"{escape(str(state))} has what was done" if state.exists() else "no step was done"
            _door.err().print(f"interrupted; {said}. Give the same command with --resume to continue to the same bits",
                              soft_wrap=True)
            raise typer.Exit(_door.INTERRUPTED) from None
        except (TypeError, ValueError, RuntimeError, TrainingDivergedError) as e:
            _door.fail(str(e))
        except OSError as e:
            _door.fail(_door.reason(e))
    _say(facts, f"{out} holds cfg.json and weights.safetensors", as_json=as_json)


def evaluated(folder: Path, data: Path, *, limit: int | None, threads: int | None, as_json: bool) -> None:
    """Read an autoencoder, measure it on signals, and print what it reaches."""
    signals = _signals(data)
    with _networks.threads(threads), _door.stoppable():
        try:
            found = evaluate(SparseAutoencoder.load(folder), signals if limit is None else signals[:limit])
        except KeyboardInterrupt:
            raise typer.Exit(_door.INTERRUPTED) from None
        except OSError as e:
            _door.fail(f"cannot read {e.filename or folder}: {e.strerror or e}")
        except (TypeError, ValueError, RuntimeError) as e:
            _door.fail(str(e))
    _say(asdict(found), f"{folder} on {data}", as_json=as_json)


def _signals(data: Path) -> Tensor | ActivationShards:
    try:
        found = mapped(data)
    except (OSError, ValueError) as e:
        _door.usage(str(e))
    if len(found.shape) != 2:
        _door.usage(f"{data} must hold rows of activations (N, d), got shape {tuple(found.shape)}")
    return found


def _prior(name: str, k: float, weight: float, prefixes: str | None) -> Prior:
    if name in ("topk", "matching-pursuit") and k != int(k):
        raise ValueError(f"--k must be whole for {name}, got {k:g}")
    made = PRIORS[name](k, weight)
    if prefixes is None:
        return made
    try:
        lengths = tuple(int(p) for p in prefixes.split(","))
    except ValueError:
        raise ValueError(f"--prefixes takes numbers of latents such as 64,256, got {prefixes!r}") from None
    return Matryoshka(made, lengths)


def _say(facts: dict[str, float], where: str, *, as_json: bool) -> None:
    if as_json:
        _door.print_json(facts)
        return
    _door.out().print(f"variance explained [bold]{100 * (1 - facts['fvu']):.2f} %[/], {facts['l0']:.2f} of the latents "
                      f"at a time, {100 * facts['dead']:.1f} % never, cosine {facts['cosine']:.4f}; {escape(where)}",
                      soft_wrap=True)
