"""What sparsity is worth in dense weights, and the law that describes it (Frantar et al., 2023, arXiv:2309.08520)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sparsepriors import _checks
from sparsepriors.data.sparsity_scaling_runs import ScalingRun


def wins(runs: Sequence[ScalingRun]) -> tuple[int, int]:
    """How many sparse runs have a lower loss than a dense one of equally many weights and equal data, and of how many.

    Equal means equal to a millionth; a sparse run without a dense one to compare with is not counted.
    """
    _runs(runs)
    dense = {_key(r): r.loss for r in runs if r.sparsity == 0}
    pairs = [(r.loss, dense[_key(r)]) for r in runs if r.sparsity > 0 and _key(r) in dense]
    return sum(a < b for a, b in pairs), len(pairs)


def dense_equivalent(runs: Sequence[ScalingRun], sparse: ScalingRun) -> float | None:
    """How many times its kept weights a dense network would need for the sparse one's loss, at the same data.

    Between dense runs the logarithm of the weights is linear in that of the loss; beyond them there is no answer.
    """
    _runs(runs)
    _checks.instance("sparse", sparse, ScalingRun)
    curve = sorted((r.kept, r.loss) for r in runs if r.sparsity == 0 and r.data == sparse.data)
    for (n, loss), (more, less) in itertools.pairwise(curve):
        if less <= sparse.loss <= loss and less < loss:
            t = (math.log(loss) - math.log(sparse.loss)) / (math.log(loss) - math.log(less))
            return math.exp(math.log(n) + t * (math.log(more) - math.log(n))) / sparse.kept
    return None


def _runs(runs: Sequence[ScalingRun]) -> None:
    _checks.instance("runs", runs, (tuple, list))
    for i, run in enumerate(runs):
        _checks.instance(f"runs[{i}]", run, ScalingRun)


@dataclass(frozen=True)
class SparsityLaw:
    """loss = (a (1 - S)^b + c) N^-d + e D^-f + g, with N the kept weights in millions and D the data in ``unit``.

    The published form is (a_S (1 - S)^b_S + c_S) N^-b_N + (a_D / D)^b_D + c, of which e stands for a_D^b_D.
    """

    a: float
    b: float
    c: float
    d: float
    e: float
    f: float
    g: float
    unit: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            _checks.number(name, value)
        _checks.positive("unit", self.unit)

    def loss(self, runs: Sequence[ScalingRun]) -> np.ndarray:
        """Losses that the law predicts."""
        x = np.array([self.a, self.b, self.c, self.d, self.e, self.f, self.g])
        return _predicted(x, *_columns(runs, self.unit))


def fit_sparsity_law(runs: Sequence[ScalingRun], *, unit: float, logarithms: bool, delta: float, starts: int = 25,
                     generator: torch.Generator) -> SparsityLaw:
    """Fit the law by the Huber loss, from several random starts in [0, 1]^7, and keep the best fit.

    Parameters
    ----------
    runs
        At least eight.
    unit
        What data are counted in.
    logarithms, delta
        Whether residuals are of logarithms, and where the Huber loss becomes linear: true and 0.001 for T5, false and
        0.01 for the vision transformers in the published study.
    starts, generator
        How many, and the source of them.

    Raises
    ------
    ValueError
        If there are too few runs or a number is out of range.
    FloatingPointError
        If no start leads to finite parameters.
    """
    from scipy.optimize import minimize
    from scipy.special import huber

    _checks.count("the number of runs", len(runs), low=8)
    _checks.count("starts", starts, low=1)
    _checks.positive("unit", unit)
    _checks.positive("delta", delta)
    columns, loss = _columns(runs, unit), np.array([r.loss for r in runs])

    def objective(x: np.ndarray) -> float:
        with np.errstate(all="ignore"):
            predicted = _predicted(x, *columns)
            if logarithms:
                residual = np.log(predicted) - np.log(loss) if predicted.min() > 0 else np.full(len(loss), np.inf)
            else:
                residual = predicted - loss
            value = float(huber(delta, residual).sum())
        return value if math.isfinite(value) else 1e10

    best: Any = None
    for x0 in torch.rand(starts, 7, generator=generator, dtype=torch.float64).numpy():
        found: Any = minimize(objective, x0, method="BFGS")
        if np.isfinite(found.x).all() and found.fun < 1e10 and (best is None or found.fun < best.fun):
            best = found
    if best is None:
        raise FloatingPointError(f"none of {starts} starts led to a law that fits")
    return SparsityLaw(*map(float, best.x), unit=unit)


def _predicted(x: np.ndarray, sparsity: np.ndarray, kept: np.ndarray, data: np.ndarray) -> np.ndarray:
    a, b, c, d, e, f, g = x
    return (a * (1 - sparsity)**b + c) * kept**-d + e * data**-f + g


def _columns(runs: Sequence[ScalingRun], unit: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (np.array([r.sparsity for r in runs]), np.array([r.kept / 1e6 for r in runs]),
            np.array([r.data / unit for r in runs]))


def _key(run: ScalingRun) -> tuple[int, float]:
    return round(1e6 * math.log(run.kept)), run.data
