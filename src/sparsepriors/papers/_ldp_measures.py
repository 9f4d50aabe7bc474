"""What the experiment on private regression measures: one function per unit of work."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch

from sparsepriors.papers._ldp_users import Y_SCALE, Crowd, Pictures, Users
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
from sparsepriors.runs import Scale

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
    pictures: tuple[str, int]
    """A set of pictures, and the side of the squares of pixels whose means are features."""
    messages: int
    heard: int


SIZES = {
    Scale.SMOKE: Sizes(20_000, (20_000, 80_000), (4, 8), (2.0, 4.0), (0.5, 1.0), 1e-3, 5000, 2, 2, 16, 20_000, (1, 4),
                       8, (500, 20, 3), ("digits8", 2), 2000, 100),
    Scale.DEFAULT: Sizes(200_000, (200_000, 800_000, 3_200_000), (8, 16), (2.0, 4.0), (0.5, 1.0), 1e-3, 100_000, 64, 16,
                         64, 800_000, (2, 8), 16, (5000, 100, 5), ("fashion-mnist", 4), 100_000, 10_000),
    Scale.FULL: Sizes(1_000_000, (1_000_000, 4_000_000, 16_000_000, 100_000_000), (8, 16, 32), (2.0, 4.0), (0.5, 1.0),
                      1e-3, 100_000, 32, 4, 64, 4_000_000, (2, 8), 16, (5000, 100, 5), ("fashion-mnist", 4), 1_000_000,
                      100_000),
}
"""Rounds, which need the users in memory, are run up to `IN_MEMORY` of them."""
IN_MEMORY = 4_000_000


def _mechanism(arm: str, d: int, epsilon: float, delta: float) -> MomentMechanism:
    """The clips of one x serve all arms: 1.5 sqrt(d) in norm, 2.5 for an entry, 3 for y."""
    return MomentMechanism(d, epsilon, delta, 1.5 * math.sqrt(d), 3.0, None if "one clip" in arm else 2.5,
                           covariance="moments" in arm, noise="published" if "published" in arm else "exact")


def _public(users: Users, count: int) -> PublicCovariance:
    """Of the features of further users, which the server knows."""
    return PublicCovariance.of(users.draw(-1, count)[0].numpy())


def moments(users: Users, sizes: Sizes, small: Sequence[float]) -> dict[str, Any]:
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


def _errors(users: Crowd, mechanism: MomentMechanism, clean: Message, public: PublicCovariance, draws: int,
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
    return {"error": root_mean_square(raw), "soft_error": root_mean_square(soft), "threshold": fmean(thresholds),
            "soft_helps": fmean(s < r for s, r in zip(soft, raw, strict=True)), "exact_support": exact / draws,
            "indefinite": indefinite / draws}


def rounds(users: Users, sizes: Sizes, small: Sequence[float]) -> dict[str, Any]:
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


def _one(users: Crowd, X: np.ndarray, y: np.ndarray, arm: str, epsilon: float, repeat: int) -> tuple[float, bool]:
    model = LDPIHT(epsilon, min(users.d, 4 * users.k) if arm == "rounds 4k" else users.k, y_scale=Y_SCALE,
                   radius="published" if arm == "rounds published radius" else "auto",
                   bound=2.0 if arm == "rounds loose ball" else 1.0, random_state=users.seed * 1000 + repeat).fit(X, y)
    return users.error(model.coef_), bool(((model.coef_ != 0) == (users.theta.numpy() != 0)).all())


def _summary(found: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    return {"error": root_mean_square([e for e, _ in found]), "exact_support": fmean(s for _, s in found)}


def wide(seed: int, sizes: Sizes) -> dict[str, Any]:
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


def correlated(users: Users, sizes: Sizes) -> dict[str, Any]:
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


def pictures(seed: int, sizes: Sizes) -> dict[str, Any]:
    """Features of pictures, which are not normal, beside normal ones of the same number for as many users."""
    crowd, epsilon = Pictures.of(*sizes.pictures, 2, seed), max(sizes.epsilons)
    n, normal = len(crowd.X), Users(crowd.d, 2, seed, len(crowd.X))
    kinds = ((sizes.pictures[0], crowd, crowd.X, crowd.responses(), PublicCovariance.of(crowd.public.numpy())),
             ("normal", normal, *normal.draw(0), _public(normal, len(crowd.public))))
    rows = []
    for features, users, X, y, public in kinds:
        at = {"features": features, "d": users.d, "k": 2, "n": n, "epsilon": epsilon}
        for arm in ("moments one clip", "public one clip"):
            mechanism = _mechanism(arm, users.d, epsilon, sizes.delta)
            generator = torch.Generator().manual_seed(seed)
            rows.append({"arm": arm, **at, **_errors(users, mechanism, mechanism.clean(X, y), public, sizes.draws,
                                                     generator)})
        found = [_one(users, X.numpy(), y.numpy(), "rounds", epsilon, repeat) for repeat in range(sizes.repeats)]
        rows.append({"arm": "rounds", **at, **_summary(found)})
    return {"rows": rows}


def support(seed: int, sizes: Sizes) -> dict[str, Any]:
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


def closed(seed: int, sizes: Sizes) -> dict[str, Any]:
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


def audits(seed: int, sizes: Sizes) -> dict[str, Any]:
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


def root_mean_square(errors: Sequence[float]) -> float:
    return math.sqrt(fmean(e * e for e in errors))
