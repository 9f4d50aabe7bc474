"""The Lasso and its paths beside scikit-learn, and celer and skglm where they are installed; one thread.

Every solver is asked for a relative duality gap of 1e-6, by the tolerance of its own that gives it: it is lowered by
tens until the gap, computed here, is reached. A row names the gap of both.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _paired import command, paired, time_row
from sklearn.linear_model import Lasso

from sparsepriors.priors import L1
from sparsepriors.regression import coordinate_descent

Fit = Callable[[float], np.ndarray]

GAP = 1e-6


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


def relative_gap(X: np.ndarray, y: np.ndarray, w: np.ndarray, weight: float) -> float:
    """Of ``1/2 ||X w - y||^2 + weight ||w||_1``, over ``1/2 ||y||^2``."""
    r = y - X @ w
    shrink = min(1.0, weight / max(np.abs(X.T @ r).max(), 1e-300))
    return float((0.5 * r @ r + weight * np.abs(w).sum() - shrink * r @ y + 0.5 * shrink**2 * r @ r) / (0.5 * y @ y))


def peers(X: np.ndarray, y: np.ndarray, weight: float) -> dict[str, Fit]:
    """A fit for each solver that is there, by its own tolerance."""
    alpha, found = weight / len(y), {}

    def scikit_learn(tol: float) -> np.ndarray:
        return np.asarray(Lasso(alpha=alpha, fit_intercept=False, tol=tol, max_iter=1_000_000).fit(X, y).coef_)

    found["scikit-learn Lasso"] = scikit_learn
    for name in ("celer", "skglm"):
        try:
            module: Any = importlib.import_module(name)
        except ImportError:
            continue
        scale = float(np.sqrt(y @ y / len(y))) if name == "skglm" else 1.0  # its tolerance is absolute

        def other(tol: float, module: Any = module, scale: float = scale) -> np.ndarray:
            return module.Lasso(alpha=alpha, fit_intercept=False, tol=tol * scale, max_epochs=1_000_000).fit(X, y).coef_

        found[f"{name} Lasso"] = other
    return found


def measure(quick: bool) -> list[dict[str, Any]]:
    shapes = ((100, 400),) if quick else ((71, 4000), (500, 5000), (5000, 500))
    rows = []
    for shape in shapes:
        X, y = correlated(*shape)
        A, b = torch.from_numpy(X), torch.from_numpy(y)
        top = float(np.abs(X.T @ y).max())
        for part in (10, 100):
            weight = top / part

            def ours(A: torch.Tensor = A, b: torch.Tensor = b, weight: float = weight) -> np.ndarray:
                return coordinate_descent(A, b, L1(weight), tol=GAP).x.numpy()

            gap = relative_gap(X, y, ours(), weight)
            for name, fit in peers(X, y, weight).items():
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # a tolerance that is too low for a peer is lowered below
                    tol, theirs = 10 * GAP, float("inf")
                    for _ in range(6):
                        if (theirs := relative_gap(X, y, fit(tol), weight)) <= GAP:
                            break
                        tol /= 10
                    found = paired(ours, lambda fit=fit, tol=tol: fit(tol), pairs=5, budget=20)
                rows.append({**time_row(f"{shape[0]} x {shape[1]}, lambda_max / {part}", name, found, target=1.0),
                             "gap": gap, "peer_gap": theirs})
    return rows


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print and write the rows."""
    return command("regression", __doc__ or "", measure, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
