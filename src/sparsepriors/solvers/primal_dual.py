"""Primal-dual splitting for a smooth loss, a prior of the unknown, and any number of priors of its linear images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Inexact
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.operators.base import LinearOperator
from sparsepriors.priors.base import Prior
from sparsepriors.priors.penalties import SquaredL2
from sparsepriors.solvers._loop import Items, Loop, Proximal, door, ratio, suits
from sparsepriors.solvers.solution import Callback, Solution


@torch.no_grad()
def primal_dual(A: LinearOperator, y: Inexact[Tensor, "..."], prior: Prior, *,
                terms: Sequence[tuple[Prior, LinearOperator]] = (), loss: Prior | None = None,
                tau: float | None = None, sigma: float | None = None, objective: bool = True,
                x0: Inexact[Tensor, "..."] | None = None, max_iter: int = 1000, tol: float = 1e-5,
                callback: Callback | None = None) -> Solution:
    r"""Minimise ``loss(A x - y) + prior(x) + sum_i prior_i(K_i x)`` without solving any linear system.

    Each iteration, with one dual u_i for every term,

        x_new <- prox of the prior at x - tau (gradient of the loss + sum_i K_i^H u_i) with step tau
        u_i   <- u_i + sigma K_i (2 x_new - x), less sigma times the prox of prior_i at that over sigma, step 1/sigma

    (Moreau's identity for the prox of the conjugate). A loss without a gradient becomes one more term, with K = A.

    Parameters
    ----------
    A
        Linear operator, real or complex.
    y
        ``(*batch, *A.out_shape)``; each item is a problem of its own and stops by itself.
    prior
        Prior of ``x`` itself; `Zero` where there is none.
    terms
        Pairs of a prior and the operator K_i in front of it, from the space of ``x``.
    loss
        Prior of the residual, through its gradient if it has one, else through its prox; by default
        ``SquaredL2(1.0)``, that is 1/2 ||A x - y||^2.
    tau, sigma
        Primal and dual step. They must satisfy ``1/tau - sigma * sum_i ||K_i||^2 >= L/2`` with L the Lipschitz constant
        of the loss's gradient, ``loss.lipschitz * ||A||^2``; one that is given fixes the other.
    objective
        Whether to evaluate the objective in every iteration.
    x0
        ``(*batch, *A.in_shape)``, the start; zeros by default. The duals start at zero.
    max_iter, tol
        Certificate: the larger of the relative residuals of the optimality conditions, for the worst item. Primal: an
        element of the subdifferential of the Lagrangian in x, over the largest of the gradient, the multipliers and
        the gradient at zero. Dual: for each term, that in u_i, over ``max(||K_i x||, ||u_i|| / sigma)``.

    Returns
    -------
    Solution
        Trace: ``certificate``, ``primal``, ``dual`` and, where asked for, ``objective`` (sum over the batch; NaN where
        a prior has no value, infinite while a constraint on some K_i x is not met yet). Extras: the duals ``u0``,
        ``u1``, ... in the order of ``terms`` (the loss last, if it is one) and ``iterations`` per item.

    Raises
    ------
    TypeError, ValueError
        If operators, measurement, priors and start do not fit one another or hold NaN, or the steps violate the
        condition above.
    FloatingPointError
        If the iterate is not finite any more.

    References
    ----------
    Condat, A primal-dual splitting method for convex optimization involving Lipschitzian, proximable and linear
    composite terms, J. Optimization Theory Appl. 158 (2013), algorithm 3.1 and theorem 3.1. Vu, A splitting algorithm
    for dual monotone inclusions involving cocoercive operators, Adv. Comput. Math. 38 (2013).
    """
    unknown, measured = door(A, y, x0)
    suits("prior", prior, unknown, A.in_dtype, y.device)
    loss = SquaredL2(1.0, dims=len(measured.event)) if loss is None else loss
    suits("loss", loss, measured, A.out_dtype, y.device)
    duals = [_term(i, term, A, unknown, y) for i, term in enumerate(terms)]
    loop = Loop(unknown, y, max_iter, tol, callback, "a prox expands; the priors must be convex")
    is_smooth = loss.lipschitz is not None
    if not is_smooth:
        duals.append(_Dual(loss, A, measured, Proximal(loss, measured), y))
    lipschitz = float(loss.lipschitz) * A.norm() ** 2 if loss.lipschitz is not None else 0.0
    tau, sigma = _steps(tau, sigma, lipschitz, sum(d.K.norm() ** 2 for d in duals))

    backprojection = A._adjoint(loss._grad(-y) if is_smooth else y)
    x = torch.zeros_like(backprojection) if x0 is None else x0.clone()
    scale = unknown.norm(backprojection)
    for d in duals:
        d.start(x)
    gradient = A._adjoint(loss._grad(A._forward(x) - y)) if is_smooth else torch.zeros_like(x)
    multiplier = torch.zeros_like(x)
    prox = Proximal(prior, unknown)
    primal_step = torch.full(unknown.batch, tau, dtype=scale.dtype, device=y.device)
    for _ in loop:
        pull = gradient + multiplier
        x_new = loop.keep(prox(x - tau * pull, primal_step), x)
        kkt = (x - x_new).mul_(1 / tau).sub_(pull)  # a complex tensor is divided ten times slower than multiplied
        dual = torch.zeros_like(scale)
        for i, d in enumerate(duals):
            dual = torch.maximum(dual, d.update(x_new, sigma, loop))
            pulled = d.K._adjoint(d.u)
            multiplier = multiplier + pulled if i else pulled
        x = x_new
        residual = None
        if is_smooth:
            residual = A._forward(x) - y
            gradient = A._adjoint(loss._grad(residual))
        kkt.add_(gradient).add_(multiplier)
        size = torch.maximum(torch.maximum(unknown.norm(gradient), unknown.norm(multiplier)), scale)
        primal = ratio(unknown.norm(kkt), size)
        noted = {"primal": primal, "dual": dual}
        if objective:
            noted["objective"] = sum((d.value() for d in duals), prior._value(x).sum())
            if residual is not None:
                noted["objective"] = noted["objective"] + loss._value(residual).sum()
        loop.record(x, torch.maximum(primal, dual), **noted)
    return loop.solution(x, {f"u{i}": d.u for i, d in enumerate(duals)})


@dataclass
class _Dual:
    """One term prior(K x - centre) with its dual."""

    prior: Prior
    K: LinearOperator
    items: Items
    prox: Proximal
    centre: Tensor | None

    def start(self, x: Tensor) -> None:
        self.kx = self.K._forward(x)
        self.u = torch.zeros_like(self.kx)

    def update(self, x: Tensor, sigma: float, loop: Loop) -> Tensor:
        """One dual step; return the relative residual of its optimality condition, per item."""
        kx = loop.keep(self.K._forward(x), self.kx)
        ahead = (2 * kx).sub_(self.kx)
        w = (self.u * (1 / sigma)).add_(ahead)
        step = torch.full(self.items.batch, 1 / sigma, dtype=w.dtype.to_real(), device=w.device)
        inside = self.prox(w.clone() if self.centre is None else w - self.centre, step)
        u = (w - (inside if self.centre is None else inside + self.centre)).mul_(sigma)
        u = loop.keep(u, self.u)
        gap = (self.u - u).mul_(1 / sigma).add_(ahead).sub_(kx)
        self.u, self.kx = u, kx
        return ratio(self.items.norm(gap), torch.maximum(self.items.norm(kx), self.items.norm(u) / sigma))

    def value(self) -> Tensor:
        return self.prior._value(self.kx if self.centre is None else self.kx - self.centre).sum()


def _term(i: int, term: object, A: LinearOperator, unknown: Items, y: Tensor) -> _Dual:
    name = f"terms[{i}]"
    if not isinstance(term, tuple) or len(term) != 2 or not isinstance(term[1], LinearOperator):
        raise TypeError(f"{name} must be a pair of a Prior and a LinearOperator, got {term!r:.200}")
    prior, K = term
    if K.in_shape != A.in_shape or K.in_dtype != A.in_dtype:
        raise ValueError(f"the operator of {name} must act on unknowns of shape {A.in_shape} and {A.in_dtype}, "
                         f"got {K.in_shape} and {K.in_dtype}")
    items = Items(unknown.batch, tuple(K.out_shape))
    suits(f"the prior of {name}", prior, items, K.out_dtype, y.device)
    return _Dual(prior, K, items, Proximal(prior, items), None)


def _steps(tau: float | None, sigma: float | None, lipschitz: float, norm_squared: float) -> tuple[float, float]:
    """Steps with 1/tau - sigma ||K||^2 >= L/2; what is not given is chosen on the boundary, both curvatures equal."""
    for name, value in (("tau", tau), ("sigma", sigma)):
        if value is not None:
            _checks.positive(name, value)
    if tau is not None and sigma is not None:
        slack = 1 / tau - sigma * norm_squared - lipschitz / 2
        if slack < -1e-6 * (1 / tau):
            raise ValueError(f"tau = {tau:g} and sigma = {sigma:g} violate 1/tau - sigma ||K||^2 >= L/2 with "
                             f"||K||^2 = {norm_squared:g} and L = {lipschitz:g}; give one of them and leave the other")
        return tau, sigma
    if tau is not None:
        room = 1 / tau - lipschitz / 2
        if room <= 0 and norm_squared > 0:
            raise ValueError(f"tau must be below 2/L = {2 / lipschitz:g}, got {tau:g}")
        return tau, room / norm_squared if norm_squared > 0 else 1.0
    if sigma is None:
        if norm_squared == 0:
            return (1 / lipschitz if lipschitz > 0 else 1.0), 1.0
        sigma = lipschitz / (2 * norm_squared) if lipschitz > 0 else 1 / math.sqrt(norm_squared)
    curvature = lipschitz / 2 + sigma * norm_squared
    return (1 / curvature if curvature > 0 else 1.0), sigma
