"""Proximal operators against pyproximal, scikit-image and scikit-learn: TV, projections, SLOPE, nuclear norm.

    python benchmarks/proxes.py

Closed forms must agree with the peer's answer before they are timed. Iterative peers are given the fewest iterations
with which they reach the objective that ours stops at.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pyproximal
import torch
from _paired import command, paired, time_row
from skimage.restoration import denoise_tv_chambolle
from sklearn.isotonic import isotonic_regression
from torch import Tensor

from sparsepriors.data import luma, photos
from sparsepriors.priors import SLOPE, TV, L1Ball, NuclearNorm, Simplex

MOST_ITERATIONS = 2048
PHOTO = "astronaut"
WEIGHT, NOISE = 0.1, 0.1


def fewest(reaches: Callable[[int], bool]) -> int | None:
    """The least number of iterations that reaches the goal, by doubling and bisection; None beyond the most."""
    high = 1
    while not reaches(high):
        if high >= MOST_ITERATIONS:
            return None
        high *= 2
    low = high // 2
    while high - low > max(1, high // 20):
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def slope_by_sklearn(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    order = np.argsort(-np.abs(x), kind="stable")
    moduli = np.empty_like(x)
    moduli[order] = np.maximum(isotonic_regression(np.abs(x)[order] - weights, increasing=False), 0)
    return np.copysign(moduli, x)


def noisy(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A photograph, or slices of one in a stack, with noise."""
    image = luma(photos([PHOTO])[PHOTO])[:shape[0], :shape[1]]
    if len(shape) == 3:
        image = image[..., None] * torch.linspace(0.2, 1, shape[2])
    return image + NOISE * torch.randn(shape, generator=generator)


def total_variation(quick: bool, generator: torch.Generator) -> list[dict[str, Any]]:
    rows = []
    for shape, tol in (((32, 32), 1e-3),) if quick else (((256, 256), 1e-3), ((256, 256), 1e-4), ((512, 512), 1e-3),
                                                         ((25, 25, 49), 1e-3)):
        x = noisy(shape, generator)
        prior = TV(WEIGHT, tol=tol, dims=len(shape))
        exact = TV(WEIGHT, dims=len(shape))

        def objective(u: Tensor, x: Tensor = x, exact: TV = exact) -> float:
            return float(exact.value(u.double()) + 0.5 * (u.double() - x.double()).square().sum())

        goal = objective(prior.prox(x))
        case = f"TV prox, {'x'.join(map(str, shape))}, gap {tol:g}"

        def chambolle(iterations: int, x: Tensor = x) -> Tensor:
            return torch.from_numpy(denoise_tv_chambolle(x.numpy(), WEIGHT, eps=0, max_num_iter=iterations))

        theirs = pyproximal.TV(shape, WEIGHT, niter=MOST_ITERATIONS, rtol=0)

        def beck_teboulle(iterations: int, x: Tensor = x, theirs: Any = theirs) -> Tensor:
            theirs.niter = iterations
            return torch.from_numpy(theirs.prox(x.numpy().ravel(), 1.0)).reshape(x.shape)

        peers = {"scikit-image denoise_tv_chambolle": chambolle}
        if not rows:  # an iteration of the other takes ten times as long: it is tried on the first case only
            peers["pyproximal TV"] = beck_teboulle
        for name, peer in peers.items():
            needed = fewest(lambda n, f=peer, goal=goal, of=objective: of(f(n)) <= goal * (1 + 1e-6))
            label = f"{name}, {needed or f'over {MOST_ITERATIONS}'} iterations"
            iterations = needed or MOST_ITERATIONS
            found = paired(lambda p=prior, x=x: p.prox(x), lambda f=peer, n=iterations: f(n), pairs=5, budget=6)
            rows.append(time_row(case, label, found))
    return rows


def projections(quick: bool, generator: torch.Generator) -> list[dict[str, Any]]:
    """The simplex and the l1 ball of a tenth of the norm."""
    rows = []
    for n in (100,) if quick else (1000, 30_000, 1_000_000):
        x = torch.randn(n, dtype=torch.float64, generator=generator)
        radius = 0.1 * float(x.abs().sum())
        simplex, ball = Simplex(radius), L1Ball(radius)
        their_simplex, their_ball = pyproximal.Simplex(n, radius), pyproximal.L1Ball(n, radius)
        rows.append(compared(f"simplex, n = {n:,}", "pyproximal Simplex", lambda p=simplex, x=x: p.prox(x),
                             lambda p=their_simplex, x=x: p.prox(x.numpy(), 1.0), 1e-5))
        rows.append(compared(f"l1 ball, n = {n:,}", "pyproximal L1Ball", lambda p=ball, x=x: p.prox(x),
                             lambda p=their_ball, x=x: p.prox(x.numpy(), 1.0), 1e-4))
    return rows


def closed_forms(quick: bool, generator: torch.Generator) -> list[dict[str, Any]]:
    """SLOPE, and the nuclear norm with thresholds near to and far from the largest singular value."""
    n = 100 if quick else 1_000_000
    x = torch.randn(n, dtype=torch.float64, generator=generator)
    weights = torch.linspace(2, 0, n, dtype=torch.float64)
    slope = SLOPE(weights)
    rows = [compared(f"SLOPE, n = {n:,}", "scikit-learn isotonic_regression", lambda: slope.prox(x),
                     lambda: slope_by_sklearn(x.numpy(), weights.numpy()), 1e-10)]
    for side, weight in ((20, 5.0),) if quick else ((50, 1.0), (500, 5.0), (500, 0.05)):
        matrix = torch.randn(side, side, dtype=torch.float64, generator=generator)
        nuclear, theirs = NuclearNorm(weight), pyproximal.Nuclear((side, side), weight)
        rows.append(compared(f"nuclear norm, {side} x {side}, threshold {weight:g}", "pyproximal Nuclear",
                             lambda p=nuclear, x=matrix: p.prox(x),
                             lambda p=theirs, x=matrix: p.prox(x.numpy().ravel(), 1.0), 1e-10))
    return rows


def compared(case: str, name: str, ours: Callable[[], Tensor], peer: Callable[[], Any],
             accuracy: float) -> dict[str, Any]:
    """A row, once both have given the same answer to the accuracy of the peer."""
    off = float((ours().flatten() - torch.from_numpy(np.asarray(peer()).ravel())).abs().max())
    if off > accuracy:
        raise AssertionError(f"{case}: ours and {name} differ by {off:.1e}")
    return time_row(case, name, paired(ours, peer, pairs=51, budget=3))


def measure(quick: bool) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    return total_variation(quick, generator) + projections(quick, generator) + closed_forms(quick, generator)


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print and write the rows."""
    return command("proxes", __doc__ or "", measure, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
