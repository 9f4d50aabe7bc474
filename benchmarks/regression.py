"""Penalised regression beside scikit-learn, and celer and skglm where they are installed; one thread.

Every solver is asked for a relative duality gap of 1e-6 (for MCP, which has none, for a violation of optimality of 1e-6
of the largest correlation), by the tolerance of its own that gives it: it is lowered by tens until a gap that is
computed here is reached. A row names the gap of both. The last rows are the geometric means against each peer and
against the best of them, and how our time grows with rows and columns.
"""

from __future__ import annotations

import importlib
import math
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
import scipy.special
import torch
from _paired import command, paired, row, time_row
from sklearn.linear_model import Lasso, LogisticRegression, MultiTaskLasso

from sparsepriors.priors import L1, MCP, GroupL2, Partition, Prior
from sparsepriors.regression import coordinate_descent, logistic_regression, regularization_path

Fit = Callable[[float], np.ndarray]
Gap = Callable[[np.ndarray], float]

GAP = 1e-6
GROUP = 10


def correlated(rows: int, columns: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Columns that follow one another with a correlation of 0.6, a hundredth of them in the model, noise a third."""
    rng = np.random.default_rng(seed)
    drawn, X = rng.standard_normal((rows, columns)), np.empty((rows, columns), order="F")
    X[:, 0] = drawn[:, 0]
    for j in range(1, columns):
        X[:, j] = 0.6 * X[:, j - 1] + 0.8 * drawn[:, j]
    w = np.zeros(columns)
    w[rng.choice(columns, max(columns // 100, 1), replace=False)] = 1.0
    signal, noise = X @ w, rng.standard_normal(rows)
    return X, signal + noise * np.linalg.norm(signal) / np.linalg.norm(noise) / 3


def counts(rows: int, columns: int, entries: int, seed: int = 0) -> tuple[Any, np.ndarray]:
    """A sparse design like words in short texts: columns drawn by Zipf's law, rows of length 1."""
    rng = np.random.default_rng(seed)
    law = 1 / np.arange(1, columns + 1)
    at = rng.integers(0, rows, entries), rng.choice(columns, entries, p=law / law.sum())
    X = scipy.sparse.csc_array((np.log(columns / (1.0 + at[1])) + 1, at), shape=(rows, columns))
    lengths = np.sqrt(np.asarray(X.multiply(X).sum(axis=1)).reshape(-1))
    X = scipy.sparse.csc_array(scipy.sparse.diags_array(1 / np.maximum(lengths, 1e-300)) @ X)
    w = np.where(rng.random(columns) < 0.02, rng.standard_normal(columns), 0.0)
    y = X @ w + 0.1 * rng.standard_normal(rows)
    narrow = scipy.sparse.csc_matrix((X.data, X.indices.astype(np.int32), X.indptr.astype(np.int32)), shape=X.shape)
    return narrow, (y - y.mean()) / y.std()


def relative_gap(X: Any, y: np.ndarray, w: np.ndarray, weight: float, groups: int = 1) -> float:
    """Of ``1/2 ||X w - y||^2 + weight sum_g ||w_g||``, groups being so many columns, over ``1/2 ||y||^2``."""
    r = y - X @ w
    reach, size = (np.linalg.norm(v.reshape(-1, groups), axis=1) for v in (X.T @ r, w))
    shrink = min(1.0, weight / max(reach.max(), 1e-300))
    return float((0.5 * r @ r + weight * size.sum() - shrink * r @ y + 0.5 * shrink**2 * r @ r) / (0.5 * y @ y))


def logistic_gap(X: np.ndarray, labels: np.ndarray, w: np.ndarray, weight: float) -> float:
    """Of ``sum log(1 + exp(-labels X w)) + weight ||w||_1``, over its value at zero."""
    margins = labels * (X @ w)
    p = 0.5 * (1 - np.tanh(margins / 2))
    p = p * min(1.0, weight / max(np.abs(X.T @ (labels * p)).max(), 1e-300))
    entropy = scipy.special.xlogy(p, p) + scipy.special.xlogy(1 - p, 1 - p)
    gap = np.logaddexp(0, -margins).sum() + weight * np.abs(w).sum() + entropy.sum()
    return float(gap / (len(labels) * math.log(2)))


def violation(X: np.ndarray, y: np.ndarray, w: np.ndarray, weight: float, gamma: float) -> float:
    """Of the optimality of MCP, the columns being of squared length n, over the largest correlation."""
    n, q = len(y), X.T @ (y - X @ w)
    inside = np.abs(w) <= gamma * weight
    pull = np.where(inside, weight * np.sign(w) - w / gamma, 0.0) * n
    off = np.where(w == 0, np.maximum(np.abs(q) - n * weight, 0), np.abs(q - pull))
    return float(off.max() / np.abs(X.T @ y).max())


def module(name: str) -> Any:
    """A peer, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def lasso_peers(X: Any, y: np.ndarray, weight: float) -> dict[str, Fit]:
    """A fit for each solver that is there, by its own tolerance."""
    alpha, found = weight / len(y), {}

    def scikit_learn(tol: float) -> np.ndarray:
        return np.asarray(Lasso(alpha=alpha, fit_intercept=False, tol=tol, max_iter=1_000_000).fit(X, y).coef_)

    found["scikit-learn Lasso"] = scikit_learn
    for name in ("celer", "skglm"):
        if (peer := module(name)) is not None:
            scale = float(np.sqrt(y @ y / len(y))) if name == "skglm" else 1.0  # its tolerance is absolute

            def other(tol: float, peer: Any = peer, scale: float = scale) -> np.ndarray:
                model = peer.Lasso(alpha=alpha, fit_intercept=False, tol=tol * scale, max_epochs=1_000_000)
                return model.fit(X, y).coef_

            found[f"{name} Lasso"] = other
    return found


def group_peers(X: np.ndarray, y: np.ndarray, weight: float) -> dict[str, Fit]:
    """The group Lasso of celer and skglm."""
    found, scale = {}, float(np.sqrt(y @ y / len(y)))
    for name in ("celer", "skglm"):
        if (peer := module(name)) is not None:
            def other(tol: float, peer: Any = peer, scale: float = scale if name == "skglm" else 1.0) -> np.ndarray:
                model = peer.GroupLasso(groups=GROUP, alpha=weight / len(y), fit_intercept=False, tol=tol * scale)
                return model.fit(X, y).coef_

            found[f"{name} GroupLasso"] = other
    return found


def mcp_peers(X: np.ndarray, y: np.ndarray, alpha: float) -> dict[str, Fit]:
    """MCP of skglm."""
    if (peer := module("skglm")) is None:
        return {}
    return {"skglm MCPRegression": lambda tol: peer.MCPRegression(alpha=alpha, gamma=3.0, fit_intercept=False,
                                                                  tol=tol).fit(X, y).coef_}


def logistic_peers(X: np.ndarray, labels: np.ndarray, weight: float) -> dict[str, Fit]:
    """Sparse logistic regression of all three."""
    found: dict[str, Fit] = {"scikit-learn liblinear": lambda tol: LogisticRegression(
        l1_ratio=1.0, C=1 / weight, fit_intercept=False, tol=tol, max_iter=100_000,
        solver="liblinear").fit(X, labels).coef_[0]}
    if (celer := module("celer")) is not None:
        found["celer LogisticRegression"] = lambda tol: celer.LogisticRegression(
            C=1 / weight, fit_intercept=False, tol=tol).fit(X, labels).coef_[0]
    if (skglm := module("skglm")) is not None:
        found["skglm SparseLogisticRegression"] = lambda tol: skglm.SparseLogisticRegression(
            alpha=weight / len(labels), fit_intercept=False, tol=tol).fit(X, labels).coef_[0]
    return found


def compare(case: str, ours: Callable[[], np.ndarray], peers: dict[str, Fit], gap: Gap) -> list[dict[str, Any]]:
    """A row for every peer, at the first of its tolerances that reaches the gap."""
    rows = []
    for name, fit in peers.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a tolerance that is too low for a peer is lowered below
            tol, theirs = 10 * GAP, math.inf
            for _ in range(6):
                if (theirs := gap(fit(tol))) <= GAP:
                    break
                tol /= 10
            found = paired(ours, lambda fit=fit, tol=tol: fit(tol), pairs=5, budget=20)
        rows.append({**time_row(case, name, found, target=1.0), "gap": gap(ours()), "peer_gap": theirs})
    return rows


def lasso(name: str, X: Any, y: np.ndarray) -> list[dict[str, Any]]:
    """The Lasso at a tenth and a hundredth of the largest strength."""
    A, b, rows = X if scipy.sparse.issparse(X) else torch.from_numpy(X), torch.from_numpy(y), []
    for part in (10, 100):
        weight = float(np.abs(X.T @ y).max()) / part
        rows += compare(f"{name}, lambda_max / {part}",
                        lambda weight=weight: coordinate_descent(A, b, L1(weight), tol=GAP).x.numpy(),
                        lasso_peers(X, y, weight), lambda w, weight=weight: relative_gap(X, y, w, weight))
    return rows


def path(name: str, X: np.ndarray, y: np.ndarray) -> list[dict[str, Any]]:
    """Thirty strengths down to a hundredth; the gap is the worst."""
    A, b = torch.from_numpy(X), torch.from_numpy(y)
    weights = float(np.abs(X.T @ y).max()) * np.geomspace(1, 0.01, 30)
    if (celer := module("celer")) is None:
        return []

    def worst(W: np.ndarray) -> float:
        return max(relative_gap(X, y, w, weight) for w, weight in zip(W.T, weights, strict=True))

    def ours() -> np.ndarray:
        return np.stack([s.x.numpy() for s in regularization_path(A, b, L1(), weights.tolist(), tol=GAP)], axis=1)

    fit: Fit = lambda tol: celer.celer_path(X, y, "lasso", alphas=weights / len(y), tol=tol)[1]  # noqa: E731
    return compare(f"{name}, path of 30", ours, {"celer celer_path": fit}, worst)


def groups(rows: int, columns: int) -> list[dict[str, Any]]:
    """Groups of ten columns."""
    X, y = correlated(rows, columns)
    A, b, labels = torch.from_numpy(X), torch.from_numpy(y), torch.arange(columns) // GROUP
    top, found = float(np.linalg.norm((X.T @ y).reshape(-1, GROUP), axis=1).max()), []
    for part in (5, 20):
        prior: Prior = Partition(L1(top / part), labels)
        found += compare(f"groups {rows} x {columns}, lambda_max / {part}",
                         lambda prior=prior: coordinate_descent(A, b, prior, tol=GAP).x.numpy(),
                         group_peers(X, y, top / part), lambda w, part=part: relative_gap(X, y, w, top / part, GROUP))
    return found


def tasks(rows: int, columns: int, count: int) -> list[dict[str, Any]]:
    """Several responses on the same hundredth of the columns."""
    X, _ = correlated(rows, columns)
    rng = np.random.default_rng(1)
    W = np.zeros((columns, count))
    W[rng.choice(columns, columns // 100, replace=False)] = rng.standard_normal((columns // 100, count))
    Y = X @ W + rng.standard_normal((rows, count))
    A, B, found = torch.from_numpy(X), torch.from_numpy(Y), []
    top = float(np.linalg.norm(X.T @ Y, axis=1).max())
    for part in (5, 20):
        alpha = top / part / rows

        def gap(w: np.ndarray, weight: float = top / part) -> float:
            r = Y - X @ w
            shrink = min(1.0, weight / max(np.linalg.norm(X.T @ r, axis=1).max(), 1e-300))
            square, size = float((r * r).sum()), float(np.linalg.norm(w, axis=1).sum())
            dual = shrink * float((r * Y).sum()) - 0.5 * shrink**2 * square
            return (0.5 * square + weight * size - dual) / (0.5 * float((Y * Y).sum()))

        peers: dict[str, Fit] = {"scikit-learn MultiTaskLasso": lambda tol, alpha=alpha: MultiTaskLasso(
            alpha=alpha, fit_intercept=False, tol=tol, max_iter=100_000).fit(X, Y).coef_.T}
        prior = GroupL2(top / part, axis=-1)
        found += compare(f"{count} responses, {rows} x {columns}, lambda_max / {part}",
                         lambda prior=prior: coordinate_descent(A, B, prior, tol=GAP).x.numpy(), peers, gap)
    return found


def mcp(rows: int, columns: int) -> list[dict[str, Any]]:
    """MCP, columns of squared length n."""
    X, y = correlated(rows, columns)
    X = np.asfortranarray(X * np.sqrt(rows) / np.linalg.norm(X, axis=0))
    A, b, found = torch.from_numpy(X), torch.from_numpy(y), []
    for part in (5, 20):
        alpha = float(np.abs(X.T @ y).max()) / rows / part
        found += compare(f"MCP {rows} x {columns}, lambda_max / {part}",
                         lambda alpha=alpha: coordinate_descent(A, b, MCP(alpha, gamma=3.0) * rows, tol=GAP).x.numpy(),
                         mcp_peers(X, y, alpha), lambda w, alpha=alpha: violation(X, y, w, alpha, 3.0))
    return found


def logistic(rows: int, columns: int) -> list[dict[str, Any]]:
    """Two classes, the signs of a linear response."""
    X, y = correlated(rows, columns)
    labels, found = np.where(y > np.median(y), 1.0, -1.0), []
    A, b = torch.from_numpy(X), torch.from_numpy(labels)
    for part in (10, 100):
        weight = 0.5 * float(np.abs(X.T @ labels).max()) / part
        found += compare(f"logistic {rows} x {columns}, lambda_max / {part}",
                         lambda weight=weight: logistic_regression(A, b, L1(weight), tol=GAP).x.numpy(),
                         logistic_peers(X, labels, weight),
                         lambda w, weight=weight: logistic_gap(X, labels, w, weight))
    return found


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Geometric means of the ratios to each package, and to the fastest of them case by case."""
    ratios: dict[str, list[float]] = {}
    best: dict[str, float] = {}
    for r in rows:
        ratios.setdefault(r["peer"].split()[0], []).append(r["ratio"])
        best[r["case"]] = min(best.get(r["case"], math.inf), r["ratio"])
    ratios["the fastest of them"] = list(best.values())
    return [{**row("all", "geometric mean", 1.0, name, mean := round(float(np.exp(np.log(v).mean())), 3), mean, 1.0),
             "least": min(v), "cases": len(v)} for name, v in ratios.items()]


def growth(quick: bool) -> list[dict[str, Any]]:
    """Exponents of our time in rows and in columns, at a tenth of the largest strength, by least squares of logs."""
    sizes, found = ((100, 200, 400) if quick else (250, 500, 1000, 2000)), []
    for name, shapes in (("rows", [(n, 2000) for n in sizes]), ("columns", [(300, 4 * n) for n in sizes])):
        seconds = []
        for shape in shapes:
            X, y = correlated(*shape)
            A, b, prior = torch.from_numpy(X), torch.from_numpy(y), L1(float(np.abs(X.T @ y).max()) / 10)
            trials = []
            for _ in range(4):
                begun = time.process_time()
                coordinate_descent(A, b, prior, tol=GAP)
                trials.append(time.process_time() - begun)
            seconds.append(min(trials))
        slope = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
        case = f"Lasso, {shapes[0][0]} x {shapes[0][1]} to {shapes[-1][0]} x {shapes[-1][1]}"
        found.append({**row(case, f"in {name}", round(slope, 2), "exponent of linear growth", 1.0, round(1 / slope, 3)),
                      "seconds": seconds})
    return found


def measure(quick: bool) -> list[dict[str, Any]]:
    if quick:
        rows = [*lasso("100 x 400", *correlated(100, 400)), *groups(100, 400), *tasks(60, 300, 3), *mcp(100, 400),
                *logistic(60, 300)]
        return [*rows, *means(rows), *growth(True)]
    rows = []
    for shape in ((71, 4000), (500, 5000), (5000, 500)):
        rows += lasso(f"{shape[0]} x {shape[1]}", *correlated(*shape))
    rows += lasso("sparse 20000 x 18000", *counts(20000, 18000, 280_000))
    rows += [*path("71 x 4000", *correlated(71, 4000)), *groups(500, 5000), *tasks(300, 2000, 10), *mcp(500, 5000),
             *logistic(60, 3000)]
    return [*rows, *means(rows), *growth(False)]


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print and write the rows."""
    return command("regression", __doc__ or "", measure, ["--threads", "1", *(arguments or [])])


if __name__ == "__main__":
    main(sys.argv[1:])
