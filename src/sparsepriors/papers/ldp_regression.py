"""Zhu et al. (2024): sparse linear regression when every user sends one private message.

Simulated users with normal features and a planted coefficient vector; private moments with and without public features
(Algorithms 1 and 2), private gradients in rounds (Algorithm 3), the closed form without privacy, and audits of the
messages. The published noise, whose constants are a reconstruction, stands beside noise that is accounted exactly.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch

from sparsepriors.papers._ldp_users import Y_SCALE, Users
from sparsepriors.regression import (
    LDPIHT,
    L2BallRandomiser,
    Message,
    MomentMechanism,
    MomentServer,
    NonInteractiveLDP,
    NotPositiveDefinite,
    PublicCovariance,
    SoftOLS,
    audit,
)
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

AUDITED = 2.0
ARMS = ("moments published", "moments", "moments one clip", "public published", "public", "public one clip",
        "public few")
FEW = 20
"""Public features for each dimension, in "public few"; the other arms have ``Sizes.public`` of them."""
ROUNDS = ("rounds", "rounds 4k", "rounds published radius", "rounds loose ball")


@dataclass(frozen=True)
class Sizes:
    """How much is measured at a scale."""

    chunk: int
    counts: tuple[int, ...]
    dims: tuple[int, ...]
    epsilons: tuple[float, ...]
    small: tuple[float, float]
    delta: float
    public: int
    draws: int
    repeats: int
    wide: int
    wide_users: int
    sparsities: tuple[int, int]
    between: int
    closed: tuple[int, int, int]
    messages: int
    heard: int


SIZES = {
    Scale.SMOKE: Sizes(20_000, (20_000, 80_000), (4, 8), (2.0, 4.0), (0.5, 1.0), 1e-3, 5000, 2, 2, 16, 20_000, (1, 4),
                       8, (500, 20, 3), 2000, 100),
    Scale.DEFAULT: Sizes(200_000, (200_000, 800_000, 3_200_000), (8, 16), (2.0, 4.0), (0.5, 1.0), 1e-3, 100_000, 32, 8,
                         64, 800_000, (2, 8), 16, (5000, 100, 5), 100_000, 10_000),
    Scale.FULL: Sizes(1_000_000, (1_000_000, 4_000_000, 16_000_000, 100_000_000), (8, 16, 32), (2.0, 4.0), (0.5, 1.0),
                      1e-3, 100_000, 32, 4, 64, 4_000_000, (2, 8), 16, (5000, 100, 5), 1_000_000, 100_000),
}
"""Rounds, which need the users in memory, are run up to `IN_MEMORY` of them."""
IN_MEMORY = 4_000_000


def run(scale: Scale, seed: int, run: Run) -> None:
    """Measure every estimator; the seed draws users, coefficients and noise."""
    sizes = SIZES[scale]
    table: dict[tuple[Any, ...], dict[str, Any]] = {}
    with run.progress(2 * len(sizes.dims) + 5, "estimators") as bar:
        for d in sizes.dims:
            users = Users(d, 2, seed, sizes.chunk)
            small = sizes.small if d == sizes.dims[0] else ()
            _keep(run, table, run.once(f"moments-d{d}", lambda u=users, s=small: _moments(u, sizes, s)), d, 2)
            bar.advance()
            _keep(run, table, run.once(f"rounds-d{d}", lambda u=users, s=small: _rounds(u, sizes, s)), d, 2)
            bar.advance()
        wide = run.once("wide", lambda: _wide(seed, sizes))
        bar.advance()
        related = Users(sizes.dims[-1], 2, seed, sizes.chunk, correlation=0.3)
        correlated = run.once("correlated", lambda: _correlated(related, sizes))
        bar.advance()
        support = run.once("support", lambda: _support(seed, sizes))
        bar.advance()
        closed = run.once("closed-form", lambda: _closed(seed, sizes))
        bar.advance()
        audits = run.once("audits", lambda: _audits(seed, sizes))
        bar.advance()
    for row in (*wide["rows"], *correlated["rows"], *support["rows"], closed):
        run.log(**row)
    run.log(arm="audits", epsilon=AUDITED, **audits)
    _claims(run, sizes, table, wide["rows"], support["rows"], closed, audits)
    _draw(run, sizes, table, support["rows"])


def _mechanism(arm: str, d: int, epsilon: float, delta: float) -> MomentMechanism:
    """The clips of one x serve all arms: 1.5 sqrt(d) in norm, 2.5 for an entry, 3 for y."""
    return MomentMechanism(d, epsilon, delta, 1.5 * math.sqrt(d), 3.0, None if "one clip" in arm else 2.5,
                           covariance="moments" in arm, noise="published" if "published" in arm else "exact")


def _public(users: Users, count: int) -> PublicCovariance:
    """Of the features of further users, which the server knows."""
    return PublicCovariance.of(users.draw(-1, count)[0].numpy())


def _moments(users: Users, sizes: Sizes, small: Sequence[float]) -> dict[str, Any]:
    """Errors of every arm at every n and epsilon over draws of the noise; the users' sums are computed once."""
    # Sums of the widest messages, entries clipped and one clip: the others send a part of these.
    mechanisms = {clip: _mechanism(f"moments{clip}", users.d, 1.0, sizes.delta) for clip in ("", " one clip")}
    sums = {clip: MomentServer(users.d) for clip in mechanisms}
    known, few = _public(users, sizes.public), _public(users, FEW * users.d)
    rows, part = [], 0
    for n in sizes.counts:
        while part * users.chunk < n:
            X, y = users.draw(part)
            for clip, mechanism in mechanisms.items():
                sums[clip].aggregate(mechanism.clean(X, y))
            part += 1
        for epsilon in (*small, *sizes.epsilons):
            for arm in ARMS:
                mechanism = _mechanism(arm, users.d, epsilon, sizes.delta)
                total = sums[" one clip" if "one clip" in arm else ""].total
                clean = Message(total.cross, total.second if mechanism.covariance else None, total.users)
                generator = torch.Generator().manual_seed(users.seed * 7919 + n + int(1000 * epsilon))
                rows.append({"arm": arm, "n": n, "epsilon": epsilon, "exact_epsilon": mechanism.report.exact_epsilon,
                             **_errors(users, mechanism, clean, few if "few" in arm else known, sizes.draws,
                                       generator)})
    return {"rows": rows}


