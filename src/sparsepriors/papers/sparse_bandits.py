"""Dong and Yang (2023): what a sparse parameter does for misspecified linear bandits.

Of the paper the abstract and the introduction's beginning were available; the algorithms, the instances and every
number here are a reconstruction from them and from the works they build on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from statistics import correlation, fmean, linear_regression, median
from typing import Any

import torch

from sparsepriors.data import LinearBandit, RewardOracle, digits_bandit, needle_bandit, sign_bandit, trap_bandit
from sparsepriors.papers._bandit_figures import draw_algorithms, draw_growth, draw_needle
from sparsepriors.regression.bandits import (
    BanditAlgorithm,
    ExhaustiveBandit,
    FiniteClassBandit,
    L1RecoveryBandit,
    LassoBandit,
    LeastSquaresBandit,
    MisspecifiedLinUCB,
    Noise,
    SpannerBandit,
    SparseEliminationBandit,
    SweepBandit,
)
from sparsepriors.runs import Claim, Paper, Run, Scale

_RATE = "O(eps) with O(eps^-s d^s) queries"
_DENSE = "O(eps sqrt d) with poly(d/eps) queries (Lattimore et al., 2020)"
_LOWER = "Omega(exp(s)) queries for an error of s^delta eps, delta < 1"
_RELAXED = "poly(s/eps) queries, delta >= 1"

PROBLEMS = ((100, 1, 0.15), (50, 2, 0.2), (30, 2, 0.2), (16, 3, 0.25))
"""Dimension, sparsity and epsilon of the traps."""

PAPER = Paper(
    slug="sparse-bandits",
    title="Does Sparsity Help in Learning Misspecified Linear Bandits?",
    authors="Jialin Dong, Lin F. Yang",
    year=2023,
    url="https://arxiv.org/abs/2303.16998",
    room="regression",
    method=(
        "Rewards are linear in features up to a fixed error of at most epsilon per action; the parameter is sparse.",
        "List a net of all sparse parameters; each promises a largest reward, at some action.",
        "Query the action of the largest promise; drop the parameters that its reward refutes by epsilon + resolution.",
        "Stop when the best reward observed is as good as what is still promised, up to epsilon + resolution.",
        "With an error of s epsilon allowed: estimate each support from a spanner of its actions, eliminate supports.",
    ),
    claims=(
        Claim("certificate", "Elimination is within 2 (epsilon + resolution) = 4 epsilon of the best on every instance "
              "(worst suboptimality over epsilon)", _RATE, "4", better="lower"),
        Claim("two-epsilon", "Its mean over the traps is at most 2 epsilon", _RATE, "2", better="lower"),
        Claim("few-queries", "With s <= 2 it queries at most a twentieth of the trap's actions (the largest share)",
              _RATE, "0.05", better="lower"),
        Claim("digits-few", "On digits it queries at most a twentieth of the actions", _RATE, "0.05", better="lower"),
        *(Claim(f"dense-{d}-{s}", f"Least squares is three times as far from the best as elimination, d = {d}, s = {s} "
                "(suboptimality over epsilon)", _DENSE, "three times elimination") for d, s, _ in PROBLEMS),
        Claim("queries-in-d", "Elimination's queries grow like d^1.3 or slower, s = 1", _RATE, "exponent 1.3",
              better="lower"),
        Claim("error-flat-in-d", "Elimination's error at d = 100 is that at d = 20, half an epsilon allowed", _RATE,
              "elimination at d = 20", margin=-0.5, better="lower"),
        Claim("dense-grows", "Least squares is 1.8 times as far from the best at d = 100 as at d = 20", _DENSE,
              "1.8 times least squares at d = 20"),
        Claim("needle-grows", "Queries until the needle is found grow exponentially in s, by every algorithm (R^2 of "
              "log queries over s, the least)", _LOWER, "0.9"),
        Claim("needle-rate", "They grow by a factor of 1.2 or more for each coordinate (log of it, the least)", _LOWER,
              "log 1.2"),
        Claim("needle-third", "At every s the median over its places is a third of the actions or more (least share)",
              _LOWER, "1/3"),
        Claim("relaxed-bound", "SpannerBandit is within 2 (2 s + 1) epsilon of the best everywhere (worst share of it)",
              _RELAXED, "1", better="lower"),
        Claim("relaxed-queries", "At the largest s of the needle, where s epsilon is allowed, it ends after fewer "
              "queries than elimination needs", _RELAXED, "elimination", better="lower"),
        Claim("good-features", "With entries of +-1, l1 recovery from 8 s log(2 d / s) random actions is as good at "
              "d = 100 as at d = 20, s = 2, half an epsilon allowed", _RELAXED, "l1 recovery at d = 20", margin=-0.5,
              better="lower"),
        Claim("unit-features", "On the traps, whose features have norm 1, it is as good at d = 100 as at d = 20, "
              "s = 1, half an epsilon allowed", _RELAXED, "l1 recovery at d = 20", margin=-0.5, better="lower"),
        Claim("noise", "With noise of 0.1, averaged to epsilon / 2 with 95 % probability, at most one run in twenty "
              "breaks its certificate", "not reported", "0.05", better="lower"),
        Claim("wrong-sparsity", "Told s = 2 where it is 3, elimination gives no false certificate (share of runs)",
              "not reported", "0", better="lower"),
    ),
    seeds=tuple(range(10)),
)

STD = 0.1
"""Noise of one query, where there is noise."""
LASSO_QUERIES = 60
GROWTH_EPSILON = 0.15
SIGNS_EPSILON = 0.2
NEEDLE_EPSILON = 0.5
PATIENCE = 5
"""LinUCB on the needle is stopped after this many rounds for each action."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured at a scale."""

    problems: tuple[tuple[int, int, float], ...]
    actions: int
    rounds: int
    digits_epsilon: float
    dims: tuple[int, ...]
    instances: int
    needles: tuple[int, ...]
    noisy_runs: int
    max_candidates: int = 50_000_000


