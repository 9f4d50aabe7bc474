"""Pictures of radar volumes: projections of the magnitude, and PSNR over iterations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sparsepriors.operators.radar import VoxelGrid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = {"adjoint": "adjoint", "backprojection": "back-projection", "kirchhoff": "Kirchhoff", "l1": "l1", "tv": "TV",
         "tv-inexact": "TV, five steps", "network": "learned prior", "zero-phase": "zero phase",
         "real-imaginary": "real, imaginary"}
_ORDER = tuple(NAMES)
_INK, _ACCENT = "#2b2b33", "#b8500b"
_LABEL = 11.0   # points between the labels of lines that end together


def projections(truth: Tensor | None, images: Mapping[str, tuple[Tensor, float]],
                grid: VoxelGrid | None = None) -> Figure:
    """Maximum-intensity projections along range (as the array sees it) and along height, one column per image.

    ``images`` holds magnitudes with maximum 1, shape ``(x, y, z)``, and their PSNR in dB (NaN: not shown); ``grid`` is
    the scene, that of the paper by default.
    """
    from matplotlib.figure import Figure

    scene = grid or VoxelGrid.box((-0.15, -0.15, 0.35), (0.15, 0.15, 0.65), (2, 2, 2))
    x, y, z = ((100 * float(a[0]), 100 * float(a[-1])) for a in (scene.x, scene.y, scene.z))
    columns = [] if truth is None else [("truth", truth, math.nan)]
    columns += [(NAMES[m], *images[m]) for m in _ORDER if m in images]
    blocks = 1 if len(columns) <= 5 else 2
    across = math.ceil(len(columns) / blocks)
    fig = Figure(figsize=(1.85 * across + 0.4, 4.35 * blocks))
    outer = fig.add_gridspec(blocks, 1, hspace=0.27)
    for block in range(blocks):
        pair = outer[block].subgridspec(2, across, hspace=0.04, wspace=0.05)
        for i, (name, volume, psnr) in enumerate(columns[block * across:(block + 1) * across]):
            front, above = fig.add_subplot(pair[0, i]), fig.add_subplot(pair[1, i])
            _show(front, volume.amax(2), (*x, *y))
            _show(above, volume.amax(1), (*x, *z))
            if i == 0:
                _measure(front, "seen from the array\ny (cm)", y)
                _measure(above, "seen from above\nrange (cm)", z)
                above.set_xticks(x, labels=[f"{v:g}" for v in x], fontsize=7)
                above.set_xlabel("x (cm)", color=_INK, fontsize=8, labelpad=-4)
            ours = name == NAMES["network"]
            front.set_title(name if math.isnan(psnr) else f"{name}\n{psnr:.1f} dB", fontsize=11,
                            color=_ACCENT if ours else _INK, fontweight="bold" if ours else "normal")
    return fig


def _show(ax: Axes, plane: Tensor, extent: tuple[float, float, float, float]) -> None:
    ax.imshow(plane.T.numpy(), origin="lower", cmap="inferno", vmin=0, vmax=1, extent=extent, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])


def _measure(ax: Axes, side: str, ends: tuple[float, float]) -> None:
    ax.set_yticks(ends, labels=[f"{v:g}" for v in ends], fontsize=7)
    for label, side_of_tick in zip(ax.get_yticklabels(), ("bottom", "top"), strict=True):
        label.set_verticalalignment(side_of_tick)   # the plane below has an end there, too
    ax.set_ylabel(side, color=_INK, fontsize=9, labelpad=-4)


def traces(psnr: Mapping[str, Tensor]) -> Figure:
    """PSNR over iterations, one line per method, labelled at its end."""
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke

    fig = Figure(figsize=(7.2, 4.0))
    ax = fig.subplots()
    colors: dict[str, Any] = {}
    for method in (m for m in _ORDER if m in psnr):
        ours = method == "network"
        (line,) = ax.plot(range(1, len(psnr[method]) + 1), psnr[method].tolist(), lw=2.6 if ours else 1.5,
                          zorder=3 if ours else 2)
        colors[method] = line.get_color()
    ax.set_xscale("log")
    ax.set_xlim(1, ax.get_xlim()[1] * 1.6)
    low, high = ax.get_ylim()
    points = 72 * fig.get_figheight() * ax.get_position().height / (high - low)   # of a decibel
    highest: dict[int, float] = {}
    for method in sorted(colors, key=lambda m: float(psnr[m][-1])):
        last, end = len(psnr[method]), float(psnr[method][-1])
        at = max(end, highest.get(last, low) + _LABEL / points)
        highest[last] = at
        ax.annotate(NAMES[method], (last, end), textcoords="offset points", xytext=(5, points * (at - end) - 3),
                    color=colors[method], fontsize=9, fontweight="bold" if method == "network" else "normal",
                    path_effects=[withStroke(linewidth=3, foreground="white")])
    ax.set_xlabel("iteration")
    ax.set_ylabel("PSNR (dB)")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25)
    return fig
