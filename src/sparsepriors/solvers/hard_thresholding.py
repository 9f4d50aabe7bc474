"""Iterative hard thresholding: gradient steps on the misfit, each followed by the projection onto a set."""

from __future__ import annotations

import torch
from jaxtyping import Inexact
from torch import Tensor

from sparsepriors.operators.base import LinearOperator
from sparsepriors.priors.base import Prior
from sparsepriors.priors.patterns import Pattern
from sparsepriors.priors.sets import ConstraintSet
from sparsepriors.solvers._loop import Items, Loop, Proximal, door, ratio, suits
from sparsepriors.solvers.solution import Callback, Solution

_SHRINK = 0.5
_ROUNDING = 64  # units of it, by which the two sides of the test of a step may differ


@torch.no_grad()
def iterative_hard_thresholding(A: LinearOperator, y: Inexact[Tensor, "..."], prior: Prior, *,
                                x0: Inexact[Tensor, "..."] | None = None, max_iter: int = 1000, tol: float = 1e-5,
                                callback: Callback | None = None) -> Solution:
    """Look for the least ``1/2 ||A x - y||^2`` in a set, convex or not, with normalised steps.

    A step is the best one along the gradient on the support of x. Where ``step ||A d||^2 > ||d||^2`` for the move d
    that it leads to, it is halved until that is no more so: the misfit then never rises, whatever the set.

    Parameters
    ----------
    A
        Any linear operator; no bound of its norm is needed.
    y
        ``(*batch, *A.out_shape)``; each item is a problem of its own and stops by itself.
    prior
        A set (`Cardinality`, `Rank`, a ball, ...) or a `Pattern` (`NM`, `Block`, ...).
    x0
        ``(*batch, *A.in_shape)``, the start, projected first; zeros by default.
    max_iter, tol
        Certificate: the largest ``||x_new - x|| / ||x_new||`` of the items.

    Returns
    -------
    Solution
        Trace: ``certificate``, ``objective`` (sum over the batch) and ``step`` (the largest). Extras: ``step`` and
        ``iterations`` per item.

    Raises
    ------
    TypeError, ValueError
        If the prior is no set, the arguments do not fit one another or hold NaN, or ``tol`` is below what rounding
        allows.
    FloatingPointError
        If the iterate is not finite any more.

    References
    ----------
    Blumensath, Davies, Normalized iterative hard thresholding: guaranteed stability and performance, IEEE J. Sel. Top.
    Signal Process. 4 (2010).
    """
    unknown, measured = door(A, y, x0)
    if not isinstance(prior, (ConstraintSet, Pattern)):
        raise TypeError(f"prior must be a set or a pattern, got {type(prior).__name__}; proximal_gradient takes every "
                        f"prior")
    suits("prior", prior, unknown, A.in_dtype, y.device)
    loop = Loop(unknown, y, max_iter, tol, callback, "the entries of A or y overflow the dtype")
    project = Proximal(prior, unknown)
    one = torch.ones(unknown.batch, dtype=measured.norm(y).dtype, device=y.device)
    x = torch.zeros_like(A._adjoint(y)) if x0 is None else project(x0.clone(), one)
    r = y - A._forward(x)
    steps = one
    for _ in loop:
        g = A._adjoint(r)
        steps = _along_support(A, g, x, project, unknown, measured, steps)
        while True:
            move = loop.keep(project(x + unknown.spread(steps) * g, steps), x) - x
            image = A._forward(move)
            length, reached = unknown.norm(move).square(), measured.norm(image).square()
            long = loop.active & (steps * reached > (1 + _ROUNDING * torch.finfo(steps.dtype).eps) * length)
            if not bool(long.any()):
                break
            steps = torch.where(long, _SHRINK * steps, steps)
        x, r = x + move, r - image
        loop.record(x, ratio(length.sqrt(), unknown.norm(x)), step=steps,
                    objective=0.5 * measured.norm(r).square().sum())
    return loop.solution(x, {"step": steps})


def _along_support(A: LinearOperator, g: Tensor, x: Tensor, project: Proximal, unknown: Items, measured: Items,
                   before: Tensor) -> Tensor:
    """The best step along the gradient on the support of x, or on that of the projected gradient where x is zero."""
    support = torch.where(unknown.spread(unknown.max_abs(x) > 0), x, project(g.clone(), torch.ones_like(before))) != 0
    part = torch.where(support, g, 0)
    best = ratio(unknown.norm(part), measured.norm(A._forward(part))).square()
    return torch.where(torch.isfinite(best) & (best > 0), best, before)