SIZES = {
    Scale.SMOKE: Sizes(PROBLEMS, 400, 60, 0.3, (20, 100), 2, (4, 8, 12), 3),
    Scale.DEFAULT: Sizes(PROBLEMS, 1500, 300, 0.1, (20, 40, 60, 80, 100), 20, (4, 6, 8, 10, 12, 14, 16), 10),
    Scale.FULL: Sizes((*PROBLEMS, (1000, 2, 0.1)), 1500, 300, 0.1, (20, 40, 60, 80, 100, 200, 400, 800), 20,
                      (4, 6, 8, 10, 12, 14, 16), 100, 200_000_000),
}


def run(scale: Scale, seed: int, run: Run) -> None:
    """Traps, digits, growth with the dimension, needles and wrong settings; the seed draws all of them."""
    sizes = SIZES[scale]
    bench = _Bench(sizes, seed, run.device)
    rows: list[dict[str, Any]] = []
    with run.progress(2 * len(sizes.problems) + 2 * len(sizes.dims) + len(sizes.needles) + 3, "bandits") as bar:

        def unit(key: str, measure: Any) -> list[dict[str, Any]]:
            rows.extend(found := run.once(key, lambda: {"rows": measure()})["rows"])
            bar.advance()
            return found

        for std in (0.0, STD):
            for problem in sizes.problems:
                unit(f"trap-{problem[0]}-{problem[1]}-{std:g}", partial(bench.trap, problem, std))
        unit("digits", bench.digits)
        for dim in sizes.dims:
            unit(f"growth-{dim}", partial(bench.growth, dim))
            unit(f"signs-{dim}", partial(bench.signs, dim))
        for s in sizes.needles:
            unit(f"needle-{s}", partial(bench.needle, s))
        unit("noisy", bench.noisy)
        unit("told-wrong", bench.told_wrong)
    for row in rows:
        run.log(**row)
    _claims(run, rows, sizes)
    run.figure("algorithms", draw_algorithms(_only(rows, case="trap", std=0.0)),
               caption="Suboptimality over epsilon and queries of every algorithm on the traps, without noise; dashed, "
                       "elimination's certificate.")
    run.figure("growth", draw_growth(_only(rows, case="growth"), _only(rows, case="signs")),
               caption="Growth with the dimension: suboptimality over epsilon and queries on the traps, s = 1, and "
                       "suboptimality with features of entries +-1, s = 2; means over the instances of one seed.")
    run.figure("needle", draw_needle(_only(rows, case="needle"), _only(rows, case="needle, relaxed")),
               caption="Median queries until the needle is found, by the number s of coordinates; the shaded part is "
                       "less than a third of the actions.")


