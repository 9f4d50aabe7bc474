"""Best subsets beside scikit-learn's orthogonal matching pursuit, and abess where it is installed: residual and time.

A row for the residual sum of squares (the ratio is theirs over ours) and one for the time, on one thread.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _paired import command, paired, row, time_row
from sklearn.linear_model import orthogonal_mp

from regression import correlated
from sparsepriors.regression import best_subset


def peers(X: np.ndarray, y: np.ndarray, k: int) -> dict[str, Callable[[], np.ndarray]]:
    """Coefficients by each solver that is there."""
    found: dict[str, Callable[[], np.ndarray]] = {
        "scikit-learn orthogonal_mp": lambda: np.asarray(orthogonal_mp(X, y, n_nonzero_coefs=k))}
    try:
        abess: Any = importlib.import_module("abess")
    except ImportError:
        return found
    return {**found, "abess": lambda: abess.LinearRegression(support_size=k, fit_intercept=False).fit(X, y).coef_}


def measure(quick: bool) -> list[dict[str, Any]]:
    shapes = ((100, 400, 4),) if quick else ((500, 5000, 10), (71, 4000, 10))
    rows = []
    for n, p, k in shapes:
        X, y = correlated(n, p)
        X = X - X.mean(axis=0)
        X, y = np.asfortranarray(X / np.linalg.norm(X, axis=0)), y - y.mean()
        A, b = torch.from_numpy(X), torch.from_numpy(y)
        left = float(best_subset(A, b, k).extras["residual"])
        for name, fit in peers(X, y, k).items():
            theirs = float(np.square(y - X @ fit()).sum())
            case = f"{n} x {p}, {k} columns"
            rows.append(row(case, "residual sum of squares", left, name, theirs, theirs / left, target=1.0))
            rows.append(time_row(case, name, paired(lambda A=A, b=b, k=k: best_subset(A, b, k), fit, pairs=5)))
    return rows


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print and write the rows."""
    return command("best_subset", __doc__ or "", measure, ["--threads", "1", *(arguments or [])])


if __name__ == "__main__":
    main(sys.argv[1:])
