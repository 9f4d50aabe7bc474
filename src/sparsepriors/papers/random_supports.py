"""Chandrasekaran, Meka, Stavropoulos (2025): sparse regression with any design, for most supports.

The paper is theory, without an experiment, and its text beyond the abstract was not available: how the coordinates are
found, the designs and all numbers are a reconstruction, and none of them is one of the paper's.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sparsepriors.data.designs import DESIGNS, SPECTRA, spectra, tree_design, worst_case_signal
from sparsepriors.operators import Matrix
from sparsepriors.regression import best_subset
from sparsepriors.regression.preconditioner import Preconditioner, find_preconditioner, random_supports
from sparsepriors.runs import Claim, Paper, Run, Scale
from sparsepriors.solvers import orthogonal_matching_pursuit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_THEOREM = "a theorem, no experiment"
_RELATED = "related work needs well-conditioned designs"

PAPER = Paper(
    slug="random-supports",
    title="Sparse Linear Regression is Easy on Random Supports",
    authors="Gautam Chandrasekaran, Raghu Meka, Konstantinos Stavropoulos",
    year=2025,
    url="https://arxiv.org/abs/2511.06211",
    room="regression",
    method=(
        "A signal is expensive for the Lasso when its coefficients are huge and cancel: columns nearly depend.",
        "If random supports are expensive, many columns lie near the span of a few: draw k, keep those far apart.",
        "Subtract what these explain from all columns near their span, rescale, and repeat until supports are cheap.",
        "Run the Lasso in the new coordinates; they depend on the design alone and serve every response.",
        "Coordinates cannot serve all supports at once; whether structured ones stay expensive is measured.",
    ),
    claims=(
        Claim("cost-bounded", "Clusters, walk, tree: 95 % of fresh random supports cost at most 8 k afterwards (worst "
              "design and k, in units of k)", _THEOREM, "8", better="lower"),
        Claim("cost-tenth", "Clusters and tree: the 95 % cost falls to a tenth or less (ratio, worst design and k)",
              _THEOREM, "0.1", better="lower"),
        Claim("over-lasso", "Clusters and tree: at the strengths of the theory the error is at most a quarter of the "
              "Lasso's (ratio, worst design and k)", _RELATED, "0.25", better="lower"),
        Claim("over-ridge", "Clusters and tree: the error is at most half that of the best ridge (ratio, worst design "
              "and k)", _RELATED, "0.5", better="lower"),
        Claim("over-lasso-walk", "Walk: at the strengths of the theory the error is at most half the Lasso's (ratio, "
              "worst k)", _RELATED, "0.5", better="lower"),
        Claim("never-worse", "Independent, geometric and measured designs: at the strengths of the theory never more "
              "than 1.1 times the Lasso's error (ratio, worst design and k)", "not reported", "1.1", better="lower"),
        Claim("over-any-lasso", "Clusters, walk and tree: no strength makes the Lasso as good (ratio of the errors at "
              "the best strength of each, worst design and k)", _RELATED, "1", better="lower"),
        Claim("over-any-lasso-mixed", "Half independent columns, half clusters: at most half the error of the Lasso at "
              "its best strength (ratio, largest k)", _RELATED, "0.5", better="lower"),
        Claim("few-rounds", "Trees with condition numbers from 1e3 to 1e10: no more than 40 rounds",
              "polynomial time up to condition numbers of 2^poly(d)", "40", better="lower"),
        Claim("condition-free", "Trees: the error at level ratio 0.1 is at most 1.5 times that at 0.5 (worst number of "
              "rows)", "the number of samples does not depend on the condition number", "1.5", better="lower"),
        Claim("samples", "Trees: the error with 400 rows is at most 0.6 of that with 100 (worst level ratio)",
              "error falls with the number of samples, polynomially", "0.6", better="lower"),
        Claim("structured", "Supports inside one cluster or of neighbours in the walk: the advantage over the Lasso is "
              "smaller than on random ones (ratio of errors, mean of both)", "no coordinates serve every support",
              "random supports"),
    ),
    seeds=(0, 1, 2, 3, 4),
)

NOISE = 0.3
STRENGTHS = (0.3, 0.6, 1.0)
"""In units of ``sigma sqrt(2 log(d) / n)``."""
_STEPS = 400   # of least angle regression
HARD = ("clusters", "tree")
METHODS = ("lasso", "lasso, refit", "lasso, best strength", "ridge", "omp", "best subset", "puffer", "ours",
           "ours, refit", "ours, best strength", "oracle")


@dataclass(frozen=True)
class Sizes:
    """How much is measured at a scale."""

    rows: int
    columns: int
    designs: tuple[str, ...]
    ks: tuple[int, ...]
    supports: int
    fresh: int
    sweep_rows: tuple[int, ...]
    sweep_supports: int
    splits: int


RATIOS = (0.5, 0.25, 0.1)
SIZES = {
    Scale.SMOKE: Sizes(60, 90, (*DESIGNS, "yarn"), (3,), 1, 50, (40, 60), 2, 1),
    Scale.DEFAULT: Sizes(200, 600, (*DESIGNS, *SPECTRA), (3, 5), 12, 200, (100, 200, 400), 12, 4),
    Scale.FULL: Sizes(2000, 20_000, (*DESIGNS, *SPECTRA), (3, 10), 200, 1000, (100, 200, 400), 50, 20),
}


@dataclass(frozen=True)
class Bench:
    """A centred design with both coordinates: scaled columns, and those that were learnt."""

    X: Tensor
    plain: Preconditioner
    learnt: Preconditioner

    @classmethod
    def of(cls, X: Tensor, k: int, generator: torch.Generator) -> Bench:
        """Learn the coordinates from the design."""
        X = X - X.mean(dim=0)
        plain = find_preconditioner(X, k, max_rounds=0, trials=1, generator=generator)
        return cls(X, plain, find_preconditioner(X, k, generator=generator))

    def response(self, support: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The worst signal of a support as it is predicted, and with noise."""
        f = self.X @ worst_case_signal(self.X, support)
        return f, f + NOISE * torch.randn(f.shape, dtype=f.dtype, generator=generator)

    def strengths(self) -> list[float]:
        """Weights of the l1 norm that the theory names."""
        n, d = self.X.shape
        return [c * NOISE * math.sqrt(2 * math.log(d) / n) * n for c in STRENGTHS]


