"""Sparse Bayesian learning beside scikit-learn, and on Kronecker factors beside the matrix that they stand for.

Errors are compared before times: a row names both sides' distance to the true coefficients.
"""

from __future__ import annotations

import gc
import math
import sys
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
from _paired import command, paired, row, time_row
from sklearn.linear_model import ARDRegression

from sparsepriors.data.kronecker_sparse import kronecker_sparse
from sparsepriors.operators import Kronecker
from sparsepriors.priors import KroneckerVariances
from sparsepriors.regression import SparseBayesRegressor, kron_sbl, kron_sbl_cost, sparse_bayes_cost
from sparsepriors.runs.machine import peak_rss_mb, reset_peak_rss

SVD = KroneckerVariances("svd")


def regression(rows: int, columns: int, pairs: int) -> list[dict[str, Any]]:
    """Each update beside ARDRegression; a twentieth of the columns is in the model."""
    rng = np.random.default_rng(0)
    X, w = rng.standard_normal((rows, columns)), np.zeros(columns)
    w[:columns // 20] = rng.standard_normal(columns // 20)
    y = X @ w + 0.3 * rng.standard_normal(rows)
    ard = ARDRegression().fit(X, y)
    out = []
    for update in ("em", "mackay", "one-by-one"):
        model = SparseBayesRegressor(update=update)
        found = paired(partial(model.fit, X, y), partial(ARDRegression().fit, X, y), pairs=pairs)
        out.append({**time_row(f"{rows} x {columns}, {update}", "scikit-learn ARDRegression", found, target=1.0),
                    "error": float(np.linalg.norm(model.coef_ - w) / np.linalg.norm(w)),
                    "peer_error": float(np.linalg.norm(ard.coef_ - w) / np.linalg.norm(w))})
    return out


def factors(rows: tuple[int, int, int], columns: int, pairs: int) -> list[dict[str, Any]]:
    """One E-step on the factors and on the matrix, and ten problems together and one by one."""
    p = kronecker_sparse(10, rows, (columns,) * 3, (3, 3, 3), 20.0, torch.Generator().manual_seed(0))
    A, y = reduce(torch.kron, [a[0] for a in p.factors]), p.y[0].flatten()
    one, each = torch.ones(columns**3, dtype=torch.float64), [torch.ones(columns, dtype=torch.float64)] * 3
    noise = float(p.noise_var[0])
    structured = partial(kron_sbl_cost, p.y[0], [a[0] for a in p.factors], each, noise)
    dense = partial(sparse_bayes_cost, A, y, one, noise)
    assert math.isclose(float(structured()), dense(), rel_tol=1e-8)
    free = partial(sparse_bayes_cost, Kronecker(tuple(a[0] for a in p.factors)), y, one, noise)
    assert math.isclose(free(), dense(), rel_tol=1e-8)
    case = f"{'x'.join(map(str, rows))} rows, {columns}^3 unknowns"
    out = [time_row(f"E-step, {case}", "the same on the matrix", paired(structured, dense, pairs=pairs), target=20.0),
           time_row(f"E-step, {case}, a variance for each", "the same on the matrix", paired(free, dense, pairs=pairs),
                    target=3.0)]

    def together() -> torch.Tensor:
        return kron_sbl(p.y, p.factors, SVD, noise_var=p.noise_var, prune=1e-3).x

    def alone() -> torch.Tensor:
        return torch.stack([kron_sbl(p.y[i], [a[i] for a in p.factors], SVD, noise_var=float(p.noise_var[i]),
                                     prune=1e-3).x for i in range(10)])

    torch.testing.assert_close(together(), alone())
    found = paired(together, alone, pairs=pairs)
    return [*out, time_row(f"ten problems, {case}", "one after the other", found, target=1.5)]


def memory(rows: int, columns: int) -> dict[str, Any]:
    """Peak memory of a solution beside the bytes of the matrix, which is not made."""
    g = torch.Generator().manual_seed(0)
    matrices = [torch.randn(rows, columns, dtype=torch.float64, generator=g) for _ in range(3)]
    y = torch.randn(rows, rows, rows, dtype=torch.float64, generator=g)
    kron_sbl(y, matrices, SVD, noise_var=1.0, max_iter=1)  # libraries load their code once
    gc.collect()
    reset_peak_rss()
    before = peak_rss_mb()
    kron_sbl(y, matrices, SVD, noise_var=1.0, max_iter=3)
    ours, peer = max(peak_rss_mb() - before, 0.1), 8e-6 * rows**3 * columns**3
    return row(f"peak memory, {rows}^3 rows, {columns}^3 unknowns", "MB", round(ours, 1), "the matrix alone",
               round(peer, 1), round(peer / ours, 1), 100.0)


def measure(quick: bool) -> list[dict[str, Any]]:
    if quick:
        return [*regression(60, 40, 2), *factors((4, 5, 6), 6, 2), memory(8, 16)]
    return [*regression(500, 200, 7), *regression(2000, 500, 3), *factors((8, 12, 15), 15, 5), memory(24, 64)]


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print and write the rows."""
    return command("sparse_bayes", __doc__ or "", measure, ["--threads", "1", *(arguments or [])])


if __name__ == "__main__":
    main(sys.argv[1:])