def _errors(users: Users, mechanism: MomentMechanism, clean: Message, public: PublicCovariance, draws: int,
            generator: torch.Generator) -> dict[str, Any]:
    """Errors over the draws, and in how many the covariance was indefinite."""
    raw, soft, thresholds, exact, indefinite = [], [], [], 0, 0
    model = NonInteractiveLDP(mechanism.epsilon, mechanism.delta, y_scale=Y_SCALE)
    truth = users.theta.numpy() != 0
    for _ in range(draws):
        server = MomentServer(users.d)
        server.aggregate(mechanism.noised(clean, generator))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", NotPositiveDefinite)
            model.estimate(mechanism, server, None if mechanism.covariance else public)
        indefinite += bool(caught)
        raw.append(users.error(model.raw_coef_))
        soft.append(users.error(model.coef_))
        thresholds.append(model.threshold_)
        exact += bool(((model.coef_ != 0) == truth).all())
    return {"error": _root_mean_square(raw), "soft_error": _root_mean_square(soft), "threshold": fmean(thresholds),
            "soft_helps": fmean(s < r for s, r in zip(soft, raw, strict=True)), "exact_support": exact / draws,
            "indefinite": indefinite / draws}


def _rounds(users: Users, sizes: Sizes, small: Sequence[float]) -> dict[str, Any]:
    """Errors of hard thresholding in rounds; every repeat hears other users as far as there are some."""
    rows = []
    for n in (n for n in sizes.counts if n <= IN_MEMORY):
        last = n == max(c for c in sizes.counts if c <= IN_MEMORY)
        plans = [(arm, epsilon) for arm in ROUNDS for epsilon in sizes.epsilons
                 if arm == "rounds" or epsilon == max(sizes.epsilons)]
        plans += [("rounds", epsilon) for epsilon in small if last]
        found: dict[tuple[str, float], list[tuple[float, bool]]] = {plan: [] for plan in plans}
        for repeat in range(sizes.repeats // 2 if last else sizes.repeats):
            skip = repeat * (n // users.chunk) % (max(sizes.counts) // users.chunk)
            X, y = users.first(n, skip)
            for arm, epsilon in plans:
                if arm != "rounds" and repeat > 0:
                    continue  # no claim rests on the variants
                found[arm, epsilon].append(_one(users, X, y, arm, epsilon, repeat))
        rows += [{"arm": arm, "n": n, "epsilon": epsilon, "exact_epsilon": epsilon, **_summary(found[arm, epsilon])}
                 for arm, epsilon in plans]
    return {"rows": rows}


def _one(users: Users, X: np.ndarray, y: np.ndarray, arm: str, epsilon: float, repeat: int) -> tuple[float, bool]:
    model = LDPIHT(epsilon, min(users.d, 4 * users.k) if arm == "rounds 4k" else users.k, y_scale=Y_SCALE,
                   radius="published" if arm == "rounds published radius" else "auto",
                   bound=2.0 if arm == "rounds loose ball" else 1.0, random_state=users.seed * 1000 + repeat).fit(X, y)
    return users.error(model.coef_), bool(((model.coef_ != 0) == (users.theta.numpy() != 0)).all())


def _summary(found: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    return {"error": _root_mean_square([e for e, _ in found]), "exact_support": fmean(s for _, s in found)}


def _wide(seed: int, sizes: Sizes) -> dict[str, Any]:
    """Rounds at other d and k."""
    few, many = sizes.sparsities
    rows = []
    for d, k in ((sizes.wide, few), (sizes.wide, many), (sizes.between, few)):
        users = Users(d, k, seed, sizes.chunk)
        epsilon, n = max(sizes.epsilons), sizes.wide_users
        found = [_one(users, *users.first(n, repeat), "rounds", epsilon, repeat)
                 for repeat in range(sizes.repeats // 2)]
        rows.append({"arm": "rounds", "d": d, "k": k, "n": n, "epsilon": epsilon, **_summary(found)})
    return {"rows": rows}


def _correlated(users: Users, sizes: Sizes) -> dict[str, Any]:
    """Neighbouring features with a correlation: nothing is told to anyone about it."""
    n, epsilon = sizes.counts[min(1, len(sizes.counts) - 1)], max(sizes.epsilons)
    at = {"d": users.d, "k": users.k, "n": n, "epsilon": epsilon, "correlation": users.correlation}
    X, y = users.first(n)
    public, rows = _public(users, sizes.public), []
    for arm in ("moments one clip", "public one clip"):
        mechanism = _mechanism(arm, users.d, epsilon, sizes.delta)
        clean = mechanism.clean(torch.from_numpy(X), torch.from_numpy(y))
        generator = torch.Generator().manual_seed(users.seed)
        rows.append({"arm": arm, **at, **_errors(users, mechanism, clean, public, sizes.draws, generator)})
    found = [_one(users, X, y, "rounds", epsilon, repeat) for repeat in range(sizes.repeats // 2)]
    return {"rows": [*rows, {"arm": "rounds", **at, **_summary(found)}]}


def _support(seed: int, sizes: Sizes) -> dict[str, Any]:
    """Soft thresholding where few of many coefficients matter, at growing n."""
    users, epsilon = Users(sizes.wide, 2, seed, sizes.chunk), max(sizes.epsilons)
    public, rows = _public(users, sizes.public), []
    for arm in ("public", "public one clip"):
        mechanism = _mechanism(arm, users.d, epsilon, sizes.delta)
        server, generator = MomentServer(users.d), torch.Generator().manual_seed(seed)
        for part in range(sizes.wide_users // sizes.chunk):
            server.aggregate(mechanism.clean(*users.draw(part)))
            rows.append({"arm": f"{arm}, support", "d": users.d, "k": 2, "n": server.users, "epsilon": epsilon,
                         **_errors(users, mechanism, server.total, public, sizes.draws, generator)})
    return {"rows": rows}


def _closed(seed: int, sizes: Sizes) -> dict[str, Any]:
    """The closed form without privacy beside the Lasso; both choose among 50 strengths by the same folds."""
    from sklearn.linear_model import LassoCV
    from sklearn.model_selection import KFold

    n, d, k = sizes.closed
    users = Users(d, k, seed, n)
    X, y = (a.astype(np.float64) for a in users.first(n))
    raw = SoftOLS(0.0).fit(X, y).coef_
    levels = np.geomspace(1e-3, 1, 50) * float(np.abs(raw).max())
    missed = np.zeros(len(levels))
    for train, test in KFold(5).split(X):
        model = SoftOLS(0.0, fit_intercept=False).fit(X[train], y[train])
        missed += np.square(X[test] @ model.path(levels) - y[test][:, None]).sum(0)
    best = SoftOLS(float(levels[missed.argmin()])).fit(X, y)
    return {"arm": "no privacy", "d": d, "k": k, "n": n, "raw_error": users.error(raw),
            "error": users.error(best.coef_), "auto_error": users.error(SoftOLS().fit(X, y).coef_),
            "lasso_error": users.error(LassoCV(alphas=50, cv=5).fit(X, y).coef_)}


def _audits(seed: int, sizes: Sizes) -> dict[str, Any]:
    """Lower bounds on epsilon of messages sent for the two inputs that are told apart best."""
    generator, d = torch.Generator().manual_seed(seed), 8
    randomiser = L2BallRandomiser(d, 1.0, AUDITED)
    end = torch.zeros(sizes.messages, d)
    end[:, 0] = 1.0
    first, second = (randomiser.log_density(z, end) - randomiser.log_density(z, -end)
                     for z in (randomiser.randomise(v, generator) for v in (end, -end)))
    found = {"rounds": audit(first, second).epsilon}
    promise = _mechanism("moments one clip", d, AUDITED, sizes.delta)
    # The cosine of two users that lie furthest apart, and opposite y.
    a, b = ((s / r)**2 for s, r in zip((promise.second_sensitivity, promise.cross_sensitivity),
                                       reversed(promise.scales), strict=True))
    cosine = min(1.0, b / (4 * a))
    x = torch.zeros(2, d)
    x[:, 0], x[1, 1] = 100.0, 100.0 * math.sqrt(1 - cosine**2)
    x[1, 0] *= cosine
    clean = [promise.clean(x[i:i + 1], torch.tensor([100.0 * (-1)**i])) for i in range(2)]
    for name, factor in (("moments", 1.0), ("half_noise", 2.0)):   # twice the sums have half of the noise
        sent = [Message(factor * c.cross, factor * c.second, 1) for c in clean if c.second is not None]
        scores = [torch.tensor([_score(promise, promise.noised(s, generator), sent) for _ in range(sizes.heard)])
                  for s in sent]
        found[name] = audit(*scores, delta=sizes.delta).epsilon
    return found


def _score(mechanism: MomentMechanism, message: Message, clean: Sequence[Message]) -> float:
    """The log-likelihood ratio of the two users, up to a factor and a constant."""
    score = float(message.cross @ (clean[0].cross - clean[1].cross)) / mechanism.scales[0]**2
    assert message.second is not None
    assert clean[0].second is not None
    assert clean[1].second is not None
    return score + float(message.second @ (clean[0].second - clean[1].second)) / mechanism.scales[1]**2


def _root_mean_square(errors: Sequence[float]) -> float:
    return math.sqrt(fmean(e * e for e in errors))


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