@dataclass(frozen=True)
class _Bench:
    """The measurements of one seed, each a list of rows."""

    sizes: Sizes
    seed: int
    device: torch.device

    def trap(self, problem: tuple[int, int, float], std: float) -> list[dict[str, Any]]:
        d, s, epsilon = problem
        bandit = trap_bandit(d, self.sizes.actions, s, epsilon, generator=self._generator(0))
        return [{"case": "trap", "dim": d, "sparsity": s, "std": std, "algorithm": name,
                 **self._measure(bandit, epsilon, algorithm, std)}
                for name, algorithm in self._algorithms(s, epsilon, std).items()]

    def digits(self) -> list[dict[str, Any]]:
        epsilon = self.sizes.digits_epsilon
        bandit = digits_bandit(epsilon, 2, generator=self._generator(1))
        return [{"case": "digits", "dim": 64, "sparsity": 2, "std": 0.0, "algorithm": name,
                 **self._measure(bandit, epsilon, algorithm, 0.0)}
                for name, algorithm in self._algorithms(2, epsilon, 0.0).items() if name != "sweep"]

    def growth(self, dim: int) -> list[dict[str, Any]]:
        rows = []
        for i in range(self.sizes.instances):
            bandit = trap_bandit(dim, self.sizes.actions, 1, GROWTH_EPSILON, generator=self._generator(2 + i))
            algorithms = self._algorithms(1, GROWTH_EPSILON, 0.0)
            rows += [{"case": "growth", "dim": dim, "sparsity": 1, "instance": i, "algorithm": name,
                      **self._measure(bandit, GROWTH_EPSILON, algorithms[name], 0.0)}
                     for name in ("elimination", "spanner", "l1 recovery", "least squares")]
        return rows

    def signs(self, dim: int) -> list[dict[str, Any]]:
        """Recovery where the features are good, and least squares beside it."""
        rows = []
        for i in range(self.sizes.instances):
            bandit = sign_bandit(dim, self.sizes.actions, 2, SIGNS_EPSILON, generator=self._generator(20 + i))
            algorithms = self._algorithms(2, SIGNS_EPSILON, 0.0)
            rows += [{"case": "signs", "dim": dim, "sparsity": 2, "instance": i, "algorithm": name,
                      **self._measure(bandit, SIGNS_EPSILON, algorithms[name], 0.0)}
                     for name in ("l1 recovery", "least squares")]
        return rows

    def needle(self, s: int) -> list[dict[str, Any]]:
        """Queries until the needle is asked for, the median over its places, and what a relaxed error costs.

        Until then every answer is 0, so that the queries of a run without a needle find it wherever it may lie.
        """
        bandit = needle_bandit(s, NEEDLE_EPSILON, generator=self._generator(100 + s))
        features, actions = bandit.features, len(bandit.features)
        shared = {"dim": s, "sparsity": s, "actions": actions}
        rows: list[dict[str, Any]] = []
        for name, algorithm in (("elimination", FiniteClassBandit(features, NEEDLE_EPSILON)),
                                ("LinUCB", MisspecifiedLinUCB(NEEDLE_EPSILON, PATIENCE * actions)),
                                ("any order", ExhaustiveBandit(seed=self.seed))):
            empty = RewardOracle([0.0] * actions)
            algorithm.run(features, empty)
            first = {a: i + 1 for i, a in reversed(list(enumerate(empty.queried)))}
            rows.append({"case": "needle", **shared, "algorithm": name, "never_queried": float(actions - len(first)),
                         "queries": float(median(first.get(a, len(empty.queried)) for a in range(actions)))})
        relaxed = self._measure(bandit, NEEDLE_EPSILON, SpannerBandit(s, NEEDLE_EPSILON), 0.0)
        return [*rows, {"case": "needle, relaxed", **shared, "algorithm": "spanner", **relaxed}]

    def noisy(self) -> list[dict[str, Any]]:
        """The first trap under many draws of the noise."""
        d, s, epsilon = self.sizes.problems[0]
        bandit = trap_bandit(d, self.sizes.actions, s, epsilon, generator=self._generator(0))
        algorithm = self._algorithms(s, epsilon, STD)["elimination"]
        return [{"case": "noisy", "dim": d, "sparsity": s, "std": STD, "algorithm": "elimination", "draw": i,
                 **self._measure(bandit, epsilon, algorithm, STD, draw=200 + i)} for i in range(self.sizes.noisy_runs)]

    def told_wrong(self) -> list[dict[str, Any]]:
        """Elimination with a sparsity too small, and with half and twice the epsilon."""
        rows = []
        d, s, epsilon = self.sizes.problems[3]
        for i in range(self.sizes.instances):
            bandit = trap_bandit(d, self.sizes.actions, s, epsilon, generator=self._generator(300 + i))
            rows.append({"case": "sparsity 2 for 3", "dim": d, "sparsity": s, "algorithm": "elimination",
                         **self._measure(bandit, epsilon, SparseEliminationBandit(s - 1, epsilon), 0.0)})
        d, s, epsilon = self.sizes.problems[2]
        for factor in (0.5, 2.0):
            for i in range(self.sizes.instances):
                bandit = trap_bandit(d, self.sizes.actions, s, epsilon, generator=self._generator(400 + i))
                rows.append({"case": f"epsilon times {factor:g}", "dim": d, "sparsity": s, "algorithm": "elimination",
                             **self._measure(bandit, epsilon, SparseEliminationBandit(s, factor * epsilon), 0.0)})
        return rows

    def _algorithms(self, s: int, epsilon: float, std: float) -> dict[str, BanditAlgorithm]:
        noise = Noise(std, epsilon / 2) if std else None
        most, rounds = self.sizes.max_candidates, self.sizes.rounds
        found: dict[str, BanditAlgorithm] = {
            "elimination": SparseEliminationBandit(s, epsilon, noise=noise, max_candidates=most),
            "spanner": SpannerBandit(s, epsilon, noise=noise),
            "l1 recovery": L1RecoveryBandit(s, epsilon, noise=noise, seed=self.seed),
            "least squares": LeastSquaresBandit(epsilon, std),
            "LinUCB": MisspecifiedLinUCB(epsilon, rounds, std=std),
            "LinUCB, a tenth of the bonus": MisspecifiedLinUCB(epsilon, rounds, width=0.1, std=std),
            "Lasso": LassoBandit(LASSO_QUERIES, seed=self.seed),
        }
        if not std:
            found["sweep"] = SweepBandit(s, epsilon, max_candidates=most)
            found["all actions"] = ExhaustiveBandit(seed=self.seed)
        return found

    def _measure(self, bandit: LinearBandit, epsilon: float, algorithm: BanditAlgorithm, std: float,
                 draw: int = 500) -> dict[str, Any]:
        oracle = bandit.oracle(std, self._generator(draw))
        found = algorithm.run(bandit.features.to(self.device), oracle)
        loss = bandit.suboptimality(found.action)
        row: dict[str, Any] = {
            "loss": loss / epsilon, "queries": float(found.n_queries), "queried_actions": float(len(found.history)),
            "share": len(found.history) / len(bandit.features), "outcome": found.outcome.value}
        if found.certified and found.bound > 0:
            row |= {"bound": found.bound / epsilon, "bound_share": loss / found.bound}
        if "candidates" in found.extras:
            row["candidates"] = int(found.extras["candidates"])
        return row

    def _generator(self, part: int) -> torch.Generator:
        return torch.Generator().manual_seed(1000 * self.seed + part)


