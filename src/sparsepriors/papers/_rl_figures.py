"""Figures of the sparsity of updates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sparsepriors.papers._rl_arms import METHODS, ArmSizes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LABELS = {"sft-out": "imitated\nsubtractions", "sft-in": "imitated\nadditions", "rft": "own right\nadditions",
           "grpo": "rewarded\nadditions", "dpo-in": "pairs of\nadditions", "dpo-out": "pairs of\nsubtractions"}
_COLOURS = {"sft-out": "#c1121f", "grpo": "#1b4965"}


def draw_sparsity(sizes: ArmSizes, arms: dict[tuple[str, float], dict[str, Any]]) -> Figure:
    """Sparsity of every method at one rate, in both types, and of two methods over rates with the floor."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(11, 4), layout="constrained")
    left, right = fig.subplots(1, 2, width_ratios=(1.5, 1))
    place, middle = np.arange(len(METHODS)), sizes.rates[1]
    bars = left.bar(place, [arms[name, middle]["bf16"] for name in METHODS], 0.6, color="#1b4965", label="bfloat16")
    left.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)
    left.plot(place, [arms[name, middle]["fp32"] for name in METHODS], "D", color="#e9a23b", label="float32",
              clip_on=False, zorder=3)
    left.axhline(arms["grpo", middle]["floor"], color="#c1121f", lw=1, ls=":", label="floor of rounding")
    left.set_xticks(place, [_LABELS[name] for name in METHODS], fontsize=8)
    left.set(ylabel="share of unchanged entries", ylim=(0, 1), title=f"learning rate {middle:g}, {sizes.steps} steps")
    for name, colour in _COLOURS.items():
        right.plot(sizes.rates, [arms[name, rate]["bf16"] for rate in sizes.rates], "o-", color=colour,
                   label=_LABELS[name].replace("\n", " "))
    right.plot(sizes.rates, [arms["grpo", rate]["floor"] for rate in sizes.rates], "s:", color="black",
               label="floor of rounding")
    right.set(xscale="log", xlabel="learning rate", ylabel="share of unchanged entries, bfloat16", ylim=(0, 1),
              title="the rate moves both")
    right.set_xticks(sizes.rates, [f"{rate:g}" for rate in sizes.rates])
    right.minorticks_off()
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    return fig


def draw_matrices(shares: dict[str, float]) -> Figure:
    """Changed entries by tensor."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(6.5, 0.28 * len(shares) + 1), layout="constrained")
    axis = fig.subplots()
    names = sorted(shares, key=lambda name: shares[name])[::-1]
    bars = axis.barh(names, [1 - shares[name] for name in names], color=[
        "#8d99ae" if "norm" in name else "#1b4965" for name in names])
    axis.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)
    axis.set(xlabel="share of changed entries, bfloat16", xlim=(0, 1))
    axis.spines[["top", "right"]].set_visible(False)
    return fig


def draw_dynamics(path: dict[str, Any]) -> Figure:
    """Sparsity over the steps of one training."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(6, 3.4), layout="constrained")
    axis = fig.subplots()
    axis.plot([0, *path["steps"]], [1, *path["from_start"]], "o-", color="#1b4965", label="as at the start")
    axis.plot(path["steps"], path["between"], "s--", color="#2a9d8f", label="as in the copy before")
    axis.set(xlabel="step", ylabel="share of entries, bfloat16", ylim=(0, 1.02))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
    return fig


def draw_variants(reward: dict[str, Any], others: dict[str, dict[str, Any]]) -> Figure:
    """Sparsity of other ways to reward beside that of the plain one."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(7, 3.2), layout="constrained")
    axis = fig.subplots()
    names = list(others)[::-1]
    bars = axis.barh(names, [others[name]["bf16"] for name in names], 0.6, color="#1b4965")
    axis.bar_label(bars, fmt="%.3f", fontsize=8, padding=-32, color="white")
    axis.axvline(reward["bf16"], color="#c1121f", lw=1.2, ls=":", label=f"reward, {reward['bf16']:.3f}")
    axis.set(xlabel="share of unchanged entries, bfloat16", xlim=(0, 1))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1))
    return fig
