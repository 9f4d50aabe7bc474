"""What half of a decoder's weights costs, by the text that calibrates, and on weights that are rounded once more."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparsepriors.networks.calibrated import LayerPruner, SparseGPT, Wanda
from sparsepriors.networks.sparse import select
from sparsepriors.priors.patterns import Unstructured
from sparsepriors.runs import Run

_GROUP, _LEVELS = 32, 16
"""Weights that share a grid where a model is stored in four bits, and points of the grid."""

_ARMS: dict[str, tuple[LayerPruner, Unstructured]] = {
    "Wanda": (Wanda(), Unstructured(0.5, dims=1)), "SparseGPT": (SparseGPT(), Unstructured(0.5))}


def measure(run: Run, model: Any, seen: Tensor, text: Tensor, counts: Sequence[int], usual: int,
            advance: Callable[[], object]) -> dict[tuple[str, int], float]:
    """Nats per token that half of the weights cost, by method and windows that calibrate.

    Parameters
    ----------
    seen, text
        ``(windows, length)``, token ids to calibrate with, of which each count takes the first ones, and to read.
    counts
        How many windows calibrate.
    usual
        How many do where the weights are rounded once more.
    """
    dense = run.once("cost-dense", lambda: {"nats": _nats(model, text)})["nats"]
    costs: dict[tuple[str, int], float] = {}
    for method in _ARMS:
        for count in counts:
            nats = run.once(f"cost-{method}-{count}", lambda method=method, count=count: {
                "nats": _nats(_pruned(model, method, seen[:count]), text)})["nats"]
            costs[method, count] = nats - dense
            run.log(part="calibration", method=method, pattern="50", windows=count, nats=nats, dense_nats=dense,
                    cost=nats - dense)
            advance()
    again = run.once("cost-rounded", lambda: _rounded(model, seen[:usual], text, run.seed))
    run.log(part="rounded once more", method="SparseGPT", pattern="50", windows=usual, nats=again["nats"],
            dense_nats=again["dense"], cost=again["nats"] - again["dense"])
    advance()
    return costs


def _pruned(model: Any, method: str, seen: Tensor) -> Any:
    from sparsepriors.language import prune_blocks

    pruned = copy.deepcopy(model)
    pruner, pattern = _ARMS[method]
    prune_blocks(pruned, pattern, seen, method=pruner)
    return pruned


def _rounded(model: Any, seen: Tensor, text: Tensor, seed: int) -> dict[str, Any]:
    moved = copy.deepcopy(model)
    move_as_rounding(moved, torch.Generator().manual_seed(seed))
    return {"dense": _nats(moved, text), "nats": _nats(_pruned(moved, "SparseGPT", seen), text)}


@torch.no_grad()
def move_as_rounding(model: nn.Module, generator: torch.Generator) -> None:
    """Move the weights of the blocks, in place, as far as rounding to four bits does.

    A weight moves evenly within half a step of the 16 points from the least to the largest of each 32 inputs of an
    output: what rounding does to weights that do not lie on such a grid yet.
    """
    from sparsepriors.language import block_weights

    for chosen in select(model, block_weights(model)).values():
        weight = chosen.parameter
        groups = weight.float().unflatten(-1, (-1, math.gcd(_GROUP, weight.shape[-1])))
        step = (groups.amax(dim=-1, keepdim=True) - groups.amin(dim=-1, keepdim=True)) / (_LEVELS - 1)
        share = torch.rand(groups.shape, generator=generator).to(groups.device) - 0.5
        weight.copy_((groups + share * step).flatten(-2))


def _nats(model: Any, text: Tensor) -> float:
    from sparsepriors.language import perplexity

    return math.log(perplexity(model, text).value)


def draw(run: Run, costs: dict[tuple[str, int], float], length: int, published: float) -> None:
    """Cost over tokens of calibration text."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    ax = figure.subplots()
    for method, colour, marker in (("Wanda", "#c0504d", "s"), ("SparseGPT", "#1b6ca8", "^")):
        points = sorted((count * length, cost) for (name, count), cost in costs.items() if name == method)
        ax.plot(*zip(*points, strict=True), color=colour, marker=marker, label=method)
    ax.axhline(published, color="#222222", linewidth=0.8, linestyle="--", label="SparseGPT on BLOOM-560M, published")
    tokens = sorted({count * length for _, count in costs})
    ax.set(xscale="log", ylim=(0, None), xlabel="tokens of text that calibrate",
           ylabel="cost of half of the weights (nats per token)")
    ax.set_xticks(tokens, [f"{t:,}" for t in tokens])
    ax.minorticks_off()
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    run.figure("calibration", figure, "What half of the weights costs SmolLM2-135M by the text that the method has "
               "seen, on the text of all seeds. The published cost is after 262,144 tokens.",
               "Cost of pruning half of the weights over tokens of calibration text, for Wanda and SparseGPT")
