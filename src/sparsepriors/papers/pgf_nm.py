"""Bambhaniya et al. (2024): at high N:M sparsity, begin with the whole gradient and close it step by step.

Soft masks that harden (MDGF) and patterns that tighten (SDGF), each with straight-through gradients, as the published
code has them, and with those of the chain rule, as the abstract has it, against SR-STE, the plain straight-through
rule and gradual magnitude pruning.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch

from sparsepriors.networks.models import model
from sparsepriors.networks.recipe import Recipe
from sparsepriors.networks.sparse import Selector, SparsePlan, StructureDecay, preset
from sparsepriors.papers._arms import PERCEPTRON, Arm, Bench, best, perceptron, train_arms
from sparsepriors.papers._images import ImageSizes
from sparsepriors.priors.patterns import NM
from sparsepriors.runs import Claim, Paper, Run, Scale

_NEAR = "At 1:16 {} is at most 0.004 below SR-STE (straight-through gradients, share of test images)"
_GAIN = "up to +2 % top-1 over SR-STE (ViT-Base, Swin-V2, feed-forward layers 1:8 to 1:128)"

PAPER = Paper(
    slug="pgf-nm",
    title="Progressive Gradient Flow for Robust N:M Sparsity Training in Transformers",
    authors="Abhimanyu Rajeshkumar Bambhaniya, Amir Yazdanbakhsh, Suvinay Subramanian, Sheng-Chun Kao, "
            "Shivani Agrawal, Utku Evci, Tushar Krishna",
    year=2024,
    url="https://arxiv.org/abs/2402.04744",
    room="networks.sparse",
    method=(
        "Masks are N:M projections of dense weights, drawn anew at every step.",
        "MDGF: the forward pass multiplies masked weights by D(t), which falls from 1 to 0 linearly or exponentially.",
        "SDGF: masks are hard, the pattern tightens: 15:16, 8:16, ..., 1:16, or 8:128, ..., 1:16 at one density.",
        "Gradients pass straight through (the published code), or by the chain rule: masked weights learn less.",
        "The last steps fine-tune with the hard mask, whose accuracy is the one to report.",
    ),
    claims=(
        Claim("best-decay", "At 1:16 the decay recipe that held-out images choose is better than SR-STE "
              "(straight-through gradients, share of test images)", _GAIN, "SR-STE, lambda 2e-4"),
        Claim("near-mdgf-linear", _NEAR.format("MDGF-linear"), _GAIN, "SR-STE, lambda 2e-4", margin=-0.004),
        Claim("near-mdgf-exp", _NEAR.format("MDGF-exponential"), _GAIN, "SR-STE, lambda 2e-4", margin=-0.004),
        Claim("near-sdgf-stepwise", _NEAR.format("SDGF-stepwise"), _GAIN, "SR-STE, lambda 2e-4", margin=-0.004),
        Claim("near-sdgf-geometric", _NEAR.format("SDGF-geometric"), _GAIN, "SR-STE, lambda 2e-4", margin=-0.004),
        Claim("less-noise", "Every chain-rule recipe has less gradient noise than SR-STE: mean second moment of AdamW "
              "over the last fifth of the steps (share of 8 comparisons)",
              "plots of the running second moment (ViT feed-forward layers)", "all comparisons"),
        Claim("over-gradual-pruning", "At 1:16 the decay recipe that held-out images choose is better than gradual "
              "magnitude pruning to N:M (straight-through gradients, share of test images)",
              "not reported (asked for in review)", "gradual pruning, tuned on other seeds"),
        Claim("exact-path", "Masks keep exactly what the schedule says after every step, and the network with hardened "
              "masks equals the finished one to 1e-6 (share of the trainings)", "not reported", "all trainings"),
        Claim("fewer-flops", "SDGF-stepwise costs fewer multiply-adds of training than either MDGF (share of dense)",
              "not reported", "the cheaper MDGF", margin=0.01, better="lower"),
    ),
)

DENSE, END = 0.0125, 0.4
"""Shares of the steps that are dense, and after which the mask is hard or the last pattern is reached."""
RECIPES = ("mdgf-linear", "mdgf-exp", "sdgf-stepwise", "sdgf-geometric")
PATTERNS = ((1, 16), (1, 32))
TRANSFORMER = ((1, 4), (1, 16))


@dataclass(frozen=True)
class Transformer:
    """How much is measured of the transformer at a scale, beside `PERCEPTRON`; ``window`` is of `GradientNoise`."""

    window: int
    images: int
    test: int
    patch: int
    width: int
    depth: int
    epochs: int
    arms: tuple[str, ...]


SIZES = {
    Scale.SMOKE: Transformer(2, 160, 200, 4, 32, 1, 1, ("SR-STE", "mdgf-exp ste")),
    Scale.DEFAULT: Transformer(50, 3000, 2000, 7, 64, 3, 4, ("SR-STE", "mdgf-exp ste")),
    Scale.FULL: Transformer(50, 50_000, 10_000, 7, 64, 3, 40, ("STE", "SR-STE", *(f"{name} ste" for name in RECIPES))),
}


def run(scale: Scale, seed: int, run: Run) -> None:
    """Train every arm and compare; the seed draws images, first weights and batches."""
    small, sizes = PERCEPTRON[scale], SIZES[scale]
    recipe = Recipe(epochs=small.epochs, batch=small.batch, optimizer="adamw", rate=3e-3, weight_decay=0.01, warmup=0.1)
    mlp = perceptron(run, small, recipe, sizes.window)
    seen = ImageSizes(small.data, 1, sizes.images, sizes.test // 2, sizes.test).draw(run)
    vit = Bench(seen, lambda: model(
        "vit", generator=torch.Generator().manual_seed(seed), size=seen.train[0].shape[-1], patch=sizes.patch,
        width=sizes.width, depth=sizes.depth, heads=4, ratio=4).to(run.device),
        replace(recipe, epochs=sizes.epochs, rate=2e-3), Selector(only=("fc1", "fc2")), seed, small.every)
    todo = [Arm(mlp, "mlp", *PATTERNS[0], "dense", None), Arm(vit, "vit", *TRANSFORMER[0], "dense", None)]
    todo += [Arm(mlp, "mlp", n, m, name, plan) for n, m in PATTERNS for name, plan in arms(n, m).items()]
    todo += [Arm(vit, "vit", n, m, name, plan) for n, m in TRANSFORMER for name, plan in arms(n, m).items()
             if name in sizes.arms]
    table = train_arms(run, todo, ("accuracy", "held", "sad", "away", "density", "train_ratio", "on_path", "gap",
                                   "variance", "second_moment"))
    _claims(run, table)
    _draw(run, table)


def arms(n: int, m: int) -> dict[str, SparsePlan]:
    """The sparse trainings of one pattern by name."""
    plans: dict[str, SparsePlan] = {
        "STE": preset("ste", n=n, m=m), "SR-STE": preset("sr-ste", n=n, m=m),
        # END and every step were the best of ends from 0.25 to 0.9 and 1, 10 or 40 steps between two prunings, by the
        # held-out images of three other seeds.
        "gradual": preset("gmp-nm", n=n, m=m, every=1, start=DENSE, end=END)}
    for name in RECIPES:
        for ste in (True, False):
            plans[f"{name} {'ste' if ste else 'chain'}"] = _decay(name, n, m, ste)
    return plans


def _decay(name: str, n: int, m: int, ste: bool) -> SparsePlan:
    if name.startswith("mdgf"):
        return preset(name, n=n, m=m, dense=DENSE, end=END, ste=ste)
    frames = len(StructureDecay(name.removeprefix("sdgf-")).frames(NM(n, m)))
    # All frames are equally long; the rest of the steps is the last one's, which then begins at END.
    finetune = 1 - DENSE - (END - DENSE) * frames / (frames - 1)
    return preset(name, n=n, m=m, dense=DENSE, finetune=finetune, ste=ste)


def _claims(run: Run, table: dict[tuple[str, str, str], dict[str, Any]]) -> None:
    at = {name: row for (network, pattern, name), row in table.items() if (network, pattern) == ("mlp", "1:16")}
    reference = at["SR-STE"]["accuracy"]
    chosen = best({n: at[f"{n} ste"] for n in RECIPES})["accuracy"]
    run.claim("best-decay", ours=chosen, baseline=reference)
    run.claim("over-gradual-pruning", ours=chosen, baseline=at["gradual"]["accuracy"])
    for name in RECIPES:
        run.claim(f"near-{name}", ours=at[f"{name} ste"]["accuracy"], baseline=reference)
    calmer = [table["mlp", f"{n}:{m}", f"{name} chain"]["second_moment"]
              < table["mlp", f"{n}:{m}", "SR-STE"]["second_moment"] for n, m in PATTERNS for name in RECIPES]
    run.claim("less-noise", ours=fmean(calmer), baseline=1.0)
    run.claim("exact-path", ours=fmean(r["on_path"] and r["gap"] <= 1e-6 for r in table.values()), baseline=1.0)
    run.claim("fewer-flops", ours=at["sdgf-stepwise ste"]["train_ratio"],
              baseline=min(at[f"{name} ste"]["train_ratio"] for name in RECIPES[:2]))


def _draw(run: Run, table: dict[tuple[str, str, str], dict[str, Any]]) -> None:
    from matplotlib.figure import Figure

    colours = {"dense": "#777777", "STE": "#1b1b1b", "SR-STE": "#cb181d", "gradual": "#f16913",
               "mdgf-linear": "#4292c6", "mdgf-exp": "#08519c", "sdgf-stepwise": "#74c476", "sdgf-geometric": "#006d2c"}
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    axes = figure.subplots(1, 3)
    for ax, (n, m) in zip(axes, PATTERNS, strict=False):
        ax.axhline(100 * table["mlp", "1:16", "dense"]["accuracy"], color=colours["dense"], ls="--", lw=1)
        for name, row in ((k[2], r) for k, r in table.items() if k[:2] == ("mlp", f"{n}:{m}") and k[2] != "dense"):
            chain = name.endswith(" chain")
            ax.plot(row["train_ratio"], 100 * row["accuracy"], "o", ms=9, color=colours[name.split()[0]],
                    mfc="none" if chain else None, label=None if chain else name.removesuffix(" ste"))
        ax.set(title=f"{n}:{m}, perceptron", xlabel="multiply-adds of training / dense", ylabel="test accuracy (%)")
    handles, labels = axes[0].get_legend_handles_labels()
    axes[2].legend(handles, labels, frameon=False, fontsize=8, loc="lower right", ncols=2)
    last, steps = axes[2], table["mlp", "1:16", "dense"]["sad_steps"][-1]
    for name, row in ((k[2], r) for k, r in table.items() if k[:2] == ("mlp", "1:16")):
        sums = torch.tensor(row["sad_moved"], dtype=torch.float64).cumsum(0).tolist()
        last.plot(row["sad_steps"], sums, color=colours[name.split()[0]], ls="--" if name.endswith("chain") else "-",
                  lw=1.4)
    last.axvline(END * steps, color="black", lw=0.8, ls=":")
    last.set(title="1:16: mask changes per weight, summed", xlabel="step", ylabel="SAD")
    for ax in axes:
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    run.figure("flow", figure, caption=(
        "One seed. Left: accuracy against what training costs; full marks pass gradients straight through, open ones "
        "use the chain rule, the broken line is the dense network. Right: how much masks move (solid straight through, "
        "broken chain rule); the dotted line is where the mask becomes hard."))