def run(scale: Scale, seed: int, run: Run) -> None:
    """Learn coordinates for every design and compare; the seed draws designs, supports and noise."""
    sizes = SIZES[scale]
    table: dict[tuple[str, int], dict[str, Any]] = {}
    with run.progress(len(sizes.designs) * len(sizes.ks) + len(RATIOS) * len(sizes.sweep_rows) + 2, "designs") as bar:
        for name in sizes.designs:
            for k in sizes.ks:
                table[name, k] = run.once(f"{name}-{k}", partial(_design, name, k, sizes, seed))
                run.log(design=name, k=k, **{key: v for key, v in table[name, k].items() if not isinstance(v, dict)})
                for method, error in table[name, k]["errors"].items():
                    run.log(design=name, k=k, method=method, error=error)
                bar.advance()
        sweep = {}
        for ratio in RATIOS:
            for n in sizes.sweep_rows:
                sweep[ratio, n] = run.once(f"tree-{ratio:g}-{n}", partial(_sweep, ratio, n, sizes, seed))
                run.log(design="tree", ratio=ratio, rows_of_design=n, **sweep[ratio, n])
                bar.advance()
        structured = run.once("structured", partial(_structured, sizes, seed))
        run.log(part="structured supports", **structured)
        bar.advance()
        measured = run.once("measured", partial(_measured, sizes, seed))
        for name, errors in measured.items():
            run.log(part="measured response", design=name, **errors)
        bar.advance()
    _claims(run, sizes, table, sweep, structured)
    run.figure("designs", _figure(sizes, table), caption=(
        f"One seed, supports of {sizes.ks[-1]}. Left: cost of random supports, median (dot) and 95 % (bar), before and "
        f"after. Right: mean error of the worst signals of random supports; their energy is 1."))
    run.figure("sweep", _sweep_figure(sizes, sweep), caption=(
        "One seed, trees: error and number of rounds as the levels of the tree come closer and the condition number "
        "grows."))


