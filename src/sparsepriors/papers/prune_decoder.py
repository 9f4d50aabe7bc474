"""Frantar and Alistarh (2023), Sun et al. (2024): a language model pruned in one shot, with and without reading text.

SmolLM2-135M is pruned by magnitude, by Wanda and by SparseGPT, in free positions and N:M, each calibrated on text of
its own, and reads text that no other seed reads. The 2:4 model of SparseGPT then runs on packed weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsepriors.networks.calibrated import LayerPruner, MagnitudePruning, SparseGPT, Wanda
from sparsepriors.networks.packed_linear import pack_nm_model
from sparsepriors.papers import _half_cost
from sparsepriors.papers._axes import plain_ticks
from sparsepriors.papers._reading import load_model, windows
from sparsepriors.priors.patterns import NM, Pattern, Unstructured
from sparsepriors.runs import Claim, Paper, Run, Scale

_NATS = "log-perplexity, nats per token"
_LLAMA = "perplexity of LLaMA-2-7B"

PAPER = Paper(
    slug="prune-decoder",
    title="SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
    authors="Elias Frantar, Dan Alistarh",
    year=2023,
    url="https://arxiv.org/abs/2301.00774",
    room="language",
    method=(
        "Carry windows of text through the decoder, block by block, as the blocks before are pruned.",
        "Magnitude: keep the largest weights of each matrix, whatever they meet.",
        "Wanda (Sun et al., 2024): of each output, keep the largest products of a weight and the norm of its input.",
        "SparseGPT: remove inputs in order, each time letting later weights make up for what went.",
        "No retraining. 2:4 weights are then packed, and the model runs on what is packed.",
    ),
    claims=(
        Claim("wanda-over-magnitude-50", f"At half of the weights, Wanda reads better than magnitude by the published "
              f"0.84 nats ({_NATS})", f"{_LLAMA}: 6.42 against 14.89", "magnitude", margin=0.84, better="lower"),
        Claim("wanda-over-magnitude-2-4", f"At 2:4, Wanda reads better than magnitude by the published 1.6 nats "
              f"({_NATS})", f"{_LLAMA}: 11.02 against 54.59", "magnitude", margin=1.6, better="lower"),
        Claim("sparsegpt-over-wanda-50", f"At half of the weights, SparseGPT reads a small model better than Wanda "
              f"({_NATS})", "perplexity of BLOOM-560M: 28.92 against 30.74", "Wanda", better="lower"),
        Claim("sparsegpt-over-wanda-2-4", f"At 2:4, SparseGPT reads better than Wanda ({_NATS})",
              f"{_LLAMA}: 10.17 against 11.02", "Wanda", better="lower"),
        Claim("free-over-2-4", f"With SparseGPT, half of the weights in free positions read better than 2:4 ({_NATS})",
              f"{_LLAMA}: 6.51 against 10.17", "2:4", better="lower"),
        Claim("half-cost", f"SparseGPT removes half of the weights for the 0.25 nats that a small model is "
              f"published to lose ({_NATS})", "perplexity of BLOOM-560M: 28.92 against 22.42 dense", "the dense model",
              margin=-0.25, better="lower"),
        Claim("packed-bytes", "The matrices of the 2:4 model, packed in 16 bits, weigh at most 0.57 of the dense ones "
              "(share of bytes)", "not reported", "0.57", better="lower"),
        Claim("packed-reads-alike", f"On packed weights the 2:4 model reads as on dense ones with zeros, 0.01 nats "
              f"allowed ({_NATS})", "not reported", "dense weights with zeros", margin=-0.01, better="lower"),
    ),
)

METHODS: dict[str, LayerPruner] = {"magnitude": MagnitudePruning(), "Wanda": Wanda(), "SparseGPT": SparseGPT()}
JUDGED = ("50", "2:4")
"""Patterns of the claims: a percentage of zeros in free positions, or N:M."""
PACKED = ("SparseGPT", "2:4")
"""Method and pattern of the model that runs on packed weights."""
_PUBLISHED_COST = math.log(28.92 / 22.42)


@dataclass(frozen=True)
class Sizes:
    """How much is measured at a scale.

    Attributes
    ----------
    length
        Tokens of a window.
    calibration, windows
        Windows of a seed to calibrate with and to read.
    magnitude
        Patterns for magnitude pruning, on the first seed; the others have those of the claims.
    calibrated
        The same for Wanda and SparseGPT.
    counts
        Windows that calibrate where the first seed measures what more of them are worth.
    """

    length: int
    calibration: int
    windows: int
    magnitude: tuple[str, ...]
    calibrated: tuple[str, ...]
    counts: tuple[int, ...]


_ALL = ("10", "20", "30", "40", "50", "60", "70", "4:8", "2:4")
SIZES = {
    Scale.SMOKE: Sizes(48, 2, 1, ("20", "50", "2:4"), JUDGED, (1, 2)),
    Scale.DEFAULT: Sizes(512, 4, 2, _ALL, ("30", "50", "70", "4:8", "2:4"), (1, 4, 16, 64)),
    Scale.FULL: Sizes(2048, 16, 4, _ALL, _ALL, (1, 4, 16)),
}


def pattern_of(text: str, method: str) -> Pattern:
    """The pattern, chosen among the weights that the method's paper compares with each other."""
    if ":" in text:
        n, m = map(int, text.split(":"))
        return NM(n, m)
    return Unstructured(1 - int(text) / 100, dims=1 if method == "Wanda" else None)


