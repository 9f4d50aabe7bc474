"""Presets beside each other: the same network, data, recipe and seeds; accuracy, cost, bytes and how masks moved."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sparsepriors import _checks
from sparsepriors.networks.recipe import Examples, Recipe, train_classifier
from sparsepriors.networks.sparse import PRESETS, SparsePlan, preset, sparsity_report
from sparsepriors.networks.sparse.attach import fitting
from sparsepriors.networks.train_loop import TrainState
from sparsepriors.runs.evidence import interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DENSE = "dense"
"""The name of training without a plan, beside those of `PRESETS`."""

CHAIN: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("dense to sparse", ("gmp", "one-shot")), ("dynamic", ("rigl", "set")), ("static random", ("random",)),
    ("random one-shot", ("random-one-shot",)))
"""The order that published tables agree on, from best to worst (ResNet-50 at 80 % in that of JaxPruner)."""

Rows = Sequence[Mapping[str, Any]]
_GROUP = 16
_MEANS = ("density", "train_flops", "train_ratio", "inference_flops", "bytes", "churn", "fired")


def plan_for(name: str, sparsity: float, steps: int, model: nn.Module | None = None) -> SparsePlan | None:
    """The plan of a preset that leaves this share of the weights out; ``None`` for `DENSE`.

    Methods with an N:M pattern get n:16 with n = round(16 (1 - sparsity)); layers that 16 does not divide stay dense
    there. Masks that move or shrink every so often do so some 12 times, at least 4 and at most 100 steps apart: RigL
    takes no step of the optimizer when it moves masks, so that often moving them would cost most of a short training.

    Raises
    ------
    ValueError
        If the name is unknown, the sparsity out of range, the preset has no pattern of this sparsity, or the model,
        where one is given, has no layer that fits it.
    """
    _checks.one_of("preset", name, (DENSE, *PRESETS))
    if not 0 < sparsity < 1:
        raise ValueError(f"sparsity must be between 0 and 1, got {sparsity}")
    if name == DENSE:
        return None
    known = inspect.signature(PRESETS[name]).parameters
    if "density" not in known:
        n = round(_GROUP * (1 - sparsity))
        if not 0 < n < _GROUP:
            raise ValueError(f"{name} has no {n}:{_GROUP} pattern for a sparsity of {sparsity:g}")
        plan = preset(name, n=n, m=_GROUP, skip_unfit=True, **({"every": _every(steps)} if name == "gmp-nm" else {}))
    else:
        plan = preset(name, density=1 - sparsity, **({"every": _every(steps)} if "every" in known else {}))
    total = max(1, steps // plan.schedule.restarts) * plan.schedule.restarts
    plan.check(total)
    if model is not None:
        fitting(model, plan, total)
    return plan


def _every(steps: int) -> int:
    return max(4, min(100, steps // 16))


def measure(make: Callable[[torch.Generator], nn.Module], train: Examples, test: Examples, recipe: Recipe, *, name: str,
            sparsity: float, seed: int, callback: Callable[[TrainState], bool | None] | None = None) -> dict[str, Any]:
    """One row: train a fresh network by one preset and count what it cost.

    Parameters
    ----------
    make
        Builds the network with weights from a generator; every preset starts from the same ones.
    train, test
        Normalised inputs and labels.
    recipe
        How all of them are trained; presets that train in rounds divide its epochs between them.
    name, sparsity, seed
        What is trained, see `plan_for`.
    callback
        Of the training loop.
    """
    generator = torch.Generator().manual_seed(seed)
    model = make(generator)
    plan = plan_for(name, sparsity, recipe.steps(len(train[0])))
    trained = train_classifier(model, train, recipe, plan=plan, generator=generator, test=test, callback=callback)
    steps, report = trained.training.steps, trained.report
    books = sparsity_report(model, example=train[0][:1]) if report is None else report.sparsity
    assert books.macs_dense is not None
    assert books.macs_kept is not None
    whole = 3 * books.macs_dense * steps
    spent = whole if report is None else report.train_macs
    assert spent is not None
    return {"preset": name, "sparsity": sparsity, "seed": seed, "accuracy": trained.accuracy, "steps": steps,
            "density": books.density, "train_flops": 2 * recipe.batch * spent, "train_ratio": spent / whole,
            "inference_flops": 2 * books.macs_kept, "bytes": books.bytes_sparse,
            "churn": 0.0 if report is None else report.churn, "fired": 1.0 if report is None else report.fired,
            "notes": [] if report is None else list(report.notes)}


def summary(rows: Rows) -> list[dict[str, Any]]:
    """One row for each preset and sparsity: the accuracy's mean and 95 % interval over seeds, means of the rest."""
    found: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["preset"], row["sparsity"]), []).append(row)
    table = []
    for (name, sparsity), group in found.items():
        accuracy = interval([r["accuracy"] for r in group])
        table.append({"preset": name, "sparsity": sparsity, "seeds": len(group), "accuracy": accuracy.mean,
                      "low": accuracy.low, "high": accuracy.high,
                      **{m: fmean(r[m] for r in group) for m in _MEANS}})
    return table


