"""Zhu et al. (2024): sparse linear regression when every user sends one private message.

Simulated users with normal features and a planted coefficient vector; private moments with and without public features
(Algorithms 1 and 2), private gradients in rounds (Algorithm 3), the closed form without privacy, and audits of the
messages. The published noise, whose constants are a reconstruction, stands beside noise that is accounted exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from sparsepriors.papers import _ldp_measures as measures
from sparsepriors.papers._ldp_measures import AUDITED, IN_MEMORY, SIZES, Sizes
from sparsepriors.papers._ldp_users import Users
from sparsepriors.runs import Claim, Paper, Run, Scale

_RATE = "d sqrt(k) / (sqrt(n) epsilon) up to logarithms"
_PUBLIC = "sqrt(d k) / (sqrt(n) epsilon) up to logarithms"
_ROUNDS = "k sqrt(d) / (sqrt(n) epsilon) up to logarithms"

PAPER = Paper(
    slug="ldp-regression",
    title="Improved Analysis of Sparse Linear Regression in Local Differential Privacy Model",
    authors="Liyang Zhu, Meng Ding, Vaneet Aggarwal, Jinhui Xu, Di Wang",
    year=2024,
    url="https://arxiv.org/abs/2310.07367",
    room="regression.private",
    method=(
        "Each user clips x and y and sends x x^T and x y with Gaussian noise, once.",
        "The server inverts the mean matrix, multiplies, and soft-thresholds.",
        "With public features it needs no x x^T: the whole budget goes to x y.",
        "In rounds, fresh users send gradients as random points of a sphere; the largest coefficients are kept.",
        "Without privacy the same closed form is an estimator of its own.",
    ),
    claims=(
        Claim("slope-moments", "Private moments: the log error over log n has slope -0.575 within 0.225 from 800,000 "
              "users on (d = 8)", _RATE, "0.225", better="lower"),
        Claim("slope-public", "Public features: slope -0.5 within 0.12 (d = 8 and 16)", _PUBLIC, "0.12",
              better="lower"),
        Claim("slope-rounds", "Rounds: slope -0.5 within 0.15 (d = 8 and 16)", _ROUNDS, "0.15", better="lower"),
        Claim("order", "Rounds have a smaller error than public features, and these than private moments (share of "
              "all d and n, epsilon = 4)", "the order of the upper bounds", "all of them"),
        Claim("public-gap", "What public features save grows with d: from 8 to 16 by a factor of sqrt 2, within 1.3 "
              "(distance of the logs; most users)", "a factor of sqrt(d)", "log 1.3", better="lower"),
        Claim("public-few", "Twenty public features for each dimension are enough: slope -0.5 within 0.12 (d = 8 and "
              "16)", "not reported in what could be read", "0.12", better="lower"),
        Claim("rounds-k", "Rounds: from k = 2 to 8 the error grows 1.8 to 6 times (distance of its log from the "
              "middle; d = 64)", _ROUNDS, "log sqrt(6 / 1.8)", better="lower"),
        Claim("rounds-d", "Rounds: from d = 16 to 64 the error grows 1.5 to 5 times (distance of its log from the "
              "middle; k = 2)", _ROUNDS, "log sqrt(5 / 1.5)", better="lower"),
        Claim("epsilon-moments", "Private moments: half of epsilon = 4 makes 1.6 to 2.6 times the error (distance of "
              "its log from the middle)", _RATE, "log sqrt(2.6 / 1.6)", better="lower"),
        Claim("epsilon-public", "Public features: half of epsilon = 4 makes 1.6 to 2.6 times the error (likewise)",
              _PUBLIC, "log sqrt(2.6 / 1.6)", better="lower"),
        Claim("epsilon-rounds", "Rounds: half of epsilon = 4 makes 1.6 to 2.6 times the error (likewise)",
              _ROUNDS, "log sqrt(2.6 / 1.6)", better="lower"),
        Claim("epsilon-rounds-small", "Rounds: half of epsilon = 1 makes 1.6 to 2.6 times the error (likewise)",
              _ROUNDS, "log sqrt(2.6 / 1.6)", better="lower"),
        Claim("soft-helps", "A threshold that only the noise sets lowers the error (share of trials; d = 64, k = 2, "
              "public features)", "the thresholded estimator has the rate", "0.8"),
        Claim("soft-support", "The same threshold finds the support exactly where every coefficient is 1.8 thresholds "
              "or more (share of trials)", "not reported", "0.9"),
        Claim("closed-form", "Without privacy the closed form's error is at most 1.3 times that of the Lasso, both "
              "with cross-validated strengths", "a highly efficient estimator as a by-product", "1.3 x Lasso",
              better="lower"),
        Claim("exact-noise", "At the same promise, exactly accounted noise has at most 0.7 of the error of the "
              "published noise (private moments, most users)", "not in the paper: of this library",
              "0.7 x published noise", better="lower"),
        Claim("audit-rounds", "What an audit shows of a message in rounds (a 95 % bound) stays below the promised "
              "epsilon = 2", "pure epsilon-privacy", "2", better="lower"),
        Claim("audit-moments", "What an audit shows of the two users that private moments protect least stays below "
              "the promised epsilon = 2 at its delta", "(epsilon, delta)-privacy", "2", better="lower"),
        Claim("audit-sees", "The audit of moments with half of the noise exceeds the promise",
              "a check of the audit, not of the paper", "2"),
    ),
)


def run(scale: Scale, seed: int, run: Run) -> None:
    """Measure every estimator; the seed draws users, coefficients and noise."""
    sizes = SIZES[scale]
    table: dict[tuple[Any, ...], dict[str, Any]] = {}
    with run.progress(2 * len(sizes.dims) + 6, "estimators") as bar:
        for d in sizes.dims:
            users = Users(d, 2, seed, sizes.chunk)
            small = sizes.small if d == sizes.dims[0] else ()
            _keep(run, table, run.once(f"moments-d{d}", lambda u=users, s=small: measures.moments(u, sizes, s)), d, 2)
            bar.advance()
            _keep(run, table, run.once(f"rounds-d{d}", lambda u=users, s=small: measures.rounds(u, sizes, s)), d, 2)
            bar.advance()
        wide = run.once("wide", lambda: measures.wide(seed, sizes))
        bar.advance()
        related = Users(sizes.dims[-1], 2, seed, sizes.chunk, correlation=0.3)
        correlated = run.once("correlated", lambda: measures.correlated(related, sizes))
        bar.advance()
        pictures = run.once("pictures", lambda: measures.pictures(seed, sizes))
        bar.advance()
        support = run.once("support", lambda: measures.support(seed, sizes))
        bar.advance()
        closed = run.once("closed-form", lambda: measures.closed(seed, sizes))
        bar.advance()
        audits = run.once("audits", lambda: measures.audits(seed, sizes))
        bar.advance()
    for row in (*wide["rows"], *correlated["rows"], *pictures["rows"], *support["rows"], closed):
        run.log(**row)
    run.log(arm="audits", epsilon=AUDITED, **audits)
    _claims(run, sizes, table, wide["rows"], support["rows"], closed, audits)
    _draw(run, sizes, table, support["rows"])


def _keep(run: Run, table: dict[tuple[Any, ...], dict[str, Any]], unit: dict[str, Any], d: int, k: int) -> None:
    for row in unit["rows"]:
        table[row["arm"], d, row["n"], row["epsilon"]] = row
        run.log(d=d, k=k, **row)


def _claims(run: Run, sizes: Sizes, table: dict[tuple[Any, ...], dict[str, Any]], wide: Sequence[dict[str, Any]],
            support: Sequence[dict[str, Any]], closed: dict[str, Any], audits: dict[str, Any]) -> None:
    low, high = sizes.epsilons
    first, last = sizes.dims[:2]
    memory = [n for n in sizes.counts if n <= IN_MEMORY]
    most = {"rounds": memory[-1]}

    def error(arm: str, d: int, n: int | None = None, epsilon: float = high) -> float:
        return table[arm, d, most.get(arm, sizes.counts[-1]) if n is None else n, epsilon]["error"]

    def slope(arm: str, d: int, counts: Sequence[int]) -> float:
        return float(np.polyfit(np.log(counts), np.log([error(arm, d, n) for n in counts]), 1)[0])

    def within(claim: str, ratio: float, least: float, largest: float) -> None:
        """The distance of a ratio's log from the middle of the range that the theory allows for."""
        run.claim(claim, ours=abs(math.log(ratio / math.sqrt(least * largest))),
                  baseline=math.log(largest / least) / 2)

    run.claim("slope-moments", ours=abs(slope("moments", first, sizes.counts[1:] if len(sizes.counts) > 2 else
                                              sizes.counts) + 0.575), baseline=0.225)
    for claim, arm, counts, allowed in (("slope-public", "public", sizes.counts, 0.12),
                                        ("public-few", "public few", sizes.counts, 0.12),
                                        ("slope-rounds", "rounds", memory, 0.15)):
        run.claim(claim, ours=abs(fmean(slope(arm, d, counts) for d in sizes.dims) + 0.5), baseline=allowed)
    run.claim("order", ours=fmean(error("rounds", d, n) < error("public", d, n) < error("moments", d, n)
                                  for d in sizes.dims for n in memory), baseline=1.0)
    gaps = [error("moments", d) / error("public", d) for d in (first, last)]
    within("public-gap", gaps[1] / gaps[0], math.sqrt(last / first) / 1.3, math.sqrt(last / first) * 1.3)
    few, many, between = (row["error"] for row in wide)
    within("rounds-k", many / few, 1.8, 6.0)
    within("rounds-d", few / between, 1.5, 5.0)
    for arm in ("moments", "public", "rounds"):
        within(f"epsilon-{arm}", error(arm, first, epsilon=low) / error(arm, first), 1.6, 2.6)
    least, less = (error("rounds", first, epsilon=e) for e in sizes.small)
    within("epsilon-rounds-small", least / less, 1.6, 2.6)
    run.claim("soft-helps", ours=[r for r in support if r["arm"] == "public, support"][-1]["soft_helps"], baseline=0.8)
    seen = [r["exact_support"] for r in support if 1.8 * r["threshold"] <= 1 / math.sqrt(2)]
    run.claim("soft-support", ours=fmean(seen) if seen else math.nan, baseline=0.9)
    run.claim("closed-form", ours=closed["error"], baseline=1.3 * closed["lasso_error"])
    run.claim("exact-noise", ours=error("moments one clip", last), baseline=0.7 * error("moments published", last))
    for claim, name in (("audit-rounds", "rounds"), ("audit-moments", "moments"), ("audit-sees", "half_noise")):
        run.claim(claim, ours=audits[name], baseline=AUDITED)