def _draw(name: str, sizes: Sizes, generator: torch.Generator) -> Tensor:
    if name not in SPECTRA:
        return DESIGNS[name](sizes.rows, sizes.columns, generator=generator)
    X, _ = spectra(name)
    return (X - X.mean(dim=0)) / X.std(dim=0)


def _design(name: str, k: int, sizes: Sizes, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1000 * seed + k)
    bench = Bench.of(_draw(name, sizes, generator), k, generator)
    everything = torch.arange(bench.X.shape[1])
    fresh = random_supports(everything, k, sizes.fresh, generator)
    before, after = bench.plain.cost(fresh), bench.learnt.cost(fresh)
    errors: dict[str, list[float]] = {method: [] for method in METHODS}
    for support in random_supports(everything, k, sizes.supports, generator):
        f, y = bench.response(support, generator)
        for method, error in _errors(bench, support, f, y).items():
            errors[method].append(error)
    return {"cost_median_before": float(before.median()), "cost_95_before": float(before.quantile(0.95)),
            "cost_median": float(after.median()), "cost_95": float(after.quantile(0.95)), **bench.learnt.report(),
            "errors": {method: fmean(values) for method, values in errors.items()}}


def _errors(bench: Bench, support: Tensor, f: Tensor, y: Tensor) -> dict[str, float]:
    """Prediction errors of every method; strengths are those that turn out best, for each method alike."""
    n, k = bench.X.shape[0], len(support)
    found: dict[str, float] = {}
    for method, coordinates in (("lasso", bench.plain), ("ours", bench.learnt)):
        A = math.sqrt(n) * coordinates.atoms
        by_theory, anywhere, again = _path_errors(A, y, A, f, bench.strengths())
        found |= {method: by_theory, f"{method}, refit": again, f"{method}, best strength": anywhere}
    u, s, _ = torch.linalg.svd(bench.X, full_matrices=False)
    along = u.mT @ y
    weights = float(s[0]) ** 2 * np.geomspace(1e-14, 10, 31)
    found["ridge"] = min(float((u @ (along * s.square() / (s.square() + a)) - f).square().mean()) for a in weights)
    puffer = u[:, s > 1e-10 * s[0]] / s[s > 1e-10 * s[0]] @ u[:, s > 1e-10 * s[0]].mT
    found["puffer"] = _path_errors(puffer @ bench.X, puffer @ y, bench.X, f, [])[1]
    found["omp"] = float((bench.plain.atoms @ orthogonal_matching_pursuit(Matrix(bench.plain.atoms), y, k).x
                            - f).square().mean())
    found["best subset"] = float((bench.X @ best_subset(bench.X, y, k).x - f).square().mean())
    q = torch.linalg.qr(bench.X[:, support]).Q
    found["oracle"] = float((q @ (q.mT @ y) - f).square().mean())
    return found


