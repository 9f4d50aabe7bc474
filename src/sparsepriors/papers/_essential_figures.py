"""Pictures of the experiment on essential sparsity."""

from __future__ import annotations

import math

from sparsepriors.papers._axes import plain_ticks
from sparsepriors.papers._essential_encoder import Classified
from sparsepriors.papers._essential_training import Emerged
from sparsepriors.runs import Run

_STYLES = {"magnitude": ("#1b4965", "o"), "magnitude in each layer": ("#5fa8d3", "s"), "Wanda": ("#2a9d5c", "D"),
           "SparseGPT": ("#7b4fb5", "v"), "N of 8": ("#e08e0b", "^"), "N of 4": ("#b5532f", "P"),
           "random": ("#888888", "x")}
_CURVE = 3   # points that make a curve; fewer are not joined, as what lies between them was not measured


def draw_reader(run: Run, nats: dict[tuple[str, float], float]) -> None:
    """Perplexity over sparsity: all of it on a logarithmic axis, and the part that is free on a plain one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    dense = math.exp(nats["dense", 0.0])
    for ax in (left, right):
        for method, (colour, marker) in _STYLES.items():
            points = sorted((100 * s, math.exp(v)) for (name, s), v in nats.items() if name == method)
            if len(points) >= _CURVE:
                ax.plot(*zip((0.0, dense), *points, strict=True), color=colour, marker=marker, label=method)
            elif points:
                ax.plot(*zip(*points, strict=True), color=colour, marker=marker, linestyle="none", label=method)
        ax.axhline(1.1 * dense, color="#cc3333", linewidth=0.8, linestyle=(0, (4, 4)))
        ax.set_xlabel("weights of the blocks removed (%)")
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    left.set(yscale="log", ylabel="perplexity")
    plain_ticks(left.yaxis)
    right.set(ylim=(0.9 * dense, 2 * dense), xlim=(-1, 52), ylabel="perplexity")
    left.legend(frameon=False, fontsize=8)
    run.figure("reader", figure, "Perplexity of a decoder pruned once, without fine-tuning. Red: a tenth more than "
               "dense. A logarithmic axis shows how much of the steepness is the exponential; the right one is plain.",
               "Perplexity over sparsity for seven ways to prune")


def draw_classifiers(run: Run, found: Classified) -> None:
    """Accuracy over sparsity on both tasks, and the likeness of masks to those of lottery tickets."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
    for task, method, colour, style, label in (
            ("domain", "magnitude", "#1b4965", "o-", "10 domains, smallest"),
            ("domain", "random", "#1b4965", "x:", "10 domains, random"),
            ("intent", "magnitude", "#e08e0b", "s-", "150 intents, smallest"),
            ("domain", "ticket", "#2a9d5c", "*", "10 domains, lottery ticket")):
        points = sorted((100 * s, 100 * v) for (*key, s), v in found.accuracy.items() if key == [task, method])
        if method != "ticket":
            points = [(0.0, 100 * found.accuracy[task, "dense", 0.0]), *points]
        left.plot(*zip(*points, strict=True), style, color=colour, label=label,
                  markersize=14 if method == "ticket" else 6)
    left.set(xlabel="weights of the blocks removed (%)", ylabel="test sentences right (%)")
    left.legend(frameon=False, fontsize=8)
    cosines = sorted(found.cosines.items())
    right.plot([100 * s for s, _ in cosines], [c for _, c in cosines], "o-", color="#2a9d5c", label="measured")
    right.plot([100 * s for s, _ in cosines], [1 - s for s, _ in cosines], "k:", linewidth=1, label="unrelated masks")
    right.axhline(0.96, color="#cc3333", linewidth=0.8, linestyle=(0, (4, 4)), label="published")
    right.set(xlabel="weights removed (%)", ylabel="cosine with the ticket's mask", ylim=(0.5, 1.02))
    right.legend(frameon=False, fontsize=8, loc="lower left")
    for ax in (left, right):
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    run.figure("classifiers", figure, "A sentence encoder pruned once and fine-tuned with the mask fixed (left); the "
               "same mask beside that of iterative pruning with rewinding (right).",
               "Accuracy over sparsity on two tasks, and the cosine of masks with lottery tickets")


def draw_emergence(run: Run, found: Emerged) -> None:
    """Nearly zero weights along trainings, and accuracy over sparsity after two objectives."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (share, decay), style in zip(found.shares, ("-", "--", ":"), strict=True):
        left.plot(found.steps, [100 * v for v in found.shares[share, decay]], style, color="#1b4965",
                  label=f"{100 * share:g} % of the text, weight decay {decay:g}")
    left.set(xlabel="step", ylabel="weights nearly zero (%)")
    left.legend(frameon=False, fontsize=8)
    for (objective, points), (colour, style) in zip(found.curves.items(), (("#e08e0b", "o-"), ("#2a9d5c", "s-")),
                                                    strict=True):
        right.plot([100 * s for s, _ in points], [100 * v for _, v in points], style, color=colour, label=objective)
    right.set(xlabel="weights of the blocks removed (%)", ylabel="test images right (%)")
    right.legend(frameon=False, fontsize=8, title="learned first from")
    for ax in (left, right):
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    run.figure("emergence", figure, "Left: weights of a BERT below a hundredth of the deviation that their matrix had "
               "at the beginning, along its training on masked words (one seed). Right: a vision transformer that "
               "learned from labels or by filling in hidden patches, pruned once and fine-tuned alike.",
               "Share of nearly zero weights over steps, and accuracy over sparsity after two objectives")
