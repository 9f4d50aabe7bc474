"""Zhou et al. (2021): N:M sparse networks trained from scratch, with a pull to zero on the weights that are masked.

Dense training, one-shot pruning with fine-tuning, the straight-through rule and the refined one, with four strengths of
the pull, on one recipe; masks are followed along every training.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch

from sparsepriors.networks.models import model
from sparsepriors.networks.recipe import Recipe
from sparsepriors.networks.sparse import Selector, SparsePlan, preset
from sparsepriors.papers._arms import PERCEPTRON, Arm, best, perceptron, train_arms
from sparsepriors.runs import Claim, Paper, Run, Scale

_POINTS = "share of test images"

PAPER = Paper(
    slug="sr-ste",
    title="Learning N:M Fine-grained Structured Sparse Neural Networks From Scratch",
    authors="Aojun Zhou, Yukun Ma, Junnan Zhu, Jianbo Liu, Zhijie Zhang, Kun Yuan, Wenxiu Sun, Hongsheng Li",
    year=2021,
    url="https://arxiv.org/abs/2102.04010",
    room="networks.sparse",
    method=(
        "Keep dense weights; the forward pass uses their projection onto N:M, drawn anew at every step.",
        "The gradient of the projected weight goes to all dense weights (straight through).",
        "Weights outside the mask are pulled to zero by lambda times themselves, added to their gradient.",
        "The pull keeps masks from flickering; the sum of their changes is the sparse architecture divergence (SAD).",
        "At the end the mask is applied once; values and positions are all that inference needs.",
    ),
    claims=(
        Claim("sad-order", "At 2:4, 1:4 and 1:16 masks move less the stronger the pull: SAD falls from lambda 0 over "
              "2e-4 and 2e-3 to 2e-2, and -2e-3 more than doubles it (share of 12 inequalities)",
              "SAD of SR-STE below that of STE; a negative lambda raises it (ResNet-18)", "all inequalities"),
        Claim("near-dense", f"At 2:4 the best SR-STE loses at most 0.006 against dense ({_POINTS})",
              "77.0 against 77.3 % (ResNet-50, ImageNet)", "the dense network", margin=-0.006),
        Claim("negative-1-4", f"At 1:4 lambda = -2e-3 costs at least 0.003 against the best positive one ({_POINTS})",
              "a negative lambda costs accuracy (ResNet-18)", "lambda = -2e-3", margin=0.003),
        Claim("negative-1-16", f"At 1:16 it costs at least 0.006 ({_POINTS})",
              "a negative lambda costs accuracy (ResNet-18)", "lambda = -2e-3", margin=0.006),
        Claim("beats-one-shot", f"At 1:16 training from scratch beats pruning once, then fine-tuning, by 0.004 "
              f"({_POINTS})",
              "77.0 against 76.8 % at 2:4 (ResNet-50)", "dense, one-shot N:M at half the steps, fine-tuned",
              margin=0.004),
        Claim("as-good-as-ste", f"lambda = 2e-4 is no worse than lambda = 0 (mean over patterns, 0.003 allowed, "
              f"{_POINTS})", "77.0 against 76.4 % at 2:4 (ResNet-50)", "STE", margin=-0.003),
        Claim("freer-groups", f"At one density 4:8 is no worse than 2:4 (ResNet-8, 0.003 allowed, {_POINTS})",
              "77.4 against 77.0 % (ResNet-50)", "2:4", margin=-0.003),
        Claim("exact", "Finished networks are in their pattern, at density n/m exactly, with the logits that they had "
              "with masks (share of the trainings)", "not reported", "all trainings"),
    ),
)

PATTERNS = ((2, 4), (1, 4), (1, 16))
POSITIVE = (2e-4, 2e-3, 2e-2)
NEGATIVE = -2e-3
GROUPS = ((2, 4), (4, 8))
"""What the residual network compares."""


@dataclass(frozen=True)
class Residual:
    """How much is measured of the residual network at a scale, beside `PERCEPTRON`."""

    name: str
    width: int
    epochs: int


SIZES = {Scale.SMOKE: Residual("resnet8", 8, 1), Scale.DEFAULT: Residual("resnet8", 8, 4),
         Scale.FULL: Residual("resnet20", 16, 60)}


def run(scale: Scale, seed: int, run: Run) -> None:
    """Train every arm and compare; the seed draws images, first weights and batches."""
    small, sizes = PERCEPTRON[scale], SIZES[scale]
    recipe = Recipe(epochs=small.epochs, batch=small.batch, rate=0.1, weight_decay=5e-4, warmup=0.1)
    mlp = perceptron(run, small, recipe)
    residual = replace(mlp, make=lambda: model(
        sizes.name, generator=torch.Generator().manual_seed(seed), width=sizes.width, in_channels=1,
        classes=10).to(run.device), recipe=replace(recipe, epochs=sizes.epochs), where=Selector(skip=("fc",)))
    todo = [Arm(mlp, "mlp", n, m, name, plan) for n, m in PATTERNS for name, plan in arms(n, m).items()]
    todo.append(Arm(residual, sizes.name, *GROUPS[0], "dense", None))
    weak = _named(POSITIVE[0])
    todo += [Arm(residual, sizes.name, n, m, weak, arms(n, m)[weak]) for n, m in GROUPS]
    table = train_arms(run, todo, ("accuracy", "held", "sad", "away", "density", "train_ratio", "exact"))
    _claims(run, table, sizes.name)
    _draw(run, table)


def arms(n: int, m: int) -> dict[str, SparsePlan | None]:
    """The trainings of one pattern by name."""
    plans: dict[str, SparsePlan] = {"one-shot": preset("asp", n=n, m=m), "STE": preset("ste", n=n, m=m)}
    plans |= {_named(lam): preset("sr-ste", n=n, m=m, lam=lam) for lam in (*POSITIVE, NEGATIVE)}
    return {"dense": None, **plans}


def _named(lam: float) -> str:
    return f"lambda {lam:g}"


def _claims(run: Run, table: dict[tuple[str, str, str], dict[str, Any]], residual: str) -> None:
    def row(pattern: str, arm: str) -> dict[str, Any]:
        return table["mlp", pattern, arm]

    def best_of(pattern: str, lams: tuple[float, ...]) -> float:
        return best({_named(lam): row(pattern, _named(lam)) for lam in lams})["accuracy"]

    patterns = [f"{n}:{m}" for n, m in PATTERNS]
    held = []
    for p in patterns:
        falling = [row(p, arm)["sad"] for arm in ("STE", *map(_named, POSITIVE))]
        held += [a > b for a, b in itertools.pairwise(falling)]
        held.append(row(p, _named(NEGATIVE))["sad"] > 2 * falling[0])
    run.claim("sad-order", ours=fmean(held), baseline=1.0)
    run.claim("near-dense", ours=best_of("2:4", POSITIVE), baseline=row("2:4", "dense")["accuracy"])
    for p in ("1:4", "1:16"):
        run.claim(f"negative-{p.replace(':', '-')}", ours=best_of(p, POSITIVE),
                  baseline=row(p, _named(NEGATIVE))["accuracy"])
    run.claim("beats-one-shot", ours=best_of("1:16", POSITIVE[:2]), baseline=row("1:16", "one-shot")["accuracy"])
    run.claim("as-good-as-ste", ours=fmean(row(p, _named(POSITIVE[0]))["accuracy"] for p in patterns),
              baseline=fmean(row(p, "STE")["accuracy"] for p in patterns))
    run.claim("freer-groups", ours=table[residual, "4:8", _named(POSITIVE[0])]["accuracy"],
              baseline=table[residual, "2:4", _named(POSITIVE[0])]["accuracy"])
    run.claim("exact", ours=fmean(r["exact"] for r in table.values()), baseline=1.0)


def _draw(run: Run, table: dict[tuple[str, str, str], dict[str, Any]]) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    styles = {"dense": "#777777", "one-shot": "#c08a3e", "STE": "#1b1b1b", _named(2e-4): "#9ecae1",
              _named(2e-3): "#4292c6", _named(2e-2): "#08306b", _named(NEGATIVE): "#cb181d"}
    figure = Figure(figsize=(12.5, 4.4), layout="constrained")
    axes = figure.subplots(1, 1 + len(PATTERNS), width_ratios=[1.5, *[1] * len(PATTERNS)])
    for arm, colour in styles.items():
        r = table["mlp", "1:4", arm]
        sums = torch.tensor(r["sad_moved"], dtype=torch.float64).cumsum(0).tolist()
        axes[0].plot(r["sad_steps"], sums, color=colour, label=arm, ls="--" if arm in ("dense", "one-shot") else "-")
    axes[0].set(title="1:4: mask changes per weight, summed", xlabel="step", yscale="log",
                ylabel="sparse architecture divergence (SAD)")
    axes[0].legend(frameon=False, fontsize=8, ncols=2)
    for ax, (n, m) in zip(axes[1:], PATTERNS, strict=True):
        for arm, colour in styles.items():
            r = table["mlp", f"{n}:{m}", arm]
            if arm == "dense":
                ax.axhline(100 * r["accuracy"], color=colour, ls="--", lw=1)
            else:
                ax.plot(r["sad"], 100 * r["accuracy"], "D" if arm == "one-shot" else "o", color=colour, ms=8)
        ax.set(title=f"{n}:{m}", xlabel="SAD of the training", xscale="log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
    axes[1].set_ylabel("test accuracy (%)")
    for ax in axes:
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    run.figure("sad", figure, caption=(
        "One seed. Left: how much the 1:4 masks have moved; a stronger pull on masked weights calms them, a negative "
        "one stirs them up. Right: accuracy against that movement at three patterns; the broken line is the dense "
        "network, the diamond one-shot pruning."))
