"""Newton's method on the support."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparsepriors.kernels import penalties

_SINGULAR = 1e-12  # a squared pivot below this share of its diagonal entry is rounding
_DAMPING = 1e-5  # of a singular system, relative to its diagonal

def gram_newton(gram: Tensor, linear: Tensor, x: Tensor, kind: int, weight: Tensor, second: Tensor, factor: float,
                max_steps: int) -> tuple[Tensor, Tensor]:
    """Newton's method on the support of x for ``1/2 x.G x - linear.x + factor sum_j g_j(x_j)``, g_j quadratic beside 0.

    A step leads towards the minimiser for the present signs. It is taken to the exact minimum along its line or, where
    that is lower, whole, with zeros where signs would change. A step that changes no sign is the last. Zeros stay; a
    singular system is damped.

    Parameters
    ----------
    gram
        G in its first k rows and columns.
    linear, x
        ``(k,)``.
    kind, weight, second
        The penalties g_j, `Penalty.elastic` or `Penalty.positive`.
    factor
        Of all penalties.
    max_steps
        Most steps.

    Returns
    -------
    tuple
        x, and linear - G x.
    """
    k, x = linear.numel(), x.clone()
    gram, positive = gram[:k, :k], kind == penalties.Penalty.positive
    for _ in range(max_steps):
        at = x.nonzero()[:, 0]
        if not at.numel():
            break
        old, w = x[at], factor * weight[at]
        hessian = gram[at[:, None], at] + torch.diag(factor * second[at])
        gradient = hessian @ old - linear[at] + w * old.sign()
        factored, failed = torch.linalg.cholesky_ex(hessian)
        singular = bool(failed) or bool((factored.diagonal() ** 2 <= _SINGULAR * hessian.diagonal()).any())
        if singular:
            factored, failed = torch.linalg.cholesky_ex(hessian + torch.diag(_DAMPING * hessian.diagonal()))
            if bool(failed):
                break
        step = -torch.cholesky_solve(gradient[:, None], factored)[:, 0]
        slope, curvature = float(gradient @ step), float(step @ hessian @ step)
        if not slope < 0:
            break
        crossing = torch.where(old * step < 0, -old / step, torch.inf)
        length, change, ends = _along(slope, curvature, crossing, 2 * w * step.abs(), positive)
        if not math.isfinite(length):
            break
        new, whole = old + length * step, not singular and float(crossing.min()) >= 1
        if ends is not None:
            new[ends] = 0.0
        cut = torch.where((old + step) * old > 0, step, -old)
        lower = float(gradient @ cut + 0.5 * cut @ hessian @ cut)
        if not whole and lower < change:
            new = torch.where((old + step) * old > 0, old + step, 0.0)
        elif not change < 0:
            break
        x[at] = new.clamp(min=0) if positive else new
        if whole:
            break
    return x, linear - gram @ x


def _along(slope: float, curvature: float, crossing: Tensor, kinks: Tensor,
           positive: bool) -> tuple[float, float, int | None]:
    """Where a convex quadratic with kinks is least along t >= 0, by how much it changes, and at whose kink that is."""
    rising, ends = slope, None
    for i in crossing.argsort().tolist():
        if (-rising / curvature if curvature > 0 else math.inf) <= crossing[i]:
            break
        rising += float(kinks[i])
        if positive or rising + curvature * float(crossing[i]) >= 0:
            ends = i
            break
    root = -rising / curvature if curvature > 0 else math.inf
    t = root if ends is None else float(crossing[ends])
    passed = torch.where(crossing < t, kinks * (t - crossing), 0.0)
    return t, t * (slope + 0.5 * t * curvature) + float(passed.sum()), ends
