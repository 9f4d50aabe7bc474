"""Liu and Wang (2023), a handbook for sparse networks: its subjects as checks, and how well the checks check.

The handbook has no experiments of its own. Measured here are published losses of sparse transformers, faults that were
put into trainings on purpose, a small study of training methods with its costs, and the time of sparse products.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from sparsepriors import _files
from sparsepriors.data.sparsity_scaling_runs import scaling_runs
from sparsepriors.kernels.dispatch import torch_threads
from sparsepriors.networks.audit import (
    Claimed,
    audit,
    dense_equivalent,
    fit_sparsity_law,
    match_dense,
    record_training,
    wins,
)
from sparsepriors.networks.audit.match import weights
from sparsepriors.networks.classification import predict
from sparsepriors.networks.models import model as network
from sparsepriors.networks.recipe import Examples, Recipe, train_classifier
from sparsepriors.networks.reliability import ece
from sparsepriors.networks.sparse import preset
from sparsepriors.papers._images import ImageSizes
from sparsepriors.papers._sparseland_faults import CLEAN, clean, examined, faults, other
from sparsepriors.runs import Claim, Paper, Run, Scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAPER = Paper(
    slug="sparseland-lessons",
    title='Ten Lessons We Have Learned in the New "Sparseland": A Short Handbook for Sparse Neural Network Researchers',
    authors="Shiwei Liu, Zhangyang Wang",
    year=2023,
    url="https://arxiv.org/abs/2302.02596",
    room="networks",
    method=(
        "A training is recorded: method, layers, costs, how masks moved, results of each arm; so are the claims.",
        "Ten checks, one for each subject, compare the two and answer with a number, never by default.",
        "Faults put into real trainings show what the checks find; clean trainings show what they leave alone.",
        "Published losses of 160 transformers show what sparsity is worth in dense weights.",
        "A small study of dense, static, dynamic and gradual training is written up as the checks ask.",
    ),
    claims=(
        Claim("t5-wins", "Of equally many weights and equal steps, every sparse T5 has a lower loss than the dense one "
              "(number of pairs)", "all 36 pairs of the published data", "36"),
        Claim("vit-wins", "The same for vision transformers (number of pairs)", "all 84 pairs of the published data",
              "84"),
        Claim("multipliers", "Dense-equivalent multipliers of T5 at 500,000 steps are the published data's to 0.02 "
              "(largest distance)", "1.97, 2.38, 2.72; 1.79, 2.17, 2.46; 1.68, 2.22, 2.43", "0.02", better="lower"),
        Claim("law-t5", "The scaling law's mean error of log loss on T5 is at most 0.02", "fits within noise", "0.02",
              better="lower"),
        Claim("law-order", "The law orders the T5 trainings as they are (rank correlation of at least 0.99)",
              "not reported", "0.99"),
        Claim("faults-found", "Every fault raises its own finding (share of the faults)", "not in the paper", "1"),
        Claim("clean-passes", "Clean trainings raise no failure, faulty ones none besides their own (number)",
              "not in the paper", "0", better="lower"),
        Claim("few-warnings", "No training raises more than two warnings besides its fault (largest number)",
              "not in the paper", "2", better="lower"),
        Claim("dynamic-over-static", "A tenth of the weights: RigL is not worse than a static random mask (0.002 "
              "allowed)", "74.75 against 71.34 % (ResNet-50, four fifths removed)", "static", margin=-0.002),
        Claim("rigl-over-small-dense", "A tenth of the weights: RigL beats a dense network of equally many weights",
              "stated without numbers", "small dense"),
        Claim("gmp-over-small-dense", "A tenth of the weights: gradual pruning beats that dense network",
              "stated without numbers", "small dense"),
    ),
)

PUBLISHED = {1.327104: (1.97, 2.38, 2.72), 5.308416: (1.79, 2.17, 2.46), 21.233664: (1.68, 2.22, 2.43)}
"""Multipliers at sparsities 0.5, 0.75 and 0.875 by kept weights in millions, read off the same data."""
FAMILIES = {"t5": (1e5, True, 1e-3), "vit": (1e9, False, 1e-2)}
DENSITY = 0.1


@dataclass(frozen=True)
class Sizes(ImageSizes):
    """How much is measured at a scale."""

    hidden: int
    short: int
    long: int
    every: int
    starts: int
    side: int
    densities: tuple[float, ...]
    repeats: int


SIZES = {
    Scale.SMOKE: Sizes("digits8", 1, 640, 0, 300, 48, 3, 3, 3, 2, 256, (0.1, 0.01), 3),
    Scale.DEFAULT: Sizes("fashion-mnist", 2, 3000, 0, 4000, 256, 3, 10, 20, 25, 1024, (0.5, 0.2, 0.1, 0.05, 0.02, 0.01),
                         15),
    Scale.FULL: Sizes("fashion-mnist", 1, 60_000, 0, 10_000, 1024, 5, 60, 100, 100, 4096,
                      (0.5, 0.2, 0.1, 0.05, 0.02, 0.01), 50),
}


@dataclass(frozen=True)
class Bench:
    """Data and recipe of one seed."""

    train: Examples
    test: Examples
    hidden: int
    seed: int

    def net(self, hidden: int | None = None) -> nn.Module:
        """Fresh weights, the same for every arm of this width."""
        width = self.hidden if hidden is None else hidden
        return network("mlp", generator=torch.Generator().manual_seed(self.seed), hidden=(width, width),
                       size=self.train[0].shape[-1])


def run(scale: Scale, seed: int, run: Run) -> None:
    """Look at published losses, at faults, at training methods and at the clock; the seed draws all that is drawn."""
    sizes = SIZES[scale]
    drawn = sizes.draw(run)
    bench = Bench(drawn.train, drawn.test, sizes.hidden, seed)
    with run.progress(4, "auditing") as bar:
        scaling = run.once("scaling", partial(_scaling, sizes, seed))
        bar.advance()
        study = run.once("study", partial(_study, bench, sizes))
        bar.advance()
        found = run.once("faults", partial(_faults, bench, sizes, study["arms"]))
        bar.advance()
        timing = run.once("timing", partial(_timing, sizes, seed))
        bar.advance()
    _files.write_text(run.folder / "audit.md", study["audit"] + "\n")
    for row in (*scaling["rows"], *({"part": "study", "arm": a, **r} for a, r in study["arms"].items()),
                *({"part": "faults", **{k: v for k, v in f.items() if k != "verdicts"}} for f in found["faults"]),
                *({"part": "clean", "arm": name, **r} for name, r in found["clean"].items()), *timing["rows"]):
        run.log(**row)
    arms = study["arms"]
    for family, count in (("t5", 36), ("vit", 84)):
        run.claim(f"{family}-wins", ours=scaling["wins"][family], baseline=count)
    run.claim("multipliers", ours=scaling["farthest"], baseline=0.02)
    run.claim("law-t5", ours=scaling["laws"]["t5"]["error"], baseline=0.02)
    run.claim("law-order", ours=scaling["laws"]["t5"]["rank"], baseline=0.99)
    run.claim("faults-found", ours=fmean(float(f["found"]) for f in found["faults"]), baseline=1.0)
    everything = [*found["faults"], *found["clean"].values()]
    run.claim("clean-passes", ours=sum(r["other_fail"] for r in everything), baseline=0)
    run.claim("few-warnings", ours=max(r["other_warn"] for r in everything), baseline=2)
    for name, ours, baseline in (("dynamic-over-static", "rigl", "static"), ("rigl-over-small-dense", "rigl",
                                 "small-dense"), ("gmp-over-small-dense", "gmp", "small-dense")):
        run.claim(name, ours=arms[ours]["accuracy"], baseline=arms[baseline]["accuracy"])
    _draw(run, scaling, study, found, timing)


def _scaling(sizes: Sizes, seed: int) -> dict[str, Any]:
    from scipy.stats import spearmanr

    rows: list[dict[str, Any]] = []
    laws, counts, farthest = {}, {}, 0.0
    for family, (unit, logarithms, delta) in FAMILIES.items():
        runs = scaling_runs(family)
        counts[family] = wins(runs)[0]
        fit = partial(fit_sparsity_law, unit=unit, logarithms=logarithms, delta=delta, starts=sizes.starts)
        law = fit(runs, generator=torch.Generator().manual_seed(seed))
        predicted, loss = law.loss(runs), np.array([r.loss for r in runs])
        rank: Any = spearmanr(predicted, loss)
        largest = max(r.kept for r in runs)
        outside = [r for r in runs if r.kept == largest]
        held = fit([r for r in runs if r.kept < largest], generator=torch.Generator().manual_seed(seed))
        missed = np.abs(np.log(held.loss(outside) / np.array([r.loss for r in outside])))
        laws[family] = {"error": float(np.abs(np.log(predicted / loss)).mean()), "rank": float(rank.statistic),
                        "largest_left_out": float(missed.mean())}
        rows.append({"part": "law", "family": family, "wins": counts[family], "pairs": wins(runs)[1], **laws[family]})
        for r in runs:
            if family == "t5" and r.sparsity > 0 and r.data == 500_000:
                times = dense_equivalent(runs, r)
                rows.append({"part": "multiplier", "family": family, "kept_millions": r.kept / 1e6,
                             "sparsity": r.sparsity, "multiplier": -1.0 if times is None else times})
                known = PUBLISHED.get(round(r.kept / 1e6, 6))
                if known is not None and times is not None:
                    farthest = max(farthest, abs(times - known[(0.5, 0.75, 0.875).index(r.sparsity)]))
    return {"rows": rows, "laws": laws, "wins": counts, "farthest": farthest}


def _study(bench: Bench, sizes: Sizes) -> dict[str, Any]:
    """Dense, small dense, static, SET, RigL and gradual pruning, trained alike; two also from rescaled weights."""
    recipe = Recipe(epochs=sizes.long, batch=128, rate=0.05)
    plans = {"static": preset("random", density=DENSITY), "set": preset("set", density=DENSITY, every=sizes.every),
             "rigl": preset("rigl", density=DENSITY, every=sizes.every),
             "gmp": preset("gmp", density=DENSITY, every=sizes.every)}
    plans |= {f"{arm} rescaled": replace(plans[arm], scale_init=True) for arm in ("static", "rigl")}
    target = DENSITY * weights(bench.net())
    width = match_dense(bench.net, target, weights, high=bench.hidden)
    arms: dict[str, dict[str, Any]] = {}
    text = ""
    for arm in ("dense", "small-dense", *plans):
        net = bench.net(width if arm == "small-dense" else None)
        size, start = weights(net), time.perf_counter()
        trained = train_classifier(net, bench.train, recipe, plan=plans.get(arm), test=bench.test,
                                   generator=torch.Generator().manual_seed(bench.seed))
        seconds, report = time.perf_counter() - start, trained.report
        cost = size / weights(bench.net()) if report is None else report.train_ratio
        arms[arm] = {"accuracy": trained.accuracy, "train_cost": cost, "seconds": seconds,
                     "kept": size if report is None else sum(r.nnz for r in report.sparsity.layers),
                     "ever_kept": 1.0 if report is None else report.fired,
                     "ece": ece(predict(net, bench.test[0]), bench.test[1])}
        if arm == "rigl":
            assert report is not None
            settings = recipe.to_dict()
            record = record_training(
                plans[arm], report, net, batch=recipe.batch, baseline_steps=report.steps, settings=settings,
                baseline_settings=settings, baseline_train_macs=report.train_macs_dense, search_trials=0,
                dense_storage=True, selected_on="train", tasks=1, ece=arms[arm]["ece"],
                accuracies={"sparse": (trained.accuracy,),
                            **{a: (arms[a]["accuracy"],) for a in ("dense", "small-dense")}})
            text = audit(record, (Claimed("sparsity", 1 - DENSITY), Claimed("same-budget"))).to_markdown()
    return {"arms": arms, "width": width, "audit": text}


def _faults(bench: Bench, sizes: Sizes, arms: dict[str, dict[str, Any]]) -> dict[str, Any]:
    recipe = Recipe(epochs=sizes.short, batch=128, rate=0.05)
    known = {arm: float(arms[arm]["accuracy"]) for arm in ("dense", "small-dense")}
    runs = {name: clean(name, bench.net, bench.train, bench.test, recipe, known, bench.seed) for name in CLEAN}
    return {"faults": [examined(fault) for fault in faults(runs, bench.train)],
            "clean": {name: other(audit(r.record, r.claims)) for name, r in runs.items()}}


def _timing(sizes: Sizes, seed: int) -> dict[str, Any]:
    """Dense and compressed-sparse-row products by PyTorch, median of several, one after the other."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for density in sizes.densities:
        weight = torch.randn(sizes.side, sizes.side, generator=generator)
        weight *= torch.rand(weight.shape, generator=generator) < density
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
            packed = weight.to_sparse_csr()
        for batch in (1, 64):
            x = torch.randn(sizes.side, batch, generator=generator)
            times = {"dense": [], "csr": []}
            with torch_threads(1):
                for _ in range(sizes.repeats):
                    for name, matrix in (("dense", weight), ("csr", packed)):
                        start = time.perf_counter()
                        torch.matmul(matrix, x)
                        times[name].append(time.perf_counter() - start)
            rows.append({"part": "timing", "density": density, "batch": batch,
                         "csr_over_dense_speed": median(times["dense"]) / median(times["csr"])})
    return {"rows": rows}