def _path_errors(A: Tensor, y: Tensor, B: Tensor, f: Tensor, strengths: list[float]) -> tuple[float, float, float]:
    """Least errors of B x for the Lasso with A and y: at named strengths, on its path to 1e-4 of the top, and refitted.

    The refit has the named strengths and every threshold. Least angle regression gives the path exactly, also where
    columns nearly depend and descent would take its time.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import lars_path

    from sparsepriors.regression.preconditioned import THRESHOLDS, thresholded_refit

    n = len(y)
    top = float((A.mT @ y).abs().max()) / n
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)   # the path ends where columns depend to rounding
        lars: Any = lars_path   # its annotations take alpha_min for an integer
        alphas, _, coefficients = lars(A.numpy(), y.numpy(), method="lasso", alpha_min=1e-4 * top, max_iter=_STEPS)
    knots = torch.from_numpy(coefficients)
    asked = np.clip([v / n for v in strengths], alphas[-1], alphas[0])
    at = np.interp(asked, alphas[::-1], np.arange(len(alphas))[::-1])
    low, share = torch.from_numpy(at.astype(int)), torch.from_numpy(at % 1)
    between = knots[:, low] * (1 - share) + knots[:, (low + 1).clamp(max=len(alphas) - 1)] * share
    named, every = ((B @ x - f[:, None]).square().mean(dim=0).tolist() for x in (between, knots))
    refits = [thresholded_refit(B, y, x, share) for x in between.T for share in THRESHOLDS]
    again = [float((B @ x - f).square().mean()) for x in refits if x is not None]
    return min(named, default=math.inf), min([*named, *every]), min([*named, *again], default=math.inf)


def _sweep(ratio: float, n: int, sizes: Sizes, seed: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(2000 * seed + n)
    X = tree_design(n, sizes.columns, ratio=ratio, generator=generator)
    bench = Bench.of(X, 3, generator)
    A, errors = math.sqrt(n) * bench.learnt.atoms, []
    for support in random_supports(torch.arange(X.shape[1]), 3, sizes.sweep_supports, generator):
        f, y = bench.response(support, generator)
        errors.append(_path_errors(A, y, A, f, bench.strengths())[0])
    s = torch.linalg.svdvals(bench.X)[:min(bench.X.shape) - 1]   # centring takes a direction
    return {"error": fmean(errors), "rounds": float(len(bench.learnt.eliminations)),
            "log10_condition": float((s[0] / s[-1]).log10())}


def _structured(sizes: Sizes, seed: int) -> dict[str, float]:
    """Errors over the Lasso's on supports in one cluster and of neighbours, and on random ones of the same designs."""
    found: dict[str, float] = {}
    for name in ("clusters", "walk"):
        generator = torch.Generator().manual_seed(3000 * seed)
        bench = Bench.of(_draw(name, sizes, generator), 3, generator)
        d = bench.X.shape[1]
        start = torch.randint(0, d - 30, (sizes.supports,), generator=generator)
        stride = 10 if name == "clusters" else 1
        chosen = {"structured": start[:, None] + stride * torch.arange(3),
                  "random": random_supports(torch.arange(d), 3, sizes.supports, generator)}
        for kind, supports in chosen.items():
            errors: dict[str, list[float]] = {"lasso": [], "ours": []}
            for support in supports:
                f, y = bench.response(support, generator)
                for method, coordinates in (("lasso", bench.plain), ("ours", bench.learnt)):
                    A = math.sqrt(len(y)) * coordinates.atoms
                    errors[method].append(_path_errors(A, y, A, f, bench.strengths())[0])
            found[f"{name}_{kind}"] = fmean(errors["ours"]) / fmean(errors["lasso"])
    return found