def chain(rows: Rows) -> list[dict[str, Any]]:
    """Is the published order of `CHAIN` met? One row for each sparsity and pair of neighbours of which both are there.

    ``difference`` is the better group's accuracy minus the worse one's, paired by seed, with its 95 % interval;
    ``verdict`` is ``"as published"`` or ``"reversed"`` if that interval excludes 0, else ``"undecided"``.
    """
    found = []
    for sparsity in sorted({r["sparsity"] for r in rows if r["preset"] != DENSE}):
        at = [r for r in rows if r["sparsity"] == sparsity]
        means: list[tuple[str, dict[int, float]]] = []
        for group, names in CHAIN:
            by_seed: dict[int, list[float]] = {}
            for r in at:
                if r["preset"] in names:
                    by_seed.setdefault(r["seed"], []).append(r["accuracy"])
            if by_seed:
                means.append((group, {seed: fmean(a) for seed, a in by_seed.items()}))
        for (better, high), (worse, low) in itertools.pairwise(means):
            d = interval([high[s] - low[s] for s in high if s in low])
            sure = d.low is not None and d.high is not None and (d.low > 0 or d.high < 0)
            verdict = "undecided" if not sure or d.mean is None else "as published" if d.mean > 0 else "reversed"
            found.append({"sparsity": sparsity, "better": better, "worse": worse, "difference": d.mean, "low": d.low,
                          "high": d.high, "seeds": d.n, "verdict": verdict})
    return found


COLUMNS = ("method", "sparsity", "accuracy %", "±", "train FLOPs", "of dense", "FLOPs", "bytes", "churn", "seeds")


def cells(table: Rows) -> list[tuple[str, ...]]:
    """The summary as text, column by column as in `COLUMNS`."""
    return [(r["preset"], "-" if r["preset"] == DENSE else f"{r['sparsity']:g}", f"{100 * r['accuracy']:.2f}",
             "-" if r["low"] is None else f"{50 * (r['high'] - r['low']):.2f}", _short(r["train_flops"]),
             f"{r['train_ratio']:.3f}", _short(r["inference_flops"]), f"{r['bytes']:,.0f}", f"{r['churn']:.3f}",
             str(r["seeds"])) for r in table]


def _short(number: float) -> str:
    """Three digits and a prefix: 12.3 G."""
    power = min(5, max(0, int(math.log10(max(1.0, number)) // 3)))
    return f"{number / 1000**power:.3g} {' kMGTP'[power]}".rstrip()


def text(rows: Rows) -> str:
    """Table and order for a terminal."""
    lines = [COLUMNS, *cells(summary(rows))]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    table = ["  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
             for line in lines]
    return "\n".join([*table, *chain_text(chain(rows))])


def chain_text(found: Rows) -> list[str]:
    """One sentence for each row of `chain`."""
    return [f"at {r['sparsity']:g}: {r['better']} over {r['worse']} by {100 * r['difference']:+.2f} points"
            + ("" if r["low"] is None else f" ({100 * r['low']:+.2f} to {100 * r['high']:+.2f})")
            + f", {r['verdict']}" for r in found]


def markdown(rows: Rows) -> str:
    """Table and order as Markdown."""
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *cells(summary(rows))]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    order = "\n".join(f"- {line}" for line in chain_text(chain(rows)))
    return f"{table}\n\n{order}\n" if order else f"{table}\n"


def csv(rows: Rows) -> str:
    """The summary, one line each, numbers in full."""
    table = summary(rows)
    names = list(table[0])
    lines = [names, *([("" if r[n] is None else str(r[n])) for n in names] for r in table)]
    return "\n".join(",".join(line) for line in lines) + "\n"


def figure(rows: Rows) -> Figure:
    """Accuracy over sparsity, and over the cost of training, one line for each preset."""
    from matplotlib.figure import Figure

    table = summary(rows)
    sparse = [r for r in table if r["preset"] != DENSE]
    names = list(dict.fromkeys(r["preset"] for r in sparse))
    levels = sorted({r["sparsity"] for r in sparse})
    fig = Figure(figsize=(11, 4 + 0.2 * math.ceil(len(names) / 6)), layout="constrained")
    left, right = fig.subplots(1, 2, sharey=True)
    for i, name in enumerate(names):
        mine = sorted((r for r in sparse if r["preset"] == name), key=lambda r: r["sparsity"])
        shift = (i - (len(names) - 1) / 2) * 0.5 / max(1, len(names))   # intervals side by side
        style: dict[str, Any] = {"marker": "osD^vPX*"[i % 8], "ms": 5, "lw": 1.3, "color": f"C{i % 10}",
                                 "ls": ("-", "--", ":")[i // 10 % 3]}
        height = [100 * r["accuracy"] for r in mine]
        error = [[0.0 if r["low"] is None else 100 * (r[a] - r[b]) for r in mine]
                 for a, b in (("accuracy", "low"), ("high", "accuracy"))]
        left.errorbar([levels.index(r["sparsity"]) + shift for r in mine], height, yerr=error, capsize=2,
                      elinewidth=0.8, label=name, **style)
        right.plot([r["train_ratio"] for r in mine], height, **style)
    dense = [100 * r["accuracy"] for r in table if r["preset"] == DENSE]
    if dense:
        for axes in (left, right):
            axes.axhline(dense[0], color="0.4", lw=1, ls=(0, (4, 3)))
        left.annotate("dense", (0, dense[0]), xycoords=("axes fraction", "data"), xytext=(4, 3),
                      textcoords="offset points", fontsize=8, color="0.3")
    left.set_xticks(range(len(levels)), [f"{100 * s:g} %" for s in levels])
    left.set(xlabel="weights left out", ylabel="test accuracy, %")
    right.set(xlabel="multiply-adds of training over dense training")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    fig.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    return fig