def _claims(run: Run, rows: list[dict[str, Any]], sizes: Sizes) -> None:
    elimination = _only(rows, case="trap", std=0.0, algorithm="elimination")
    digits = _only(rows, case="digits", algorithm="elimination")
    run.claim("certificate", ours=max(_column(elimination + digits, "loss")), baseline=4.0)
    run.claim("two-epsilon", ours=fmean(_column(elimination, "loss")), baseline=2.0)
    run.claim("few-queries", ours=max(r["share"] for r in elimination if r["sparsity"] <= 2), baseline=0.05)
    run.claim("digits-few", ours=digits[0]["share"], baseline=0.05)
    for d, s, _ in PROBLEMS:
        dense, ours = (_only(rows, case="trap", std=0.0, dim=d, sparsity=s, algorithm=a)[0]["loss"]
                       for a in ("least squares", "elimination"))
        run.claim(f"dense-{d}-{s}", ours=dense, baseline=3 * ours)

    def grown(algorithm: str, column: str, case: str = "growth") -> dict[int, float]:
        return {d: fmean(_column(_only(rows, case=case, dim=d, algorithm=algorithm), column)) for d in sizes.dims}

    queries = grown("elimination", "queries")
    exponent = linear_regression([math.log(d) for d in queries], [math.log(q) for q in queries.values()]).slope
    run.claim("queries-in-d", ours=exponent, baseline=1.3)
    for claim, algorithm, case, factor in (("error-flat-in-d", "elimination", "growth", 1.0),
                                           ("dense-grows", "least squares", "growth", 1.8),
                                           ("unit-features", "l1 recovery", "growth", 1.0),
                                           ("good-features", "l1 recovery", "signs", 1.0)):
        loss = grown(algorithm, "loss", case)
        run.claim(claim, ours=loss[100], baseline=factor * loss[20])
    needles = _only(rows, case="needle")
    curves = [_column(_only(needles, algorithm=a), "queries") for a in ("elimination", "LinUCB", "any order")]
    logs = [[math.log(q) for q in curve] for curve in curves]
    run.claim("needle-grows", ours=min(correlation(sizes.needles, y) ** 2 for y in logs), baseline=0.9)
    run.claim("needle-rate", ours=min(linear_regression(sizes.needles, y).slope for y in logs), baseline=math.log(1.2))
    run.claim("needle-third", ours=min(r["queries"] / r["actions"] for r in needles), baseline=1 / 3)
    relaxed = _only(rows, case="needle, relaxed")
    spanner = [r for r in rows if r["algorithm"] == "spanner" and "bound_share" in r and r.get("std", 0.0) == 0.0]
    run.claim("relaxed-bound", ours=max(_column(spanner, "bound_share")), baseline=1.0)
    run.claim("relaxed-queries", ours=relaxed[-1]["queries"], baseline=curves[0][-1])
    noisy = _only(rows, case="noisy")
    run.claim("noise", ours=fmean(r.get("bound_share", math.inf) > 1 for r in noisy), baseline=0.05)
    wrong = _only(rows, case="sparsity 2 for 3")
    run.claim("wrong-sparsity", ours=fmean(r.get("bound_share", 0.0) > 1 for r in wrong), baseline=0.0)


def _only(rows: Iterable[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    return [r for r in rows if all(r.get(k) == v for k, v in wanted.items())]


def _column(rows: Iterable[dict[str, Any]], name: str) -> list[float]:
    return [float(r[name]) for r in rows]
