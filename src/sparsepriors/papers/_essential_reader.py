"""A language model that is pruned in every way that the experiment on essential sparsity compares, and reads on."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sparsepriors.networks.calibrated import LayerPruner, SparseGPT, Wanda
from sparsepriors.networks.sparse import (
    Distribution,
    Global,
    MagnitudeScore,
    RandomScore,
    Score,
    SparsePlan,
    Uniform,
)
from sparsepriors.papers._reading import load_model, windows
from sparsepriors.priors.patterns import NM, Pattern, Unstructured
from sparsepriors.runs import Run, Scale

SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
FREE = 0.2
"""What can go at little cost: so little that more text must be read to see it."""


@dataclass(frozen=True)
class ReaderSizes:
    """How much is read.

    Attributes
    ----------
    length
        Tokens of a window.
    windows, free
        Windows of a seed, of which every measurement reads the first ``windows`` and that of `FREE` all.
    calibration, calibration_length
        Windows that calibrate pruners, and their tokens.
    """

    length: int
    windows: int
    free: int
    calibration: int
    calibration_length: int


def read(run: Run, sizes: ReaderSizes, advance: Callable[[], object]) -> dict[tuple[str, float], float]:
    """Log-perplexity, nats per token, by method and sparsity; ``("dense", 0.0)`` is the model as it is.

    Keys ``"dense, all windows"`` and ``"magnitude, all windows"`` are of more text than the others.
    """
    from sparsepriors.language import block_weights, perplexity, prune_blocks, sparsity_curve

    @functools.cache
    def model() -> tuple[Any, Any]:
        return load_model(run, torch.bfloat16)

    @functools.cache
    def text(split: str) -> torch.Tensor:
        size = (sizes.length, sizes.free) if split == "test" else (sizes.calibration_length, sizes.calibration)
        return windows(model()[1], *size, run.seed, split)

    def nats(network: Any, count: int = sizes.windows) -> float:
        return math.log(perplexity(network, text("test")[:count]).value)

    def curve(sparsities: Sequence[float | Pattern], **options: Any) -> dict[str, Any]:
        found = sparsity_curve(model()[0], nats, sparsities, higher_is_better=False, dense=dense,
                               generator=torch.Generator().manual_seed(run.seed), **options)
        return {"points": [[s, v] for s, v in zip(found.sparsities, found.scores, strict=True)][1:]}

    def free() -> dict[str, Any]:
        found = sparsity_curve(model()[0], lambda m: nats(m, sizes.free), (FREE,), higher_is_better=False)
        return dict(zip(("dense", "magnitude"), found.scores, strict=True))

    def by_text(method: LayerPruner, dims: int | None) -> Callable[[], dict[str, Any]]:
        return lambda: curve(calibrated, prune=lambda m, s: prune_blocks(
            m, Unstructured(1 - s, dims=dims), text("valid"), method=method))

    def plan(distribution: Distribution, score: Score | None = None) -> SparsePlan:
        where = block_weights(model()[0])
        return SparsePlan(Unstructured(), distribution, score=score or MagnitudeScore(), where=where)

    dense = run.once("read-dense", lambda: {"nats": nats(model()[0])})["nats"]
    full = run.scale is Scale.FULL
    calibrated = SPARSITIES if full else (0.5,)
    each = SPARSITIES if full else (0.3, 0.5)
    todo: dict[str, Callable[[], dict[str, Any]]] = {
        "magnitude": lambda: curve(SPARSITIES),
        "random": lambda: curve((0.02, 0.05, 0.1), plan=plan(Global(), RandomScore())),
        "magnitude in each layer": lambda: curve(each, plan=plan(Uniform())),
        "N of 8": lambda: curve([NM(7, 8), NM(6, 8), NM(4, 8)], plan=plan(Uniform())),
        "N of 4": lambda: curve([NM(3, 4), NM(2, 4)], plan=plan(Uniform())),
        "Wanda": by_text(Wanda(), 1),
        **({"SparseGPT": by_text(SparseGPT(), None)} if full else {}),
    }
    found = {("dense", 0.0): dense}
    run.log(part="decoder", method="dense", sparsity=0.0, nats=dense, perplexity=math.exp(dense))
    for method, measure in todo.items():
        for sparsity, value in run.once(f"read-{method.replace(' ', '-')}", measure)["points"]:
            found[method, round(sparsity, 4)] = value
            run.log(part="decoder", method=method, sparsity=sparsity, nats=value, perplexity=math.exp(value))
        advance()
    more = run.once("read-free", free)
    for method, sparsity in (("dense", 0.0), ("magnitude", FREE)):
        value = found[f"{method}, all windows", sparsity] = more[method]
        run.log(part="free", method=method, sparsity=sparsity, windows=sizes.free, nats=value,
                perplexity=math.exp(value))
    return found
