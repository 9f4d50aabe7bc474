"""How far coefficients are from a minimum, and the products of columns that say so."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparsepriors.kernels import penalties


def optimality(x: Tensor, q: Tensor, curvature: Tensor, kind: int, weight: Tensor, second: Tensor, factor: float,
               residual: float, projection: float) -> tuple[Tensor, Tensor, Tensor]:
    """How far x is from the minimum of ``1/2 ||X x - y||^2 + factor sum_j g_j(x_j)``, given r = y - X x.

    Parameters
    ----------
    x, q, curvature
        ``(p,)``; q = X^T r, curvature the squared norms of the columns.
    kind, weight, second, factor
        The penalties, as for `gram_descent`.
    residual, projection
        ``r.r`` and ``r.y``.

    Returns
    -------
    tuple
        ``(p,)`` violations ``curvature_j |x_j - what one exact step in coordinate j leads to|``; ``(p,)`` booleans,
        False for columns that the gap proves to be zero in every solution (Ndiaye, Fercoq, Gramfort, Salmon, 2017, Gap
        safe screening rules, equation 11); the three numbers: largest violation, value of the penalty, duality gap at
        the dual point r, shrunk until it is feasible (infinite where the penalty is not quadratic beside 0 or misses
        a column).
    """
    a, w, s = curvature.tolist(), weight.tolist(), second.tolist()
    moved = [penalties.prox(kind, v + c / b, factor / b, i, j) if b > 0 else v
             for v, c, b, i, j in zip(x.tolist(), q.tolist(), a, w, s, strict=True)]
    violation = curvature * (x - torch.tensor(moved, dtype=x.dtype)).abs()
    worst = float(violation.max()) if x.numel() else 0.0
    value = factor * sum(penalties.value(kind, v, i, j) for v, i, j in zip(x.tolist(), w, s, strict=True))
    active = torch.ones_like(x, dtype=torch.bool)
    bare = (weight == 0) & (second == 0) & (curvature > 0)
    if kind not in (penalties.Penalty.elastic, penalties.Penalty.positive) or bool(bare.any()):
        return violation, active, torch.tensor([worst, value, math.inf], dtype=torch.float64)
    reach = q if kind == penalties.Penalty.positive else q.abs()
    bound = torch.where((second == 0) & (reach > factor * weight), factor * weight / reach, 1.0)
    shrink = float(bound.min()) if x.numel() else 1.0
    excess = torch.relu(shrink * reach - factor * weight).square()
    conjugate = float(torch.where(second > 0, excess / (2 * factor * second), 0.0).sum())
    gap = 0.5 * residual + value + conjugate - shrink * projection + 0.5 * shrink * shrink * residual
    radius = math.sqrt(2 * max(gap, 0.0))
    active = (x != 0) | ~(shrink * reach + curvature.sqrt() * radius < factor * weight)
    return violation, active, torch.tensor([worst, value, gap], dtype=torch.float64)


def column_products(columns: Tensor, r: Tensor, keep: Tensor | None = None) -> Tensor:
    """``columns @ r`` in float64, zero for the columns that are not kept.

    Parameters
    ----------
    columns
        ``(p, n)``, a column of the design in every row.
    r
        ``(n,)``, float64.
    keep
        ``(p,)`` booleans, or None for all.
    """
    out = columns.double() @ r
    return out if keep is None else torch.where(keep, out, 0.0)
