"""Figures of the experiment on crosscoders."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any

from sparsepriors.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_L1, _TOPK, _GREY = "#c0392b", "#1f618d", "#8a8f94"
_EDGES = [i / 40 for i in range(41)]
_BARS = ("none", "worst half", "random half", "worst by delta", "best half", "best by delta", "leaning", "template",
         "all", "error", "reconstruction")
_NAMES = {"none": "nothing", "worst half": "less specific half", "random half": "random half (mean of 5)",
          "worst by delta": "smaller differences", "best half": "more specific half",
          "best by delta": "larger differences", "leaning": "all leaning latents", "template": "template tokens",
          "all": "all latents", "error": "the error alone", "reconstruction": "reconstruction"}


def draw_planted(run: Run, l1: dict[str, Any], topk: dict[str, Any]) -> None:
    """Norm differences of both crosscoders, and the ratios of Latent Scaling of their chat-only latents."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.3, 1, 1))
    for row, name, colour in ((l1, "L1", _L1), (topk, "BatchTopK", _TOPK)):
        left.hist(row["delta"], bins=_EDGES, histtype="step", color=colour, linewidth=1.6,
                  label=f"{name}: {row['chat_only']} chat-only, {row['false']} of them false")
    left.set(xlabel="relative norm difference: base only 0, shared 1/2, chat only 1", ylabel="latents", yscale="log")
    left.set_ylim(top=8 * left.get_ylim()[1])   # room for the legend
    left.legend(fontsize=8, frameon=False, loc="upper left")
    for ax, row, name in ((middle, l1, "L1"), (right, topk, "BatchTopK")):
        for kind, marker, colour in ((True, "o", _TOPK), (False, "x", _L1)):
            points = [nu for nu, true in zip(row["chat_only_nu"], row["chat_only_true"], strict=True) if true is kind]
            label = f"{'in the second model alone' if kind else 'false'} ({len(points)})"
            ax.scatter([p[1] for p in points], [p[0] for p in points], marker=marker, s=26, color=colour, label=label)
        _ratios(ax)
        ax.set_title(f"chat-only latents of {name}")
        ax.legend(fontsize=8, frameon=False, loc="upper right")
    run.figure("planted", figure, caption=(
        "Planted features, crosscoders of equal error (one seed). Left: relative norm difference of all latents that "
        "fire. Middle and right: what Latent Scaling finds of the chat-only latents' concepts in the base model. The "
        "box holds what counts as specific."))


def draw_chat(run: Run, diff: dict[str, Any], patched: dict[str, dict[str, float]], models: dict[str, Any]) -> None:
    """Norm differences, ratios of the leaning latents, and the divergence that patching leaves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.4))
    left.hist(diff["delta"], bins=_EDGES, color=_TOPK)
    left.set(xlabel="relative norm difference", ylabel="latents", yscale="log")
    left.set_title("base only 0, fine-tuned model only 1", fontsize=11)
    shade = middle.scatter([nu[1] for nu in diff["leaning_nu"]], [nu[0] for nu in diff["leaning_nu"]], s=22,
                           c=diff["leaning_delta"], cmap="viridis")
    _ratios(middle)
    middle.set_title("latents that lean to it", fontsize=11)
    figure.colorbar(shade, ax=middle, label="relative norm difference")
    left_over = {**patched, "random half": {
        part: fmean(kl[part] for name, kl in patched.items() if name.startswith("random half"))
        for part in ("all", "first", "rest")}}
    places = range(len(_BARS))
    right.barh(places, [left_over[b]["all"] for b in _BARS],
               color=[_GREY if b in ("none", "all", "error", "reconstruction", "template") else _TOPK for b in _BARS])
    right.set_yticks(places, [_NAMES[b] for b in _BARS])
    right.invert_yaxis()
    right.set(xlabel="KL(fine-tuned || patched) per answer token, nats", title="what is patched into the base model")
    right.title.set_fontsize(11)
    run.figure("chat", figure, caption=(
        f"A model fine-tuned on dialogues (one seed; cross-entropy of held-out answers {models['base_answers']:.2f} "
        f"before and {models['chat_answers']:.2f} after). Left: relative norm difference of the latents that fire. "
        f"Middle: ratios of Latent Scaling, but for those outside of the frame. Right: divergence that is left when "
        f"the fine-tuned model goes on from the base model's activations with these changes."))


def _ratios(ax: Axes) -> None:
    from matplotlib.patches import Rectangle

    from sparsepriors.dictionaries.model_diff import NU_ERROR, NU_RECONSTRUCTION

    ax.add_patch(Rectangle((-0.2, -0.2), 0.2 + NU_RECONSTRUCTION, 0.2 + NU_ERROR, fill=False, edgecolor=_GREY,
                           linewidth=1))
    ax.set(xlim=(-0.2, 1.3), ylim=(-0.2, 1.1), xlabel="in the base reconstruction (latent decoupling)",
           ylabel="in the base error (complete shrinkage)")
