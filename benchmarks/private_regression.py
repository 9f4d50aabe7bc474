"""The closed form and its path of 50 thresholds beside scikit-learn's Lasso, and private messages beside their noise.

The Lasso solves another problem (it iterates, and is more accurate where columns are correlated); what is compared is
the time to a path of 50 sparse models of the same data. A private gradient needs one normal number for each entry:
drawing those alone is the limit.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from _paired import command, paired, time_row
from sklearn.linear_model import LassoCV, lasso_path

from sparsepriors.regression import GradientMechanism, SoftOLS


def measure(quick: bool) -> list[dict[str, Any]]:
    rows = []
    for n, d in ((500, 20),) if quick else ((5000, 100), (20_000, 500)):
        rng = np.random.default_rng(0)
        X = rng.standard_normal((n, d))
        y = X[:, :5].sum(1) / np.sqrt(5) + 0.5 * rng.standard_normal(n)
        levels = np.geomspace(1e-3, 1, 50)

        def ours(X: np.ndarray = X, y: np.ndarray = y, levels: np.ndarray = levels) -> np.ndarray:
            return SoftOLS(0.0, fit_intercept=False).fit(X, y).path(levels)

        def theirs(X: np.ndarray = X, y: np.ndarray = y) -> np.ndarray:
            many: Any = 50  # a number of strengths, which scikit-learn's documented types do not name
            return lasso_path(X, y, alphas=many)[1]

        def validated(X: np.ndarray = X, y: np.ndarray = y) -> np.ndarray:
            return LassoCV(alphas=50, cv=5, fit_intercept=False).fit(X, y).coef_

        case = f"{n} x {d}, 50 strengths"
        rows.append(time_row(case, "scikit-learn lasso_path", paired(ours, theirs), target=20.0))
        rows.append(time_row(case, "scikit-learn LassoCV, 5 folds", paired(ours, validated, pairs=5)))
    for users, d in ((10_000, 16),) if quick else ((100_000, 16), (100_000, 64)):
        mechanism, generator = GradientMechanism(d, 1.0, 6.0), torch.Generator().manual_seed(0)
        X, y = torch.randn(users, d, generator=generator), torch.randn(users, generator=generator)
        rows.append(time_row(f"private gradients of {users:,} users, d = {d}", "torch.randn of as many numbers", paired(
            lambda m=mechanism, X=X, y=y, g=generator: m.total(X, y, torch.zeros(X.shape[1]), g),
            lambda X=X, g=generator: torch.randn(X.shape, generator=g))))
    return rows


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print and write the rows."""
    return command("private_regression", __doc__ or "", measure, ["--threads", "1", *(arguments or [])])


if __name__ == "__main__":
    main(sys.argv[1:])
