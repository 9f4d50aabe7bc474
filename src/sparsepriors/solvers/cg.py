"""Conjugate gradients (Hestenes and Stiefel, 1952) for real and complex tensors, each item of a batch by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Inexact
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.operators.base import LinearOperator
from sparsepriors.solvers._loop import Items, Loop, door, owned, ratio
from sparsepriors.solvers.solution import Callback, Solution


@torch.no_grad()
def conjugate_gradient(A: LinearOperator, y: Inexact[Tensor, "..."], *, x0: Inexact[Tensor, "..."] | None = None,
                       max_iter: int = 1000, tol: float = 1e-6, callback: Callback | None = None) -> Solution:
    """Solve ``A x = y`` for a Hermitian positive semidefinite ``A``.

    Parameters
    ----------
    A
        Operator with ``in_shape == out_shape``, Hermitian and positive semidefinite (not checked; a direction of
        negative curvature raises).
    y
        ``(*batch, *A.out_shape)``; each item is a system of its own and stops by itself.
    x0
        ``(*batch, *A.in_shape)``, the start; zeros by default.
    max_iter, tol
        Certificate: the largest ``||y - A x|| / ||y||`` of the items, with the residual that the recurrence carries.

    Returns
    -------
    Solution
        Trace: ``certificate``. Extras: ``iterations`` per item.

    Raises
    ------
    TypeError, ValueError
        If the arguments do not fit one another, hold NaN, or ``tol`` is below what rounding allows.
    FloatingPointError
        If the iterate is not finite any more, or ``A`` shows a direction of negative curvature.
    """
    unknown, _ = door(A, y, x0)
    if A.in_shape != A.out_shape or A.in_dtype != A.out_dtype:
        raise ValueError(f"A must map a space to itself, got {A.in_shape} {A.in_dtype} to {A.out_shape} {A.out_dtype}; "
                         f"least_squares takes any operator")
    loop = Loop(unknown, y, max_iter, tol, callback, "A is not positive semidefinite, or the system is singular")
    x = torch.zeros_like(y) if x0 is None else x0.clone()
    steps = cg_steps(A._forward, y, x, unknown, loop)
    scale = unknown.norm(y)
    for _ in loop:
        residual = next(steps)
        loop.record(x, ratio(residual.sqrt(), scale))
    return loop.solution(x)


@torch.no_grad()
def least_squares(A: LinearOperator, y: Inexact[Tensor, "..."], *, damping: float = 0.0,
                  x0: Inexact[Tensor, "..."] | None = None, max_iter: int = 1000, tol: float = 1e-6,
                  callback: Callback | None = None) -> Solution:
    """Minimise ``1/2 ||A x - y||^2 + damping/2 ||x||^2`` by conjugate gradients on the normal equations (CGLS).

    The recurrence carries ``y - A x`` itself and never forms ``A^H A`` (Björck, Numerical Methods for Least Squares
    Problems, 1996, section 7.4).

    Parameters
    ----------
    A
        Any linear operator.
    y
        ``(*batch, *A.out_shape)``; each item is a problem of its own and stops by itself.
    damping
        Nonnegative weight of the squared norm of the solution. With zero damping and ``x0 = None`` the limit is the
        least-squares solution of least norm.
    x0
        ``(*batch, *A.in_shape)``, the start; zeros by default.
    max_iter, tol
        Certificate: the largest ``||A^H (y - A x) - damping x|| / ||A^H y||`` of the items.

    Returns
    -------
    Solution
        Trace: ``certificate`` and ``objective`` (sum over the batch). Extras: ``iterations`` per item.

    Raises
    ------
    TypeError, ValueError
        If the arguments do not fit one another, hold NaN, or ``tol`` is below what rounding allows.
    FloatingPointError
        If the iterate is not finite any more.
    """
    unknown, measured = door(A, y, x0)
    damping = _checks.nonnegative_number("damping", damping)
    loop = Loop(unknown, y, max_iter, tol, callback, "the entries of A or y overflow the dtype")
    backprojection = A._adjoint(y)
    scale = unknown.norm(backprojection)
    if x0 is None:
        x, r, g = torch.zeros_like(backprojection), y.clone(), backprojection
    else:
        x, r = x0.clone(), y - A._forward(x0)
        g = A._adjoint(r).sub(x, alpha=damping)
    p = g.clone()
    rho = unknown.norm(g).square()
    for _ in loop:
        q = A._forward(p)
        curvature = measured.norm(q).square() + damping * unknown.norm(p).square()
        step = torch.where(loop.active, ratio(rho, curvature), 0)
        x.addcmul_(p, unknown.spread(step).to(p.dtype))
        r.addcmul_(q, -measured.spread(step).to(q.dtype))
        g = owned(A._adjoint(r), r).sub_(x, alpha=damping)
        rho_new = unknown.norm(g).square()
        p.mul_(unknown.spread(ratio(rho_new, rho)).to(p.dtype)).add_(g)
        rho = rho_new
        loop.record(x, ratio(rho.sqrt(), scale),
                    objective=0.5 * (measured.norm(r).square() + damping * unknown.norm(x).square()).sum())
    return loop.solution(x)


def cg_steps(apply: Callable[[Tensor], Tensor], b: Tensor, x: Tensor, items: Items, loop: Loop | None = None, *,
             limit: float = 0.0) -> Iterator[Tensor]:
    """Conjugate gradients for ``apply(x) = b``: each ``next`` updates ``x`` in place and yields ``||residual||^2``.

    Parameters
    ----------
    apply
        A Hermitian positive definite map of items to items.
    b, x
        Right-hand side and start, ``(*batch, *event)``; ``x`` is overwritten.
    loop
        Items that have stopped there are left alone.
    limit
        An item also rests once its step is no longer than ``limit`` times itself before the step; when all rest, the
        iterator ends. An item whose residual vanishes does not move, so that 0/0 never arises.
    """
    r = b - apply(x)
    p = r.clone()
    rho = items.norm(r).square()
    running = rho > 0
    while bool(running.any()) or loop is not None:
        q = apply(p)
        curvature = items.dot(p, q)
        moving = running if loop is None else running & loop.active
        if bool((moving & (curvature < 0)).any()):
            raise FloatingPointError("conjugate gradients met a direction of negative curvature: the operator is not "
                                     "positive semidefinite")
        step = torch.where(moving, ratio(rho, curvature), 0)
        if limit:
            running = running & (step * items.norm(p) > limit * items.norm(x))
        x.addcmul_(p, items.spread(step).to(x.dtype))
        r.addcmul_(q, items.spread(-step).to(x.dtype))
        rho_new = items.norm(r).square()
        yield rho_new
        p.mul_(items.spread(ratio(rho_new, rho)).to(x.dtype)).add_(r)
        rho = rho_new
        running = running & (rho > 0)


def solve_inexactly(apply: Callable[[Tensor], Tensor], b: Tensor, x: Tensor, items: Items, *, iterations: int,
                    limit: float) -> Tensor:
    """At most so many conjugate gradient steps from ``x`` (overwritten), fewer where the relative step is small."""
    for _, _ in zip(range(iterations), cg_steps(apply, b, x, items, limit=limit), strict=False):
        pass
    return x
