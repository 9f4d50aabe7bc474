"""Alternating direction method of multipliers: the data term and the prior by turns, held together by a multiplier."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Inexact
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.operators.algebra import Identity
from sparsepriors.operators.base import LinearOperator
from sparsepriors.priors.base import Prior
from sparsepriors.priors.combinators import Scaled
from sparsepriors.priors.penalties import SquaredL2
from sparsepriors.solvers._loop import Items, Loop, Proximal, door, ratio, suits
from sparsepriors.solvers._normal import METHODS, NormalSolver, normal_solver
from sparsepriors.solvers.solution import Callback, Solution


@torch.no_grad()
def admm(A: LinearOperator, y: Inexact[Tensor, "..."], prior: Prior, *, analysis: LinearOperator | None = None,
         loss: Prior | None = None, rho: float | None = None, relax: float = 1.0, solve: str = "auto",
         cg_iters: int = 20, cg_tol: float | None = None, objective: bool = True,
         x0: Inexact[Tensor, "..."] | None = None, max_iter: int = 1000, tol: float = 1e-5,
         callback: Callback | None = None) -> Solution:
    r"""Minimise ``loss(A x - y) + prior(K x)``, with K the identity unless ``analysis`` says otherwise.

    With the split z = K x and the scaled multiplier u, each iteration

        x <- argmin  weight/2 ||A x - y||^2 + rho/2 ||K x - z + u||^2
        z <- prox of the prior at K x + u with step 1/rho
        u <- u + K x - z.

    A loss that is no multiple of the squared norm gets a split of its own, w = A x, and enters through its prox.

    Parameters
    ----------
    A
        Linear operator, real or complex.
    y
        ``(*batch, *A.out_shape)``; each item is a problem of its own and stops by itself; ``rho`` is common to all.
    prior
        Prior of ``K x``; only its prox is used. A denoiser in `PlugAndPlay` makes it PnP-ADMM. A prior that is not
        convex is allowed; then no convergence is promised.
    analysis
        The operator K, for instance `FiniteDifference` with a group penalty for total variation.
    loss
        Prior with a prox, of the residual; by default ``SquaredL2(1.0)``, that is 1/2 ||A x - y||^2.
    rho
        Penalty of the split; its reciprocal is the step of the prox. A given one stays. By default it starts from the
        scale of the data term and is balanced at iterations 5, 10, 20, 40, ... so that the two relative residuals
        fall together.
    relax
        Over-relaxation in (0, 2); 1.5 to 1.8 often saves a third of the iterations.
    solve
        "exact": entrywise, in the Fourier domain or by a factorisation, whichever the operators allow. "cg": warm
        started conjugate gradients. "linearised": one gradient step. "auto": exact where possible, else cg.
    cg_iters, cg_tol
        The inner solver stops after so many iterations, or when an iterate moves by less than this, relatively
        (by default a hundredth of ``tol``).
    objective
        Whether to evaluate the objective in every iteration, at the cost of one more A x.
    x0
        ``(*batch, *A.in_shape)``, the start; zeros by default.
    max_iter, tol
        Certificate: the larger of the relative residuals of the optimality conditions, for the worst item. Primal:
        ``||K x - z|| / max(||K x||, ||z||, ||u||)``. Dual: ``||grad + rho K^H u|| / max(||rho K^H u||,
        weight ||A^H y||)`` with the gradient of the data term at x.

    Returns
    -------
    Solution
        ``x`` is the split that went through the prior where K is the identity (so sparse is sparse and a constraint
        holds), else the one that went through the data term. Trace: ``certificate``, ``primal``, ``dual``, ``rho``
        and, where asked for, ``objective`` (sum over the batch; NaN where the prior has no value). Extras: ``x``,
        ``z``, ``u`` and ``iterations`` per item.

    Raises
    ------
    TypeError, ValueError
        If operators, measurement, priors and start do not fit one another or hold NaN, a parameter is out of range,
        no direct solver exists where one was asked for, or ``rho`` is missing for a prior that has no value.
    FloatingPointError
        If the iterate is not finite any more.

    References
    ----------
    Boyd, Parikh, Chu, Peleato, Eckstein, Distributed optimization and statistical learning via the alternating
    direction method of multipliers, Found. Trends Machine Learning 3 (2011). Wohlberg, ADMM penalty parameter
    selection by residual balancing, arXiv 1704.06209 (2017), for the relative residuals.
    """
    unknown, measured = door(A, y, x0)
    K, split = _analysis(analysis, A, unknown)
    suits("prior", prior, split, K.out_dtype, y.device)
    loss = SquaredL2(1.0, dims=len(measured.event)) if loss is None else loss
    suits("loss", loss, measured, A.out_dtype, y.device)
    _checks.one_of("solve", solve, METHODS)
    _checks.count("cg_iters", cg_iters, low=1)
    if not 0 < relax < 2:
        raise ValueError(f"relax must lie strictly between 0 and 2, got {relax}")
    loop = Loop(unknown, y, max_iter, tol, callback, "the normal equations are nearly singular, or the prior's prox "
                "expands")
    _checks.positive("cg_tol", cg_tol := 0.01 * tol if cg_tol is None else cg_tol)

    q = _weight(loss)
    balanced = rho is None
    if rho is None:
        rho = _default_rho(A, K, prior, q, y, split)
    else:
        _checks.positive("rho", rho)
    splits = [_Split(K, split, Proximal(prior, split), None)]
    if q is None:
        splits.append(_Split(A, measured, Proximal(loss, measured), y))

    def solver(rho: float) -> NormalSolver:
        if q is None:
            return normal_solver(A, K, rho, rho, unknown, solve, cg_iters, cg_tol)
        return normal_solver(A if q else None, K, q, rho, unknown, solve, cg_iters, cg_tol)

    normal = solver(rho)
    backprojection = A._adjoint(y)
    x = torch.zeros_like(backprojection) if x0 is None else x0.clone()
    for s in splits:
        s.start(x)
    next_balance = 5
    for k in loop:
        rhs = rho * _sum([s.adjoint_z - s.adjoint_u for s in splits])
        if q:
            rhs.add_(backprojection, alpha=q)
        x = loop.keep(normal.solve(rhs, x), x)
        pulled_back = _sum([s.update(x, relax, rho, loop) for s in splits])
        multiplier = rho * _sum([s.adjoint_u for s in splits])
        if not q:
            gradient = multiplier
        elif normal.exact:  # then q A^H (A x - y) = rho K^H (z - u - K x) with z and u as they were before the update
            gradient = rhs.sub_(backprojection, alpha=q).sub_(pulled_back, alpha=rho).add_(multiplier)
        else:
            gradient = (A._adjoint(A._forward(x) - y)).mul(q).add_(multiplier)
        primal = _largest([ratio(s.items.norm(s.kx - s.z), _largest([s.items.norm(s.kx), s.items.norm(s.z),
                                                                     s.items.norm(s.u)])) for s in splits])
        dual = ratio(unknown.norm(gradient), _largest(
            [rho * unknown.norm(s.adjoint_u) for s in splits]
            + [(rho if q is None else q) * unknown.norm(backprojection)]))
        answer = splits[0].z if analysis is None else x
        noted = {"primal": primal, "dual": dual, "rho": rho}
        if objective:
            inside = answer if analysis is None else splits[0].kx
            noted["objective"] = loss._value(A._forward(answer) - y).sum() + prior._value(inside).sum()
        loop.record(answer, torch.maximum(primal, dual), **noted)
        if balanced and k == next_balance:
            next_balance *= 2
            factor = _balance(primal.max(), dual.max())
            if factor != 1.0:
                rho *= factor
                normal = solver(rho)
                for s in splits:
                    s.rescale(1 / factor)
    answer = splits[0].z if analysis is None else x
    return loop.solution(answer, {"x": x, "z": splits[0].z, "u": splits[0].u})


@dataclass
class _Split:
    """z = K x with its prox and multiplier; the prox is taken around ``centre`` where there is one."""

    K: LinearOperator
    items: Items
    prox: Proximal
    centre: Tensor | None

    def start(self, x: Tensor) -> None:
        self.kx = self.z = self.K._forward(x)
        self.u = torch.zeros_like(self.z)
        self.adjoint_z = self.K._adjoint(self.z)
        self.adjoint_u = torch.zeros_like(self.adjoint_z)

    def update(self, x: Tensor, relax: float, rho: float, loop: Loop) -> Tensor:
        """Update z and u; return K^H K x."""
        kx = self.K._forward(x)
        relaxed = kx if relax == 1 else torch.lerp(self.z, kx, relax)
        u = relaxed + self.u
        shifted = u.clone() if self.centre is None else u - self.centre
        z = self.prox(shifted, torch.full(self.items.batch, 1 / rho, dtype=_real(u.dtype), device=u.device))
        if self.centre is not None:
            z = z + self.centre
        self.kx = loop.keep(kx, self.kx)
        z, u = loop.keep(z, self.z), loop.keep(u - z, self.u)
        adjoint_z, adjoint_u = self.K._adjoint(z), self.K._adjoint(u)
        # u_new - u = relax K x + (1 - relax) z - z_new, so K^H K x needs no application of its own.
        pulled_back = (adjoint_u - self.adjoint_u).add_(adjoint_z).sub_(self.adjoint_z, alpha=1 - relax)
        self.z, self.u, self.adjoint_z, self.adjoint_u = z, u, adjoint_z, adjoint_u
        return pulled_back if relax == 1 else pulled_back.mul_(1 / relax)

    def rescale(self, factor: float) -> None:
        self.u = self.u * factor
        self.adjoint_u = self.adjoint_u * factor


def _analysis(analysis: LinearOperator | None, A: LinearOperator, unknown: Items) -> tuple[LinearOperator, Items]:
    if analysis is None:
        return Identity(A.in_shape, A.in_dtype), unknown
    if not isinstance(analysis, LinearOperator):
        raise TypeError(f"analysis must be a LinearOperator, got {type(analysis).__name__}")
    if analysis.in_shape != A.in_shape:
        raise ValueError(f"analysis must act on unknowns of shape {A.in_shape}, got {analysis.in_shape}")
    if analysis.in_dtype != A.in_dtype:
        raise TypeError(f"analysis must act on {A.in_dtype}, got {analysis.in_dtype}")
    return analysis, Items(unknown.batch, tuple(analysis.out_shape))


def _weight(loss: Prior) -> float | None:
    """The weight of a loss that is a plain multiple of the squared norm, else ``None``."""
    if isinstance(loss, Scaled):
        inner = _weight(loss.prior)
        return None if inner is None else loss.factor * inner
    return float(loss.weight) if isinstance(loss, SquaredL2) and not isinstance(loss.weight, Tensor) else None


def _default_rho(A: LinearOperator, K: LinearOperator, prior: Prior, q: float | None, y: Tensor,
                 split: Items) -> float:
    probe = prior._value(torch.zeros((*split.batch, *split.event), dtype=K.out_dtype, device=y.device))
    if bool(torch.isnan(probe).any()):
        raise ValueError(f"rho must be given for {type(prior).__name__}: the prior is known through its prox alone, "
                         f"whose strength is 1/rho")
    size = 1.0 if q is None else q * A.norm(tol=0.1) ** 2 / max(K.norm(tol=0.1) ** 2, torch.finfo(_real(y.dtype)).tiny)
    return 0.1 * size if size > 0 and math.isfinite(size) else 1.0


def _balance(primal: Tensor, dual: Tensor) -> float:
    if not float(primal) > 0 or not float(dual) > 0:
        return 1.0
    factor = min(max(math.sqrt(float(primal) / float(dual)), 0.1), 10.0)
    return 1.0 if 0.5 < factor < 2.0 else factor


def _real(dtype: torch.dtype) -> torch.dtype:
    return dtype.to_real() if dtype.is_complex else dtype


def _sum(tensors: list[Tensor]) -> Tensor:
    total = tensors[0]
    for t in tensors[1:]:
        total = total + t
    return total


def _largest(tensors: list[Tensor]) -> Tensor:
    top = tensors[0]
    for t in tensors[1:]:
        top = torch.maximum(top, t)
    return top