def arms(sizes: Sizes, *, first: bool) -> Iterator[tuple[str, str]]:
    """Method and pattern of everything that a seed measures; the first seed measures more."""
    for method in METHODS:
        yield from ((method, text) for text in
                    (JUDGED if not first else sizes.magnitude if method == "magnitude" else sizes.calibrated))


def run(scale: Scale, seed: int, run: Run) -> None:
    """Prune and read; the seed chooses the text of both. At full scale every seed measures every pattern."""
    sizes = SIZES[scale]
    model, tokenizer = load_model(run, torch.bfloat16)
    seen = windows(tokenizer, sizes.length, sizes.calibration, seed, "valid")
    text = windows(tokenizer, sizes.length, sizes.windows, seed)
    todo = list(arms(sizes, first=scale is Scale.FULL or seed == PAPER.seeds[0]))
    counts = sizes.counts if seed == PAPER.seeds[0] else ()
    found: dict[tuple[str, str], dict[str, Any]] = {}
    with run.progress(1 + len(todo) + (2 * len(counts) + 1 if counts else 0), "pruning and reading") as bar:
        dense = run.once("dense", lambda: _read(model, text))
        run.log(method="dense", pattern="dense", sparsity=0.0, **dense)
        bar.advance()
        for method, pattern in todo:
            found[method, pattern] = run.once(
                f"{method}-{pattern.replace(':', '-')}",
                lambda method=method, pattern=pattern: _unit(model, method, pattern, seen, text))
            run.log(method=method, pattern=pattern, **found[method, pattern]["read"])
            bar.advance()
        if counts:
            costs = _half_cost.measure(
                run, model, windows(tokenizer, sizes.length, max(counts), seed, "valid"),
                windows(tokenizer, sizes.length, sizes.windows * len(PAPER.seeds), seed), counts, sizes.calibration,
                bar.advance)
            _half_cost.draw(run, costs, sizes.length, _PUBLISHED_COST)
    nats = {arm: unit["read"]["nats"] for arm, unit in found.items()}
    packed = found[PACKED]["packed"]
    run.log(method=PACKED[0], pattern=PACKED[1], sparsity=0.5, part="packed", zeros_nats=nats[PACKED], **packed)
    for pattern in JUDGED:
        name = pattern.replace(":", "-")
        run.claim(f"wanda-over-magnitude-{name}", ours=nats["Wanda", pattern], baseline=nats["magnitude", pattern])
        run.claim(f"sparsegpt-over-wanda-{name}", ours=nats["SparseGPT", pattern], baseline=nats["Wanda", pattern])
    run.claim("free-over-2-4", ours=nats["SparseGPT", "50"], baseline=nats["SparseGPT", "2:4"])
    run.claim("half-cost", ours=nats["SparseGPT", "50"], baseline=dense["nats"])
    run.claim("packed-bytes", ours=packed["bytes_share"], baseline=0.57)
    run.claim("packed-reads-alike", ours=packed["nats"], baseline=nats[PACKED])
    _draw(run, dense["perplexity"], nats)


