"""Proxes against the search of a dense grid, refined around its best points, with formulas written down again here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors import priors as pr
from sparsepriors.operators import WaveletTransform

F64 = torch.float64
Formula = Callable[[np.ndarray], np.ndarray]
POINTS = st.floats(-6, 6)
WEIGHTS = st.floats(0.01, 4)
STEPS = st.floats(0.01, 8)
SHAPES = st.floats(0.2, 4)  # the second parameter of a penalty: where it bends


def mcp(m: np.ndarray, w: float, gamma: float) -> np.ndarray:
    return np.where(m <= gamma * w, w * m - m**2 / (2 * gamma), gamma * w**2 / 2)


def scad(m: np.ndarray, w: float, a: float) -> np.ndarray:
    """By its slope, w up to w and (a w - m) / (a - 1) up to a w, integrated."""
    knots = np.minimum(m, a * w)
    beyond = np.maximum(knots - w, 0)
    return w * np.minimum(knots, w) + w * beyond - beyond**2 / (2 * (a - 1))


def cel0(m: np.ndarray, w: float, norm: float) -> np.ndarray:
    return w - norm**2 / 2 * np.maximum(np.sqrt(2 * w) / norm - m, 0) ** 2


# name: (the prior and the penalty of a modulus, for a weight and a second parameter)
SEPARABLE: dict[str, tuple[Callable[[float, float], pr.Prior], Callable[[np.ndarray, float, float], np.ndarray]]] = {
    "L1": (lambda w, s: pr.L1(w), lambda m, w, s: w * m),
    "SquaredL2": (lambda w, s: pr.SquaredL2(w), lambda m, w, s: w * m**2 / 2),
    "ElasticNet": (lambda w, s: pr.ElasticNet(w, s), lambda m, w, s: w * m + s * m**2 / 2),
    "Huber": (lambda w, s: pr.Huber(w, s), lambda m, w, s: w * np.where(m <= s, m**2 / (2 * s), m - s / 2)),
    "L0": (lambda w, s: pr.L0(w), lambda m, w, s: w * (m != 0)),
    "Lq 1/2": (lambda w, s: pr.Lq(w, 0.5), lambda m, w, s: w * np.sqrt(m)),
    "Lq 2/3": (lambda w, s: pr.Lq(w, 2 / 3), lambda m, w, s: w * np.cbrt(m) ** 2),
    "MCP": (lambda w, s: pr.MCP(w, s), mcp),
    "SCAD": (lambda w, s: pr.SCAD(w, 2 + s), lambda m, w, s: scad(m, w, 2 + s)),
    "LogSum": (lambda w, s: pr.LogSum(w, s), lambda m, w, s: w * np.log1p(m / s)),
    "CEL0": (lambda w, s: pr.CEL0(w, s), cel0),
    "LinfBall": (lambda w, s: pr.LinfBall(w), lambda m, w, s: np.where(m <= w, 0.0, np.inf)),
}


def least(cost: Formula, x: np.ndarray) -> np.ndarray:
    """The least cost for each x: 1601 points on [-8, 8], 0 and x, then eight finer grids around the best four."""
    grid = np.concatenate([np.broadcast_to(np.linspace(-8, 8, 1601)[:, None], (1601, x.size)), 0 * x[None], x[None]])
    costs = cost(grid)
    best = costs.min(axis=0)
    for starts in np.argpartition(costs, 4, axis=0)[:4]:
        centre, width = np.take_along_axis(grid, starts[None], axis=0)[0], 0.01
        for _ in range(8):
            near = centre + width * np.linspace(-1, 1, 21)[:, None]
            costs_near = cost(near)
            centre = np.take_along_axis(near, costs_near.argmin(axis=0)[None], axis=0)[0]
            best, width = np.minimum(best, costs_near.min(axis=0)), width / 7
    return best


@pytest.mark.parametrize("name", sorted(SEPARABLE))
@given(offset=st.floats(-0.2, 0.2), weight=WEIGHTS, step=STEPS, shape=SHAPES)
def test_separable_proxes_are_global_minimisers(name: str, offset: float, weight: float, step: float,
                                                shape: float) -> None:
    make, penalty = SEPARABLE[name]
    x = np.linspace(-7, 7, 36) + offset

    def cost(u: np.ndarray) -> np.ndarray:
        return step * penalty(np.abs(u), weight, shape) + 0.5 * (u - x) ** 2

    u = make(weight, shape).prox(torch.from_numpy(x), step).numpy()
    if name == "LinfBall":
        u = np.clip(u, -weight, weight)  # its edge to the last bit
    found = cost(u)
    assert (found <= least(cost, x) + 1e-9 * (1 + found)).all()


@pytest.mark.parametrize("name", sorted(SEPARABLE))
@given(m=st.lists(st.floats(-6, 6), min_size=1, max_size=8), weight=WEIGHTS, shape=SHAPES)
def test_values_are_the_formulas(name: str, m: list[float], weight: float, shape: float) -> None:
    make, penalty = SEPARABLE[name]
    expected = float(penalty(np.abs(np.array(m)), weight, shape).sum())
    if np.isfinite(expected):
        found = float(make(weight, shape).value(torch.tensor(m, dtype=F64)))
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", sorted(SEPARABLE))
@given(x=st.lists(POINTS, min_size=2, max_size=2), weight=WEIGHTS, step=STEPS, shape=SHAPES)
def test_complex_proxes_shrink_the_modulus_and_keep_the_phase(name: str, x: list[float], weight: float, step: float,
                                                              shape: float) -> None:
    prior = SEPARABLE[name][0](weight, shape)
    z = torch.tensor(complex(*x), dtype=torch.complex128)
    u, r = prior.prox(z, step), prior.prox(z.abs(), step)
    assert float((u - r * (z / z.abs() if float(z.abs()) > 1e-300 else 0)).abs()) <= 1e-9 * (1 + float(z.abs()))


def norm(p: np.ndarray) -> np.ndarray:
    return np.hypot(p[0], p[1])


def inside(holds: np.ndarray) -> np.ndarray:
    return np.where(holds, 0.0, np.inf)


SLOPE_SHARES = (1.0, 0.4)
# name: (the prior of two entries, and its value on points (2, n))
JOINT: dict[str, tuple[Callable[[float], pr.Prior], Callable[[np.ndarray, float], np.ndarray]]] = {
    "GroupL2": (pr.GroupL2, lambda p, w: w * norm(p)),
    "SLOPE": (lambda w: pr.SLOPE(w * torch.tensor(SLOPE_SHARES, dtype=F64)),
              lambda p, w: w * (np.abs(p).max(axis=0) + 0.4 * np.abs(p).min(axis=0))),
    "TV": (lambda w: pr.TV(w, tol=1e-10, dims=1), lambda p, w: w * np.abs(p[1] - p[0])),
    "InBasis": (lambda w: pr.InBasis(pr.L1(w), WaveletTransform((2,), "haar", 1, dtype=F64)),
                lambda p, w: w * (np.abs(p[0] + p[1]) + np.abs(p[0] - p[1])) / np.sqrt(2)),
    "L2Ball": (pr.L2Ball, lambda p, w: inside(norm(p) <= w)),
    "L1Ball": (pr.L1Ball, lambda p, w: inside(np.abs(p).sum(axis=0) <= w)),
    "Box": (lambda w: pr.Box(-w / 2, w), lambda p, w: inside((p >= -w / 2).all(axis=0) & (p <= w).all(axis=0))),
    "NonNegative": (lambda w: pr.NonNegative(), lambda p, w: inside((p >= 0).all(axis=0))),
}


@pytest.mark.parametrize("name", sorted(JOINT))
@given(x=st.lists(st.floats(-3, 3), min_size=2, max_size=2), weight=st.floats(0.1, 2), step=st.floats(0.1, 3))
def test_joint_proxes_are_minimisers(name: str, x: list[float], weight: float, step: float) -> None:
    make, value = JOINT[name]
    start = np.array(x)

    def cost(p: np.ndarray) -> np.ndarray:
        return step * value(p, weight) + 0.5 * ((p - start[:, None]) ** 2).sum(axis=0)

    u = make(weight).prox(torch.tensor(x, dtype=F64), step).numpy()
    centre, half = np.zeros(2), 4.0
    for _ in range(9):
        axes = [np.linspace(c - half, c + half, 33) for c in centre]
        points = np.stack(np.meshgrid(*axes)).reshape(2, -1)
        centre, half = points[:, cost(points).argmin()], half / 3
    best = float(cost(centre[:, None])[0])
    # A point on the edge of a set may lie outside by its rounding; a hair nearer to the middle it does not.
    found = min(float(cost(u[:, None] * shrink)[0]) for shrink in (1, 1 - 1e-12))
    assert found <= best + 1e-6 * (1 + best)
    assert np.abs(u - centre).max() <= 0.2