def _draw(run: Run, scaling: dict[str, Any], study: dict[str, Any], found: dict[str, Any],
          timing: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 8.6), layout="constrained")
    axes = figure.subplots(2, 2)
    runs = scaling_runs("t5")
    for sparsity, colour in ((0.0, "black"), (0.5, "#9ecae1"), (0.75, "#4292c6"), (0.875, "#08519c")):
        points = sorted((r.kept / 1e6, r.loss) for r in runs if r.sparsity == sparsity and r.data == 500_000)
        axes[0, 0].plot(*zip(*points, strict=True), "o-", color=colour, label=f"{sparsity:g} zeros" if sparsity else
                        "dense")
    axes[0, 0].set(xscale="log", xlabel="weights that are kept (millions)", ylabel="validation loss",
                   title="T5 on C4, 500,000 steps: sparse beats dense of equal size")
    axes[0, 0].legend(frameon=False)
    _draw_faults(axes[0, 1], found["faults"])
    for (arm, r), marker in zip(study["arms"].items(), "oPsDv^<>", strict=True):
        axes[1, 0].plot(r["train_cost"], 100 * r["accuracy"], marker, label=arm, markersize=8)
    axes[1, 0].legend(frameon=False)
    axes[1, 0].set(xlabel="multiply-adds of training, over dense", ylabel="test accuracy (%)", xlim=(0, 1.15),
                   title="A tenth of the weights: accuracy has a price in training")
    for batch, style in ((1, "o-"), (64, "s-")):
        points = [(r["density"], r["csr_over_dense_speed"]) for r in timing["rows"] if r["batch"] == batch]
        axes[1, 1].plot(*zip(*points, strict=True), style, label=f"batch {batch}, measured")
    densities = sorted({r["density"] for r in timing["rows"]})
    axes[1, 1].plot(densities, [1 / d for d in densities], ":", color="grey", label="by multiply-adds")
    axes[1, 1].axhline(1, color="black", lw=0.8)
    axes[1, 1].set(xscale="log", yscale="log", xlabel="density", ylabel="times as fast as dense",
                   title="Compressed sparse rows: work saved, time saved")
    axes[1, 1].legend(frameon=False)
    for ax in (axes[0, 0], axes[1, 0], axes[1, 1]):
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    run.figure("lessons", figure, caption=(
        "Top left: published losses. Top right: what the ten checks say of trainings with one fault each; a frame "
        "marks the lesson that the fault breaks. Bottom: a small study with its costs, and the time of a sparse "
        "product (one seed)."))


def _draw_faults(ax: Axes, rows: list[dict[str, Any]]) -> None:
    lessons = [f"L{i}" for i in range(1, 11)]
    colours = {"pass": "#d9ead3", "warn": "#ffd966", "fail": "#e06666", "na": "#eeeeee"}
    for y, row in enumerate(rows):
        for x, lesson in enumerate(lessons):
            mine = row["expected"].split(".")[0] == lesson
            ax.barh(y, 0.92, left=x - 0.46, height=0.84, color=colours[row["verdicts"][lesson]],
                    edgecolor="black" if mine else "none", linewidth=1.6)
    ax.set_xticks(range(len(lessons)), lessons)
    ax.set_yticks(range(len(rows)), [r["fault"] for r in rows], fontsize=8)
    ax.set(ylim=(len(rows) - 0.4, -0.6), xlim=(-0.6, 9.6), title="Faults (rows) and checks: fail red, warning yellow")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
