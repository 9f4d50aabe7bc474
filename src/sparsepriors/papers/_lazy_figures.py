"""Pictures of lazy neurons: how activations become sparse, and what Top-k does."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any

from sparsepriors.imaging.corruptions import SEVERITIES
from sparsepriors.papers._axes import plain_ticks
from sparsepriors.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DENSE, _TOPK = "#1b4965", "#c0392b"
_CAUSES = {"labels": ("random labels", "#d68910"), "inputs": ("random images", "#7d8a2e"),
           "endless": ("random and endless", "#7b4fa3")}


def emergence(run: Run, text: dict[str, Any], images: dict[str, dict[str, Any]], causes: dict[str, Any]) -> None:
    """Active neurons by layer on the way of the training, by cause, and neuron by neuron."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    shades = ["#0b2a3d", "#1b4965", "#4a83a6", "#92bcd6"]
    for layer, path in enumerate(zip(*text["path"], strict=True)):
        left.plot(text["steps"], path, "o-", ms=3, color=shades[layer % 4], label=f"layer {layer + 1}")
    left.set(title="decoder of characters", ylabel="active neurons (%)")
    curves = [(images["dense"], ("images and labels", _DENSE)), (images["longer"], ("the same, longer", "#92bcd6"))]
    curves += [(causes[kind], look) for kind, look in _CAUSES.items()]
    for found, (label, colour) in curves:
        middle.plot(found["steps"], [fmean(p) for p in found["path"]], "o-", ms=3, color=colour, label=label)
    middle.set(title="vision transformer, mean over layers", ylabel="active neurons (%)")
    for ax in (left, middle):
        ax.set_xscale("symlog", linthresh=1)
        marks = [step for step in (0, 1, 10, 100, 1000) if step <= max(text["steps"])]
        ax.set_xticks(marks, [str(step) for step in marks])
        ax.set(xlabel="step")
    for layer, shares in enumerate(text["frequency"]):
        right.plot([100 * i / len(shares) for i in range(len(shares))], [100 * s for s in shares],
                   color=shades[layer % 4], label=f"layer {layer + 1}")
    right.set(title="decoder after training", xlabel="neurons, sorted (%)", ylabel="tokens on which active (%)")
    _finish(left, middle, right)
    run.figure("emergence", figure, caption=(
        "One seed. Left: half of the neurons behind a ReLU are active before training, fewer with every hundred steps. "
        "Middle: the same fall without structure in labels or images. Right: few neurons are active often, few never."))


def topk(run: Run, images: dict[str, Any], noisy: dict[tuple[float, str], Any], decoded: dict[int, Any]) -> None:
    """Accuracy of Top-k twins under noise, and the time of the second matrix."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.5, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    shares = sorted({share for share, _ in noisy})
    for arm, colour, shift in (("dense", _DENSE, -0.18), ("a sixteenth", _TOPK, 0.18)):
        label = "dense" if arm == "dense" else "Top-k, a sixteenth"
        left.bar([i + shift for i in range(len(shares))], [100 * noisy[s, arm]["accuracy"] for s in shares], 0.36,
                 color=colour, label=label)
        middle.bar([i + shift for i in range(len(SEVERITIES) + 1)],
                   [100 * images[arm][k] for k in ("accuracy", *SEVERITIES)], 0.36, color=colour, label=label)
    left.set(title="random labels", xlabel="share of labels (%)", ylabel="accuracy on true labels (%)")
    left.set_xticks(range(len(shares)), [f"{100 * s:g}" for s in shares])
    middle.set(title="noise on the images, mean of 5 severities", ylabel="accuracy (%)")
    middle.set_xticks(range(len(SEVERITIES) + 1), ["none", *SEVERITIES])
    active = sorted(decoded)
    right.plot(active, [decoded[a]["second"] for a in active], "o-", color=_TOPK, label="second matrix")
    right.plot(active, [decoded[a]["whole"] for a in active], "s-", color=_DENSE, label="whole perceptron")
    right.axhline(1, color="black", lw=1)
    right.set(title="one token, one thread", xlabel="active neurons", ylabel="times as fast as dense")
    right.set_xscale("log", base=2)
    right.set_yscale("log", base=2)
    plain_ticks(right.xaxis)
    plain_ticks(right.yaxis)
    _finish(left, middle, right)
    run.figure("topk", figure, caption=(
        "One seed. Left and middle: dense and Top-k twins, trained on the same batches. Right: a perceptron that skips "
        "silent neurons against the dense one."))


def _finish(*axes: Axes) -> None:
    for ax in axes:
        ax.legend(frameon=False, fontsize=8)
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
