"""Pictures of the matching pursuit autoencoders: Gram matrices, recovery, real signals, modalities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparsepriors.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"MP": "#1b4965", "L1": "#c0392b", "TopK": "#d68910", "BatchTopK": "#7d8a2e", "Matryoshka": "#7b4fa3"}
_SHOWN = 0.4   # the rho whose Gram matrices are shown, or the nearest


def gram(run: Run, tree: dict[float, dict[str, Any]], arms: Sequence[str]) -> None:
    """The products of features, true and learned."""
    from matplotlib.figure import Figure

    rho = min(tree, key=lambda r: abs(r - _SHOWN))
    found = tree[rho]
    figure = Figure(figsize=(12.5, 2.9), layout="constrained")
    axes = figure.subplots(1, len(arms) + 1)
    shown = [("true", found["true"], ""), *((arm, found[arm]["gram"], f": error {found[arm]['gram_error']:.2f}")
                                             for arm in arms)]
    picture = None
    for ax, (name, matrix, note) in zip(axes, shown, strict=True):
        picture = ax.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest")
        ax.set_title(name + note, color=COLOURS.get(name, "black"), fontsize=10)
        ax.set_xticks([])
        ax.set_yticks([])
    assert picture is not None
    figure.colorbar(picture, ax=axes, shrink=0.8, label="cosine")
    run.figure("gram", figure, caption=(
        f"Cosines between features of the tree at rho = {rho:g}, true ones and atoms matched to them (one seed). Rows "
        f"0, 4 and 8 are parents, each before its three children; the last eight have none."))


def recovery(run: Run, tree: dict[float, dict[str, Any]], arms: Sequence[str]) -> None:
    """Recovery of the tree against the correlation within its levels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.4), layout="constrained")
    shown = (("cosine", "mean cosine with the true features"),
             ("child_on_parent", "children on their parents, |cosine|"), ("gram_error", "error of the Gram matrix"))
    for ax, (name, title) in zip(figure.subplots(1, 3), shown, strict=True):
        for arm in arms:
            ax.plot(list(tree), [found[arm][name] for found in tree.values()], "o-", color=COLOURS[arm], label=arm)
        ax.set(title=title, xlabel="cosine within a level (rho)")
        _plain(ax)
    figure.axes[0].legend(frameon=False, loc="lower left")
    run.figure("recovery", figure, caption=(
        "How well four autoencoders of equal activity find a tree of 20 features (one seed). Truly, children are "
        "orthogonal to their parents."))


def real(run: Run, found: dict[str, dict[str, Any]], depths: Sequence[int], trained: int) -> None:
    """Variance explained against activity in training and at inference, and the Babel functions."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6.4), layout="constrained")
    above, below = figure.subplots(2, len(found), squeeze=False)
    for column, (kind, measured) in enumerate(found.items()):
        ax, later = above[column], below[column]
        for arm in ("MP", "TopK", "BatchTopK", "L1"):
            rows = [row for row in measured["rows"] if row["arm"] == arm]
            ax.plot([row["l0"] for row in rows], [row["r2"] for row in rows], "o-", color=COLOURS[arm], label=arm)
        ax.set(title=kind, xlabel="active latents, trained for each", xscale="log")
        ticks = sorted({row["k"] for row in measured["rows"]})
        ax.set_xticks(ticks, [str(k) for k in ticks])
        ax.xaxis.set_minor_formatter("")
        later.plot(depths, measured["mp_steps"], color=COLOURS["MP"], label="MP")
        later.plot(depths, measured["topk_steps"], color=COLOURS["TopK"], label="TopK")
        later.axvline(trained, color="grey", ls=":")
        low = min(measured["mp_steps"])
        later.set(xlabel=f"active latents at inference, trained with {trained}", ylim=(low - 0.35, 1.02))
        for panel in (ax, later):
            _plain(panel)
    for panel in (above[0], below[0]):
        panel.set_ylabel("R2 on held-out signals")
        panel.legend(frameon=False)
    run.figure("real", figure, caption=(
        f"Variance explained on tokens of MiniLM, pixels of Fashion-MNIST and feature maps of EfficientNet-Lite0. "
        f"Above: one training for each number of active latents. Below: the autoencoders trained with {trained}, used "
        f"with other numbers (one seed; values of TopK far below are cut off)."))


def modal(run: Run, found: dict[str, Any]) -> None:
    """Where the energy of codes of images and captions is."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.9), layout="constrained")
    axes = figure.subplots(1, len(found), sharey=True)
    for ax, (arm, measured) in zip(axes, found.items(), strict=True):
        ax.hist(measured["scores"], bins=20, range=(0, 1), weights=measured["energy"], color=COLOURS[arm])
        ax.axvspan(0.2, 0.8, color="grey", alpha=0.15)
        ax.set(title=f"{arm}: {100 * measured['shared_energy']:.0f} % shared", xlabel="modality score")
        _plain(ax)
    axes[0].set_ylabel("share of energy")
    run.figure("modal", figure, caption=(
        "Energy of codes by the modality score of their latents: 0 captions only, 1 images only; shaded, latents of "
        "both (one seed)."))


def _plain(ax: Axes) -> None:
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