_STYLES = {"moments published": ("#a50f15", "s--"), "moments": ("#de2d26", "s-"), "moments one clip": ("#fc9272", "s-"),
           "public": ("#08519c", "o-"), "public one clip": ("#6baed6", "o-"), "public few": ("#08519c", "o:"),
           "rounds": ("#006d2c", "^-"),
           "rounds 4k": ("#74c476", "^-"), "rounds published radius": ("#74c476", "^--"),
           "rounds loose ball": ("#006d2c", "^:")}


def _draw(run: Run, sizes: Sizes, table: dict[tuple[Any, ...], dict[str, Any]],
          support: Sequence[dict[str, Any]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 5.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    first, last, high = sizes.dims[0], sizes.dims[-1], max(sizes.epsilons)
    at_most = max(n for n in sizes.counts if n <= IN_MEMORY)
    for arm, (colour, style) in _STYLES.items():
        over_n = sorted((n, row["error"]) for (a, d, n, e), row in table.items() if (a, d, e) == (arm, last, high))
        left.loglog(*zip(*over_n, strict=True), style, color=colour, label=arm)
        over_epsilon = sorted((e, row["error"]) for (a, d, n, e), row in table.items()
                              if (a, d, n) == (arm, first, at_most))
        if len(over_epsilon) > 2:
            middle.loglog(*zip(*over_epsilon, strict=True), style, color=colour, label=arm)
    _guide(left, sizes.counts, table["rounds", last, sizes.counts[0], high]["error"] * 0.6, -0.5, "slope -1/2")
    small = (*sizes.small, *sizes.epsilons)
    _guide(middle, small, table["rounds", first, at_most, small[0]]["error"] * 0.6, -1.0, "slope -1")
    left.set(ylim=(None, 8.0), title=f"d = {last}, k = 2, epsilon = {high:g}", xlabel="users",
             ylabel="error (l2, of a unit vector)")
    middle.set(ylim=(None, 8.0), title=f"d = {first}, k = 2, {at_most:,} users", xlabel="epsilon")
    middle.set_xticks(small, [f"{e:g}" for e in small], minor=False)
    middle.minorticks_off()
    for arm, colour in (("public", "#08519c"), ("public one clip", "#6baed6")):
        rows = [r for r in support if r["arm"] == f"{arm}, support"]
        right.plot([r["n"] for r in rows], [100 * r["exact_support"] for r in rows], "o-", color=colour,
                   label=f"{arm}, thresholded, d = {sizes.wide}")
    for d, style in zip((first, last), ("^:", "^-"), strict=True):
        found = sorted((n, 100 * r["exact_support"]) for (a, at, n, e), r in table.items()
                       if (a, at, e) == ("rounds", d, high))
        right.plot(*zip(*found, strict=True), style, color="#006d2c", label=f"rounds, d = {d}")
    right.set(xscale="log", title="support found exactly", xlabel="users", ylabel="share of trials (%)", ylim=(-4, 104))
    for ax in (left, middle, right):
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in (left, right):
        ax.set_xticks(sizes.counts, [f"{n:,}" for n in sizes.counts], minor=False)
        ax.minorticks_off()
    figure.legend(*left.get_legend_handles_labels(), frameon=False, fontsize=9, ncols=5, loc="outside lower center")
    right.legend(frameon=False, fontsize=8)
    run.figure("errors", figure, caption=(
        "One seed; root mean squares over draws of the noise, before thresholding. Left and middle: dotted lines have "
        "the slopes of the theory. Broken lines are the published noise and the published radius of gradients. Right: "
        "moments of d = 64 features, thresholded by what the noise alone says, and rounds, which are told k."))


def _guide(ax: Any, x: Sequence[float], start: float, slope: float, label: str) -> None:
    ax.loglog(x, [start * (v / x[0])**slope for v in x], ":", color="black", lw=1)
    ax.annotate(label, (x[0], start), fontsize=8, va="top", xytext=(0, -6), textcoords="offset points")