def _measured(sizes: Sizes, seed: int) -> dict[str, dict[str, float]]:
    """Relative squared errors on held-out thirds of the measured responses, strengths by cross-validation."""
    from sparsepriors.regression import PreconditionedLasso, SparseRegressorCV

    generator, found = torch.Generator().manual_seed(4000 * seed), {}
    ours = partial(PreconditionedLasso, 3, n_lams=20, cv=5, tol=1e-4)
    for name in SPECTRA:
        X, y = (v.numpy() for v in spectra(name))
        X = (X - X.mean(axis=0)) / X.std(axis=0)
        errors: dict[str, list[float]] = {"lasso": [], "ours": [], "ours_refit": []}
        for split in range(sizes.splits):
            order = torch.randperm(len(y), generator=generator).numpy()
            train, test = order[len(y) // 3:], order[:len(y) // 3]
            for method, model in (("lasso", SparseRegressorCV(n_alphas=20, cv=5, tol=1e-4)),
                                  ("ours", ours(random_state=split)),
                                  ("ours_refit", ours(refit=True, random_state=split))):
                wrong = model.fit(X[train], y[train]).predict(X[test]) - y[test]
                errors[method].append(float(np.square(wrong).mean() / y.var()))
        found[name] = {method: fmean(values) for method, values in errors.items()}
    return found


def _claims(run: Run, sizes: Sizes, table: dict[tuple[str, int], dict[str, Any]],
            sweep: dict[tuple[float, int], dict[str, float]], structured: dict[str, float]) -> None:
    def worst(names: tuple[str, ...], ours: str, theirs: str) -> float:
        cases = [table[name, k]["errors"] for name in names for k in sizes.ks if (name, k) in table]
        return max(errors[ours] / errors[theirs] for errors in cases)

    hard = [(name, k) for name in (*HARD, "walk") for k in sizes.ks]
    run.claim("cost-bounded", ours=max(table[name, k]["cost_95"] / k for name, k in hard), baseline=8.0)
    run.claim("cost-tenth", ours=max(table[name, k]["cost_95"] / table[name, k]["cost_95_before"] for name, k in hard
                                     if name in HARD), baseline=0.1)
    run.claim("over-lasso", ours=worst(HARD, "ours", "lasso"), baseline=0.25)
    run.claim("over-ridge", ours=worst(HARD, "ours", "ridge"), baseline=0.5)
    run.claim("over-lasso-walk", ours=worst(("walk",), "ours", "lasso"), baseline=0.5)
    run.claim("never-worse", ours=worst(("iid", "geometric", *SPECTRA), "ours", "lasso"), baseline=1.1)
    best = ("ours, best strength", "lasso, best strength")
    run.claim("over-any-lasso", ours=worst((*HARD, "walk"), *best), baseline=1.0)
    mixed = table["mixed", sizes.ks[-1]]["errors"]
    run.claim("over-any-lasso-mixed", ours=mixed[best[0]] / mixed[best[1]], baseline=0.5)
    run.claim("few-rounds", ours=max(v["rounds"] for v in sweep.values()), baseline=40.0)
    few, many = sizes.sweep_rows[0], sizes.sweep_rows[-1]
    run.claim("condition-free", baseline=1.5, ours=max(sweep[RATIOS[-1], n]["error"] / sweep[RATIOS[0], n]["error"]
                                                       for n in sizes.sweep_rows))
    run.claim("samples", ours=max(sweep[r, many]["error"] / sweep[r, few]["error"] for r in RATIOS), baseline=0.6)
    run.claim("structured", ours=fmean(structured[f"{name}_structured"] for name in ("clusters", "walk")),
              baseline=fmean(structured[f"{name}_random"] for name in ("clusters", "walk")))


def _figure(sizes: Sizes, table: dict[tuple[str, int], dict[str, Any]]) -> Figure:
    from matplotlib.figure import Figure

    k, fig = sizes.ks[-1], Figure(figsize=(12, 4.4), layout="constrained")
    left, right = fig.subplots(1, 2, width_ratios=(1, 1.6))
    place = np.arange(len(sizes.designs))
    for shift, ending, colour, label in ((-0.15, "_before", "#8d99ae", "columns scaled"),
                                         (0.15, "", "#1b4965", "learnt")):
        middle = [table[name, k][f"cost_median{ending}"] for name in sizes.designs]
        high = [table[name, k][f"cost_95{ending}"] for name in sizes.designs]
        left.vlines(place + shift, middle, high, color=colour, lw=4)
        left.plot(place + shift, middle, "o", color=colour, label=label)
    left.axhline(4 * k, color="black", lw=0.8, ls=":", label="target")
    left.set(yscale="log", ylabel="cost of a support", title="what supports cost")
    shown = {"lasso": "#c1121f", "lasso, best strength": "#f4a6a6", "ridge": "#8d99ae", "best subset": "#e9c46a",
             "ours": "#1b4965", "ours, refit": "#2a9d8f", "ours, best strength": "#8ecae6", "oracle": "black"}
    for i, (method, colour) in enumerate(shown.items()):
        right.bar(place + 0.1 * (i - 3.5), [table[name, k]["errors"][method] for name in sizes.designs], 0.1,
                  color=colour, label=method)
    right.set(yscale="log", ylabel="mean squared error of predictions", title="worst signals of random supports")
    for ax in (left, right):
        ax.set_xticks(place, sizes.designs, rotation=30, ha="right", rotation_mode="anchor")
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=8)
    right.legend(frameon=False, fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    return fig


def _sweep_figure(sizes: Sizes, sweep: dict[tuple[float, int], dict[str, float]]) -> Figure:
    from matplotlib.figure import Figure

    fig = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = fig.subplots(1, 2)
    for n in sizes.sweep_rows:
        x = [sweep[ratio, n]["log10_condition"] for ratio in RATIOS]
        left.plot(x, [sweep[ratio, n]["error"] for ratio in RATIOS], "o-", label=f"{n} rows")
        right.plot(x, [sweep[ratio, n]["rounds"] for ratio in RATIOS], "o-", label=f"{n} rows")
    left.set(ylabel="error", ylim=(0, None))
    right.set(ylabel="rounds", ylim=(0, None))
    for ax in (left, right):
        ax.set_xlabel("log10 of the condition number")
        ax.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=8)
    return fig
