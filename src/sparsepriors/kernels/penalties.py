"""Separable penalties at one coordinate, as plain numbers: what coordinate descent evaluates millions of times.

A penalty is a `Penalty` code with two numbers per coordinate, ``weight`` and ``second``:

======== ============================== ======================================
code     g(v), r = abs(v)               weight, second
======== ============================== ======================================
elastic  weight r + second r^2 / 2      of L1, of the ridge
positive the same for v >= 0, else inf  of L1, of the ridge
box      0 for weight <= v <= second    the bounds
l0       weight [v != 0]                weight, not used
mcp      minimax concave                weight, gamma
scad     smoothly clipped               weight, a
log_sum  weight log(1 + r / second)     weight, epsilon
power    weight r^second                weight, 1/2 or 2/3
======== ============================== ======================================

The formulas are those of `sparsepriors.priors`, which names their sources.
"""

from __future__ import annotations

import math
from enum import IntEnum


class Penalty(IntEnum):
    """Codes of the penalties."""

    elastic = 0
    positive = 1
    box = 2
    l0 = 3
    mcp = 4
    scad = 5
    log_sum = 6
    power = 7


def value(kind: int, v: float, weight: float, second: float) -> float:
    """g(v)."""
    r = abs(v)
    match kind:
        case Penalty.box:
            return 0.0 if weight <= v <= second else math.inf
        case Penalty.positive if v < 0:
            return math.inf
        case Penalty.elastic | Penalty.positive:
            return weight * r + 0.5 * second * r * r
        case Penalty.l0:
            return weight if r else 0.0
        case Penalty.mcp:
            return weight * r - r * r / (2 * second) if r <= second * weight else 0.5 * second * weight * weight
        case Penalty.scad:
            if r <= weight:
                return weight * r
            if r <= second * weight:
                return (2 * second * weight * r - r * r - weight * weight) / (2 * (second - 1))
            return weight * weight * (second + 1) / 2
        case Penalty.log_sum:
            return weight * math.log1p(r / second)
        case Penalty.power:
            return weight * r ** second
    return 0.0


def prox(kind: int, v: float, step: float, weight: float, second: float) -> float:
    """The global minimiser u of ``step g(u) + (u - v)^2 / 2``; of two, the smaller."""
    match kind:
        case Penalty.positive:
            return max(v - step * weight, 0.0) / (1 + second * step)
        case Penalty.box:
            return min(max(v, weight), second)
    return math.copysign(_shrink(kind, abs(v), step, weight, second), v)


def _shrink(kind: int, r: float, t: float, w: float, s: float) -> float:
    match kind:
        case Penalty.elastic:
            return max(r - t * w, 0.0) / (1 + s * t)
        case Penalty.l0:
            return r if r > math.sqrt(2 * w * t) else 0.0
        case Penalty.mcp:
            if t >= s:
                return r if r > w * math.sqrt(t * s) else 0.0
            return r if r > s * w else max(r - t * w, 0.0) / (1 - t / s)
        case Penalty.scad:
            return _scad(r, t, w, s)
        case Penalty.log_sum:
            return _log_sum(r, t * w, s)
        case Penalty.power:
            return _power(r, t * w, s)
    raise ValueError(f"kind must be one of the penalties, got {kind}")


def _scad(r: float, t: float, w: float, a: float) -> float:
    soft = max(r - t * w, 0.0)
    if t >= a - 1:
        return soft if r <= w * ((a + 1 + t) / 2 if t <= a + 1 else math.sqrt(t * (a + 1))) else r
    if r <= (1 + t) * w:
        return soft
    return ((a - 1) * r - a * t * w) / (a - 1 - t) if r <= a * w else r


def _log_sum(r: float, t: float, epsilon: float) -> float:
    twice = 2 * math.sqrt(t)
    radicand = (r + epsilon - twice) * (r + epsilon + twice)
    if not radicand > 0:
        return 0.0
    m = max((r - epsilon + math.sqrt(radicand)) / 2, 0.0)
    if t <= epsilon * epsilon:
        return m if r * epsilon > t else 0.0
    return m if t * math.log1p(m / epsilon) + 0.5 * (m - r) ** 2 < 0.5 * r * r else 0.0


def _power(r: float, t: float, q: float) -> float:
    # The jump and the scaling: see sparsepriors.priors.Lq. Newton's method on m - rho + slope m^(q-1), increasing and
    # concave right of the jump, falls from rho to its largest root without passing it.
    b = (2 * t * (1 - q)) ** (1 / (2 - q)) / (2 * (1 - q))
    if not r > (2 - q) * b:
        return 0.0
    if not b > 1e-20 * r:
        return r
    rho, slope = r / b, q * (2 * (1 - q)) ** (1 - q)
    m = rho
    for _ in range(60):
        p = slope * m ** (q - 1)
        following = m - (m - rho + p) / (1 + (q - 1) * p / m)
        done = abs(following - m) <= 1e-15 * m
        m = following
        if done:
            break
    return m * b