def _unit(model: Any, method: str, pattern: str, seen: Tensor, text: Tensor) -> dict[str, Any]:
    from sparsepriors.language import prune_blocks

    pruned = copy.deepcopy(model)
    done = prune_blocks(pruned, pattern_of(pattern, method), seen, method=METHODS[method])
    found = {"read": {"sparsity": 1 - done.report.density, **_read(pruned, text)}}
    return found if (method, pattern) != PACKED else {**found, "packed": _pack(model, pruned, text)}


def _read(model: Any, text: Tensor) -> dict[str, Any]:
    from sparsepriors.language import perplexity

    found = perplexity(model, text)
    return {"nats": math.log(found.value), "perplexity": found.value, "tokens": found.tokens}


def _pack(model: Any, pruned: Any, text: Tensor) -> dict[str, Any]:
    """Pack the pruned model, in place: bytes of the packed matrices, and what the model reads on them."""
    layers = [layer for layer in pack_nm_model(pruned, 2, 4) if layer.packed]
    held, dense = sum(layer.nbytes for layer in layers), sum(layer.dense_bytes for layer in layers)
    return {"layers": len(layers), "bytes": held, "bytes_dense": dense, "bytes_share": held / dense,
            "model_bytes": _bytes(pruned), "model_bytes_dense": _bytes(model), **_read(pruned, text)}


def _bytes(model: nn.Module) -> int:
    """Parameters and buffers, those that are tied once."""
    return sum(t.nbytes for t in {t.data_ptr(): t for t in (*model.parameters(), *model.buffers())}.values())


def _draw(run: Run, dense: float, nats: dict[tuple[str, str], float]) -> None:
    from matplotlib.figure import Figure

    styles = {"magnitude": ("#8a8a8a", "o"), "Wanda": ("#c0504d", "s"), "SparseGPT": ("#1b6ca8", "^")}
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    curve, bars = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for i, (method, (colour, marker)) in enumerate(styles.items()):
        found = {p: n for (name, p), n in nats.items() if name == method}
        free = sorted((int(p), math.exp(n)) for p, n in found.items() if ":" not in p)
        curve.plot([0, *(s for s, _ in free)], [dense, *(p for _, p in free)], marker=marker, color=colour,
                   label=method)
        shown = [p for p in ("50", "4:8", "2:4") if p in found]
        bars.plot([("50", "4:8", "2:4").index(p) + 0.12 * (i - 1) for p in shown],
                  [math.exp(found[p]) for p in shown], marker=marker, color=colour, linestyle=":")
    curve.set(yscale="log", xlabel="zeros among the weights of the blocks (%)", ylabel="perplexity")
    bars.set(xticks=range(3), xticklabels=("free", "4:8", "2:4"), xlabel="where half of the weights are kept")
    for ax in (curve, bars):
        ax.axhline(dense, color="#222222", linewidth=0.8, linestyle="--")
        ax.grid(alpha=0.3, which="both")
        ax.spines[["top", "right"]].set_visible(False)
    plain_ticks(curve.yaxis)
    curve.legend(frameon=False)
    run.figure("perplexity", figure, "Perplexity of SmolLM2-135M, pruned once without retraining, on text of one seed; "
               "the dashed line is the dense model. Right: the same share of zeros in free positions and N:M.",
               "Perplexity over the share of zeros for magnitude, Wanda and SparseGPT, and by pattern at one half")
