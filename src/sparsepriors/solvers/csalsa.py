"""Constrained ADMM: the smallest prior value among the unknowns that explain the data to within the noise."""

from __future__ import annotations

import torch
from jaxtyping import Inexact
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.operators.base import LinearOperator
from sparsepriors.priors.base import Prior
from sparsepriors.solvers._loop import Items, Loop, Proximal, door, owned, per_item, ratio, suits
from sparsepriors.solvers.cg import solve_inexactly
from sparsepriors.solvers.solution import Callback, Solution


@torch.no_grad()
def csalsa(A: LinearOperator, y: Inexact[Tensor, "..."], prior: Prior, *, eps: float | Tensor, kappa: float | Tensor,
           alpha: float | Tensor, alpha_decay: float = 1.0, kappa_growth: float = 1.0, cg_iters: int = 5,
           cg_tol: float = 1e-5, x0: Inexact[Tensor, "..."] | None = None, max_iter: int = 30, tol: float = 5e-4,
           callback: Callback | None = None) -> Solution:
    r"""Minimise ``prior(x)`` subject to ``||y - A x||_2 <= eps``.

    ADMM with the splits ``t = x`` (prior) and ``v = A x`` (data) and scaled duals ``d1``, ``d2``. Each iteration

        x  <- (kappa I + A^H A)^{-1} [kappa (t + d1) + A^H (v + d2)]   by a few warm-started conjugate gradients
        t  <- prox of the prior at x - d1 with step alpha
        v  <- y + projection of A x - d2 - y on the ball of radius eps
        d1 <- d1 - (x - t),   d2 <- d2 - (A x - v).

    Parameters
    ----------
    A
        Linear operator, real or complex.
    y
        ``(*batch, *A.out_shape)``; each item is a problem of its own and stops by itself, whatever the others do.
    prior
        Its prox is all that is used, so a denoiser in `PlugAndPlay` serves, and for unknowns of random phase
        `Magnitude` of either. A prior that is not convex is allowed; then no convergence is promised.
    eps
        Radius of the data ball, in the units of y: one number, or one per item (``*batch``).
    kappa
        Weight of the split on the prior against that on the data, in the units of ``A^H A``; one number, or one per
        item.
    alpha
        Step of the prox: for a penalty the threshold, for a denoiser its noise variance; one number, or one per item.
    alpha_decay, kappa_growth
        After each iteration ``alpha`` is divided by the one and ``kappa`` multiplied by the other (delta_n and
        delta_K in the second source); the duals keep their scale.
    cg_iters, cg_tol
        The inner solver stops after so many iterations, or when an iterate moves by less than this, relatively.
    x0
        ``(*batch, *A.in_shape)``, the start; ``A^H y / max|A^H y|`` by default.
    max_iter, tol
        Certificate, from the second iteration on: the largest ``|| |x| - |x_prev| || / || |x_prev| ||`` of the items
        (for real unknowns without the moduli). It says that the iterate rests, not that the data are met: see
        ``infeasibility``.

    Returns
    -------
    Solution
        Trace: ``certificate`` and ``infeasibility``, the largest ``||A x - y|| / eps``. Extras: the splits ``t`` and
        ``v``, the duals ``d1`` and ``d2``, ``infeasibility`` and ``iterations`` per item.

    Raises
    ------
    TypeError, ValueError
        If operator, measurement, prior and start do not fit one another or hold NaN, or a parameter is out of range.
    FloatingPointError
        If the iterate is not finite any more.

    References
    ----------
    Afonso, Bioucas-Dias, Figueiredo, An augmented Lagrangian approach to the constrained optimization formulation of
    imaging inverse problems, IEEE Trans. Image Processing 20 (2011), algorithm C-SALSA.
    Oral, Oktem, Plug-and-play regularization on magnitude with deep priors for 3D near-field MIMO imaging, IEEE
    Trans. Computational Imaging 10 (2024), for the inexact inner solver, the schedules and the stop on magnitudes.
    """
    unknown, measured = door(A, y, x0)
    suits("prior", prior, unknown, A.in_dtype, y.device)
    radius = per_item("eps", eps, unknown, y.dtype, y.device)
    weight = per_item("kappa", kappa, unknown, y.dtype, y.device)
    step = per_item("alpha", alpha, unknown, y.dtype, y.device)
    _checks.positive("alpha_decay", alpha_decay)
    _checks.positive("kappa_growth", kappa_growth)
    _checks.count("cg_iters", cg_iters, low=1)
    _checks.positive("cg_tol", cg_tol)
    loop = Loop(unknown, y, max_iter, tol, callback,
                "the prior's prox expands, or kappa is too small for the scale of A")

    gram = A.gram()
    if x0 is None:
        x = A._adjoint(y)
        x = x / unknown.spread(unknown.max_abs(x).clamp_min(torch.finfo(x.dtype).tiny))
    else:
        x = x0.clone()
    prox = Proximal(prior, unknown)
    floor = torch.finfo(x.dtype).eps * unknown.norm(x)  # an iterate that fades away to zero comes to rest too
    t, v = x, A._forward(x)
    d1, d2 = torch.zeros_like(x), torch.zeros_like(v)
    infeasibility = torch.zeros_like(radius)

    def system(u: Tensor) -> Tensor:
        return owned(gram._forward(u), u).addcmul_(u, unknown.spread(weight).to(u.dtype))

    for k in loop:
        rhs = A._adjoint(v + d2).addcmul_(t + d1, unknown.spread(weight).to(x.dtype))
        x_new = loop.keep(solve_inexactly(system, rhs, x.clone(), unknown, iterations=cg_iters, limit=cg_tol), x)
        change = _change(x_new, x, unknown, floor) if k > 1 else None
        x = x_new
        t = loop.keep(prox(x - d1, step), t)
        ax = A._forward(x)
        off = ax - d2 - y
        shrink = (radius / measured.norm(off).clamp_min(torch.finfo(radius.dtype).tiny)).clamp_max(1.0)
        v = loop.keep(off.mul_(measured.spread(shrink)).add_(y), v)
        d1 = loop.keep(d1 - (x - t), d1)
        d2 = loop.keep(d2 - (ax - v), d2)
        infeasibility = loop.keep(measured.norm(ax - y) / radius, infeasibility)
        loop.record(x, change, infeasibility=infeasibility)
        step, weight = step / alpha_decay, weight * kappa_growth
    return loop.solution(x, {"t": t, "v": v, "d1": d1, "d2": d2, "infeasibility": infeasibility})


def _change(new: Tensor, old: Tensor, items: Items, floor: Tensor) -> Tensor:
    if new.is_complex():
        new, old = new.abs(), old.abs()
    return ratio(items.norm(new - old), torch.maximum(items.norm(old), floor))
