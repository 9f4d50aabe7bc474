"""Thangarasa et al. (2024): larger sparse layers at the multiply-adds of the dense ones that they replace.

Underfitting perceptrons and a small residual network; every arm has the same recipe, and every sparse one the
multiply-adds of the dense network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import nn

from sparsepriors.networks.classification import accuracy
from sparsepriors.networks.models import model
from sparsepriors.networks.models.images import start_by_inputs
from sparsepriors.networks.recipe import Recipe, train_classifier
from sparsepriors.networks.sparse import (
    ERK,
    IsoFLOP,
    Sparsifier,
    Uniform,
    ramanujan_gap,
    sparse_ift,
    sparsity_report,
    spectral_gap,
)
from sparsepriors.networks.sparse.ift import Doped
from sparsepriors.networks.train_loop import Hook
from sparsepriors.papers._images import Drawn, ImageSizes
from sparsepriors.runs import Claim, Paper, Run, Scale

_POINTS = "share of test images"
_SPARSITIES = (0.5, 0.75, 0.9)

PAPER = Paper(
    slug="sparse-ift",
    title="Sparse-IFT: Sparse Iso-FLOP Transformations for Maximizing Training Efficiency",
    authors="Vithursan Thangarasa, Shreyas Saxena, Abhay Gupta, Sean Lie",
    year=2024,
    url="https://arxiv.org/abs/2303.11525",
    room="networks.sparse",
    method=(
        "Replace dense layers by larger sparse ones: wider, parallel branches, two factors, or sparse plus low rank.",
        "One number, the sparsity s, fixes the size: widths grow by sqrt(1 / (1 - s)), branches by 1 / (1 - s).",
        "Solve for the density at which the whole network does the multiply-adds of the dense one.",
        "Train with masks that move: drop the smallest weights, grow those of the largest gradient (RigL).",
        "Change nothing else: same learning rate, schedule and number of steps.",
    ),
    claims=(
        Claim("same-multiply-adds", "Every sparse network does the dense one's multiply-adds, within 0.1 % (share of "
              "the networks)", "within 0.1 %", "all networks"),
        Claim("wide-beats-dense-16", f"At width 16 sparse wide 0.75 with RigL beats dense by 0.004 ({_POINTS})",
              "+3.1 points at 0.9 (ResNet-18, CIFAR-100)", "the dense network", margin=0.004),
        Claim("wide-beats-dense-32", f"At width 32 it is at least as good ({_POINTS})",
              "+3.1 points at 0.9 (ResNet-18, CIFAR-100)", "the dense network"),
        *(Claim(f"rigl-over-static-{s * 100:.0f}", f"At s = {s} masks that move are no worse than masks that stay "
                f"(0.004 allowed, {_POINTS})", "dynamic above static", "static random masks", margin=-0.004)
          for s in _SPARSITIES),
        Claim("rigl-over-static", f"On average over s they are no worse (0.001 allowed, {_POINTS})",
              "dynamic above static", "static random masks", margin=-0.001),
        Claim("recovers-a-quarter", "The sparse network that is best on held-out images gains a quarter of what the "
              f"wide dense network gains at 2.3 times the multiply-adds ({_POINTS})", "not reported",
              "a quarter of the gain of wide dense"),
        Claim("wide-over-doped", f"Sparse wide is no worse than sparse doped (0.002 allowed, {_POINTS})",
              "wide > parallel > factorized > doped", "doped 0.75", margin=-0.002),
        Claim("conv", f"A wide residual network is no worse than its dense parent (0.003 allowed, {_POINTS})",
              "+3.1 points at 0.9 (ResNet-18, CIFAR-100)", "the dense network", margin=-0.003),
    ),
)


@dataclass(frozen=True)
class Sizes(ImageSizes):
    """How much is measured at a scale.

    Attributes
    ----------
    hidden
        Hidden layers of the perceptrons.
    widths
        All arms at the first, and dense against wide with RigL at the others.
    residual
        Layers, width, training images and epochs of the residual network.
    """

    hidden: int
    widths: tuple[int, ...]
    sparsities: tuple[float, ...]
    epochs: int
    every: int
    residual: tuple[int, int, int, int]


SIZES = {
    Scale.SMOKE: Sizes("digits8", 1, 640, 300, 300, 2, (24,), (0.75,), 2, 3, (8, 8, 640, 1)),
    Scale.DEFAULT: Sizes("fashion-mnist", 2, 20_000, 5000, 10_000, 3, (16, 32), _SPARSITIES, 10, 50, (8, 8, 2500, 6)),
    Scale.FULL: Sizes("cifar100", 1, 45_000, 5000, 10_000, 3, (64, 128), _SPARSITIES, 60, 100, (20, 64, 45_000, 200)),
}
MIDDLE = 0.75
BATCH, TOLERANCE = 128, 1e-3


@dataclass(frozen=True)
class Arm:
    """One training: the network that is transformed, how, how far, and what its masks do."""

    network: str
    width: int
    family: str = "dense"
    sparsity: float = 0.0
    masks: str = "none"

    @property
    def key(self) -> str:
        """Name of the unit of work."""
        return f"{self.network}-{self.width}-{self.family}-{self.sparsity:g}-{self.masks.replace(' ', '-')}"


def arms(sizes: Sizes) -> list[Arm]:
    """Every training of a seed."""
    first, *others = sizes.widths
    found = [Arm("mlp", first), Arm("mlp", first, "wide", MIDDLE)]
    found += [Arm("mlp", first, "wide", s, masks) for s in sizes.sparsities for masks in ("static", "rigl")]
    found += [Arm("mlp", first, "wide", MIDDLE, masks) for masks in ("set", "static ERK")]
    found += [Arm("mlp", first, family, MIDDLE, "rigl") for family in ("parallel", "factorized", "doped")]
    for width in others:
        found += [Arm("mlp", width), *(Arm("mlp", width, "wide", s, "rigl") for s in sizes.sparsities)]
    width = sizes.residual[1]
    return [*found, Arm("resnet", width), Arm("resnet", width, "wide", MIDDLE, "rigl")]


def recipe(sizes: Sizes, network: str) -> Recipe:
    """How every arm of a network is trained."""
    return Recipe(epochs=sizes.epochs if network == "mlp" else sizes.residual[3], batch=BATCH, rate=0.05, momentum=0.9,
                  nesterov=True, weight_decay=5e-4, schedule="steps", milestones=(0.3, 0.6, 0.8), factor=0.2)


def run(scale: Scale, seed: int, run: Run) -> None:
    """Train every arm; the seed draws the images, the first weights, the masks and the order of the batches."""
    sizes = SIZES[scale]
    drawn = sizes.draw(run)
    todo = arms(sizes)
    rows: dict[Arm, dict[str, Any]] = {}
    with run.progress(len(todo), "training iso-FLOP networks") as bar:
        for arm in todo:
            rows[arm] = run.once(arm.key, lambda arm=arm: _train(run, arm, sizes, drawn))
            run.log(network=arm.network, width=arm.width, family=arm.family, s=arm.sparsity, masks=arm.masks,
                    **rows[arm])
            bar.advance()
    _claims(run, sizes, rows)
    _draw(run, sizes, {arm: row["accuracy"] for arm, row in rows.items()})


def _train(run: Run, arm: Arm, sizes: Sizes, drawn: Drawn) -> dict[str, Any]:
    first = torch.Generator().manual_seed(1000 + run.seed)
    train, example = drawn.train, drawn.test[0][:1]
    classes = int(train[1].max()) + 1
    if arm.network == "mlp":
        parent = model("mlp", generator=first, hidden=(arm.width,) * sizes.hidden, size=example.shape[-1],
                       in_channels=example.shape[1], classes=classes)
    else:
        layers, _, count, _ = sizes.residual
        train = (train[0][:count], train[1][:count])
        parent = model(f"cifar_resnet_{layers}_{arm.width}", generator=first, in_channels=example.shape[1],
                       classes=classes)
    parent = parent.to(run.device)
    made = None if arm.family == "dense" else _transformed(arm, parent, example, first)
    network = parent if made is None else made.model
    _start(network, first)
    plan = None
    if made is not None and arm.masks != "none":
        moving = {"every": sizes.every if arm.network == "mlp" else max(1, sizes.every // 5)}
        match arm.masks:
            case "rigl":
                plan = made.plan("sift-rigl", **moving)
            case "set":
                plan = made.plan("set", **moving)
            case _:
                plan = made.plan("random")
    watched: list[_Graphs] = []

    def attach(sparsifier: Sparsifier) -> Sequence[Hook]:
        watched.append(_Graphs.of(sparsifier.masks, network))
        return ()

    done = train_classifier(network, train, recipe(sizes, arm.network), plan=plan, test=drawn.test, attach=attach,
                            generator=torch.Generator().manual_seed(run.seed))
    books = sparsity_report(network, None if done.report is None else done.report.masks, example=example)
    dense = sparsity_report(parent, example=example).macs_dense
    assert books.macs_kept is not None
    assert dense is not None
    row = {"accuracy": done.accuracy, "held": accuracy(network, *drawn.held), "macs": books.macs_kept,
           "macs_ratio": books.macs_kept / dense, "weights": sum(r.nnz for r in books.layers), "density": books.density}
    if done.report is None:
        return row
    last = _Graphs.of(done.report.masks, network)
    return {**row, "churn": done.report.churn, "fired": done.report.fired, "ramanujan_first": watched[0].ramanujan,
            "ramanujan_last": last.ramanujan, "spectral_first": watched[0].spectral, "spectral_last": last.spectral}


def _start(network: nn.Module, generator: torch.Generator) -> None:
    """By the size of the input; the factors of a linear product with the variance that PyTorch gives, a sixth.

    With the whole of it the doped perceptrons diverge at the learning rate of all arms.
    """
    start_by_inputs(network, generator)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, Doped):
                module.down.weight /= math.sqrt(6)
                module.up.weight /= math.sqrt(6)


def _transformed(arm: Arm, parent: nn.Module, example: torch.Tensor, generator: torch.Generator) -> IsoFLOP:
    # The first layer of the perceptrons does most of their multiply-adds and is masked, too.
    return sparse_ift(parent, arm.family, arm.sparsity, example=example, generator=generator, tol=TOLERANCE,
                      keep_dense=("head",) if arm.network == "mlp" else ("stem", "head"),
                      distribution=ERK() if arm.masks == "static ERK" else Uniform())


@dataclass(frozen=True)
class _Graphs:
    """Means over the layers of the gaps of their masks."""

    ramanujan: float
    spectral: float

    @classmethod
    def of(cls, masks: dict[str, torch.Tensor], network: nn.Module) -> _Graphs:
        weights = {n: network.get_submodule(n.rpartition(".")[0]).weight for n in masks}
        return cls(fmean(ramanujan_gap(m) for m in masks.values()),
                   fmean(spectral_gap(w.detach(), masks[n]) for n, w in weights.items() if isinstance(w, torch.Tensor)))


def _claims(run: Run, sizes: Sizes, rows: dict[Arm, dict[str, Any]]) -> None:
    found = {arm: row["accuracy"] for arm, row in rows.items()}
    first = sizes.widths[0]

    def of(masks: str, sparsity: float = MIDDLE, family: str = "wide", width: int = first) -> float:
        return found.get(Arm("mlp", width, family, sparsity, masks), float("nan"))

    sparse = [arm for arm in rows if arm.masks != "none"]
    run.claim("same-multiply-adds", baseline=1.0,
              ours=sum(abs(rows[arm]["macs_ratio"] - 1) <= TOLERANCE for arm in sparse) / len(sparse))
    dense = of("none", 0.0, "dense")
    run.claim("wide-beats-dense-16", ours=of("rigl"), baseline=dense)
    run.claim("wide-beats-dense-32", ours=of("rigl", width=sizes.widths[-1]),
              baseline=of("none", 0.0, "dense", sizes.widths[-1]))
    for s in _SPARSITIES:   # the smoke scale has one of them, and claims nothing
        run.claim(f"rigl-over-static-{s * 100:.0f}", ours=of("rigl", s), baseline=of("static", s))
    run.claim("rigl-over-static", ours=fmean(of("rigl", s) for s in sizes.sparsities),
              baseline=fmean(of("static", s) for s in sizes.sparsities))
    best = max((arm for arm in sparse if (arm.network, arm.width) == ("mlp", first)), key=lambda arm: rows[arm]["held"])
    run.claim("recovers-a-quarter", ours=found[best] - dense, baseline=0.25 * (of("none") - dense))
    run.claim("wide-over-doped", ours=of("rigl"), baseline=of("rigl", family="doped"))
    width = sizes.residual[1]
    run.claim("conv", ours=found[Arm("resnet", width, "wide", MIDDLE, "rigl")], baseline=found[Arm("resnet", width)])


def _draw(run: Run, sizes: Sizes, found: dict[Arm, float]) -> None:
    from matplotlib.figure import Figure

    first = sizes.widths[0]
    dense, upper = (100 * found[arm] for arm in (Arm("mlp", first), Arm("mlp", first, "wide", MIDDLE)))
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (1.1, 1)})
    for masks, colour, style in (("rigl", "#1b6ca8", "o-"), ("static", "#c0504d", "s--")):
        left.plot([100 * s for s in sizes.sparsities],
                  [100 * found[Arm("mlp", first, "wide", s, masks)] for s in sizes.sparsities], style, color=colour,
                  label=f"sparse wide, {'masks that move (RigL)' if masks == 'rigl' else 'masks that stay'}")
    left.axhline(dense, color="#222222", label="dense")
    left.axhline(upper, color="#888888", linestyle=":", label=f"wide dense ({1 / (1 - MIDDLE):.0f}x the inner weights)")
    left.set(xlabel="s (%)", ylabel="test accuracy (%)", title=f"perceptrons from width {first}")
    left.legend(frameon=False, fontsize=8)
    bars = [("wide, RigL", "wide", "rigl"), ("wide, SET", "wide", "set"), ("wide, static", "wide", "static"),
            ("wide, static ERK", "wide", "static ERK"), ("parallel", "parallel", "rigl"),
            ("factorized", "factorized", "rigl"), ("doped", "doped", "rigl")]
    gains = [100 * found[Arm("mlp", first, family, MIDDLE, masks)] - dense for _, family, masks in bars]
    right.barh(range(len(bars)), gains, color=["#1b6ca8" if g >= 0 else "#c0504d" for g in gains], height=0.7)
    right.set_yticks(range(len(bars)), [name for name, *_ in bars])
    right.invert_yaxis()
    right.axvline(0, color="#222222", linewidth=1)
    right.axvline(upper - dense, color="#888888", linestyle=":")
    right.set(xlabel="points over dense, at its multiply-adds", title=f"s = {MIDDLE:.0%}")
    for ax in (left, right):
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    run.figure("iso-flop", figure, caption=(
        "Larger sparse networks at the multiply-adds of the small dense one. Dotted: the wide network with all of its "
        "weights, at several times the multiply-adds."))
