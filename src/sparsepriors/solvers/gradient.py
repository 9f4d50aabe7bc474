"""Proximal gradient: a gradient step on the data term, then the prior's prox; plain (ISTA) or accelerated (FISTA)."""

from __future__ import annotations

import torch
from jaxtyping import Inexact
from torch import Tensor

from sparsepriors import kernels
from sparsepriors.operators.base import LinearOperator
from sparsepriors.priors.base import Prior
from sparsepriors.solvers._loop import Items, Loop, Proximal, door, per_item, ratio, smooth, suits
from sparsepriors.solvers.solution import Callback, Solution


@torch.no_grad()
def proximal_gradient(A: LinearOperator, y: Inexact[Tensor, "..."], prior: Prior, *, loss: Prior | None = None,
                      accelerated: bool = True, restart: bool = True, step: float | Tensor | None = None,
                      backtracking: bool = False, shrink: float = 0.5, objective: bool = True,
                      x0: Inexact[Tensor, "..."] | None = None, max_iter: int = 1000, tol: float = 1e-5,
                      callback: Callback | None = None) -> Solution:
    r"""Minimise ``loss(A x - y) + prior(x)`` for a smooth loss.

    Parameters
    ----------
    A
        Linear operator, real or complex.
    y
        ``(*batch, *A.out_shape)``; each item is a problem of its own and stops by itself.
    prior
        Any prior; a denoiser in `PlugAndPlay` makes it PnP-PGM. For a prior that is not convex take
        ``accelerated=False``: the objective still falls, to a critical point.
    loss
        Prior with a gradient, of the residual; by default ``SquaredL2(1.0)``, that is 1/2 ||A x - y||^2.
    accelerated
        Nesterov's momentum as in FISTA. Without it the objective never rises when the step is at most 1/L.
    restart
        Drop the momentum where it points uphill (the gradient test of O'Donoghue and Candès); only with it does an
        accelerated run profit from strong convexity.
    step
        Step length, one number or one per item; by default 1/L with L = loss.lipschitz * ||A||^2.
    backtracking
        Shorten the step, by the factor ``shrink``, until the quadratic model lies above the loss. The first step is
        then ``step``, or found from the curvature along the first gradient, and ||A|| is not needed.
    objective
        Whether to evaluate the objective in every iteration.
    x0
        ``(*batch, *A.in_shape)``, the start; zeros by default.
    max_iter, tol
        Certificate: the largest ``||x - v|| / max(||x||, step ||g||)`` of the items, where x = prox(v - step * grad(v))
        is the new iterate and g the gradient of the loss at zero. For a convex prior and a step of at most 2/L this
        bounds the fixed-point residual of x itself, since the map is nonexpansive.

    Returns
    -------
    Solution
        Trace: ``certificate``, ``step`` (the largest) and, where asked for, ``objective`` (sum over the batch; NaN
        where the prior has no value). Extras: ``step`` and ``iterations`` per item.

    Raises
    ------
    TypeError, ValueError
        If the loss has no gradient, operator, measurement, prior and start do not fit one another or hold NaN, or a
        parameter is out of range.
    FloatingPointError
        If the iterate is not finite any more.

    References
    ----------
    Beck, Teboulle, A fast iterative shrinkage-thresholding algorithm for linear inverse problems, SIAM J. Imaging
    Sciences 2 (2009). O'Donoghue, Candès, Adaptive restart for accelerated gradient schemes, Found. Comput. Math. 15
    (2015).
    """
    unknown, measured = door(A, y, x0)
    suits("prior", prior, unknown, A.in_dtype, y.device)
    loss = smooth(loss, measured, A.out_dtype, y.device)
    if backtracking:
        _splits_into_items("loss", loss, measured)
    if not 0 < shrink < 1:
        raise ValueError(f"shrink must lie strictly between 0 and 1, got {shrink}")
    loop = Loop(unknown, y, max_iter, tol, callback, "the step is longer than 2/L; leave step to the solver, or set "
                "backtracking=True")

    at_zero = A._adjoint(loss._grad(-y))
    scale = unknown.norm(at_zero)
    if x0 is None:
        x, ax = torch.zeros_like(at_zero), torch.zeros_like(y)
        gradient = at_zero
    else:
        x, ax = x0.clone(), A._forward(x0)
        gradient = A._adjoint(loss._grad(ax - y))
    if step is not None:
        steps = per_item("step", step, unknown, y.dtype, y.device)
    elif backtracking:
        steps = _first_step(A, gradient, loss, unknown, measured)
    else:
        curvature = _lipschitz(loss) * A.norm() ** 2
        steps = per_item("step", 1 / curvature if curvature else 1.0, unknown, y.dtype, y.device)

    prox = Proximal(prior, unknown)
    v, av = x, ax
    momentum, floor = torch.ones_like(steps), steps * scale
    for k in loop:
        if k > 1:
            gradient = A._adjoint(loss._grad(av - y))
        x_new = loop.keep(prox(unknown.down(v, gradient, steps), steps), x)
        ax_new = loop.keep(A._forward(x_new), ax)
        if backtracking:
            at_v = measured.total(loss._value(av - y))
            while True:
                move = x_new - v
                model = at_v + unknown.dot(gradient, move) + unknown.norm(move).square() / (2 * steps)
                reached = measured.total(loss._value(ax_new - y))
                slack = 8 * torch.finfo(model.dtype).eps * at_v.abs()
                short = loop.active & (reached > model + slack)
                if not bool(short.any()):
                    break
                steps = torch.where(short, steps * shrink, steps)
                x_new = loop.keep(prox(unknown.down(v, gradient, steps), steps), x)
                ax_new = loop.keep(A._forward(x_new), ax)
            floor = steps * scale
        if accelerated:
            v, av, momentum, residual = kernels.momentum_step(x, x_new, v, ax, ax_new, momentum, floor, restart)
        else:
            residual = ratio(unknown.norm(x_new - v), torch.maximum(unknown.norm(x_new), floor))
            v, av = x_new, ax_new
        x, ax = x_new, ax_new
        noted = {"step": steps}
        if objective:
            noted["objective"] = loss._value(ax - y).sum() + prior._value(x).sum()
        loop.record(x, residual, **noted)
    return loop.solution(x, {"step": steps})


def _lipschitz(loss: Prior) -> float:
    assert loss.lipschitz is not None
    return float(loss.lipschitz)


def _splits_into_items(name: str, loss: Prior, items: Items) -> None:
    if loss.dims is None and items.batch:
        raise ValueError(f"{name} has dims = None and sums its value over the batch {items.batch}; backtracking needs "
                         f"the value of each item: give it dims={len(items.event)}")


def _first_step(A: LinearOperator, gradient: Tensor, loss: Prior, unknown: Items, measured: Items) -> Tensor:
    """1 / (Lipschitz constant of the loss * curvature of ||A x||^2 along the gradient); the true 1/L is no longer."""
    along = ratio(measured.norm(A._forward(gradient)), unknown.norm(gradient)).square() * _lipschitz(loss)
    return torch.where(along > 0, 1 / along, torch.ones_like(along))
