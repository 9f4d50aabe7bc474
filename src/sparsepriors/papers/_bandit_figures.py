"""Figures of the sparse bandits, from their rows."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOOKS = {
    "elimination": ("C0", "o"),
    "sweep": ("C0", "s"),
    "spanner": ("C2", "o"),
    "l1 recovery": ("C4", "^"),
    "Lasso": ("C4", "v"),
    "least squares": ("C3", "D"),
    "LinUCB": ("C1", "P"),
    "LinUCB, a tenth of the bonus": ("C1", "X"),
    "all actions": ("0.5", "*"),
    "any order": ("0.5", "*"),
}

Rows = list[dict[str, Any]]


def draw_algorithms(rows: Rows) -> Figure:
    """Suboptimality against queries, one panel for each trap."""
    problems = sorted({(r["dim"], r["sparsity"]) for r in rows}, reverse=True)
    figure, axes = _panels(len(problems))
    for axis, (d, s) in zip(axes, problems, strict=True):
        here = [r for r in rows if (r["dim"], r["sparsity"]) == (d, s)]
        for r in here:
            color, marker = _LOOKS[r["algorithm"]]
            axis.plot(r["queries"], r["loss"], marker, color=color, markersize=8, label=r["algorithm"], alpha=0.85)
        axis.axhline(next(r["bound"] for r in here if r["algorithm"] == "elimination"), color="C0", linestyle="--",
                     linewidth=1)
        axis.set_xscale("log")
        axis.set_title(f"d = {d}, s = {s}")
        axis.set_xlabel("queries")
    axes[0].set_ylabel("suboptimality / epsilon")
    _legend(figure, axes)
    return figure


def draw_growth(rows: Rows, signs: Rows) -> Figure:
    """Error and queries over the dimension, on the traps and, the error alone, with features of signs."""
    figure, axes = _panels(3)
    dims = sorted({r["dim"] for r in rows})
    panels = ((rows, "loss", "suboptimality / epsilon"), (rows, "queries", "queries"),
              (signs, "loss", "suboptimality / epsilon, signs"))
    for axis, (shown, column, label) in zip(axes, panels, strict=True):
        algorithms = list(dict.fromkeys(r["algorithm"] for r in shown))
        for algorithm in reversed(algorithms):   # the first on top, where they coincide
            means = [fmean(r[column] for r in shown if r["algorithm"] == algorithm and r["dim"] == d) for d in dims]
            _curve(axis, dims, means, algorithm)
        axis.set_xlabel("dimension d")
        axis.set_ylabel(label)
    axes[1].set_xscale("log")
    axes[1].set_yscale("log")
    axes[1].set_xticks(dims, labels=[str(d) for d in dims])
    axes[1].minorticks_off()
    _legend(figure, axes)
    return figure


def draw_needle(rows: Rows, relaxed: Rows) -> Figure:
    """Queries until the needle is found over the number of coordinates."""
    figure, axes = _panels(1)
    axis = axes[0]
    sizes = {r["sparsity"]: r["actions"] for r in rows}
    axis.plot(list(sizes), list(sizes.values()), color="0.6", linestyle=":", label="actions")
    axis.fill_between(list(sizes), 0.5, [n / 3 for n in sizes.values()], color="0.92")
    for algorithm in dict.fromkeys(r["algorithm"] for r in rows):
        here = [r for r in rows if r["algorithm"] == algorithm]
        _curve(axis, [r["sparsity"] for r in here], [r["queries"] for r in here], algorithm)
    axis.plot([r["sparsity"] for r in relaxed], [r["queries"] for r in relaxed], "o--", color="C2",
              label="spanner, error s epsilon")
    axis.set_yscale("log")
    axis.set_xlabel("coordinates s")
    axis.set_ylabel("queries")
    _legend(figure, axes)
    return figure


def _panels(n: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(3.2 * n, 6.4), 4.2), layout="constrained")
    return figure, list(figure.subplots(1, n, squeeze=False)[0])


def _curve(axis: Axes, x: list[float], y: list[float], algorithm: str) -> None:
    color, marker = _LOOKS[algorithm]
    axis.plot(x, y, color=color, marker=marker, label=algorithm)


def _legend(figure: Figure, axes: list[Axes]) -> None:
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
