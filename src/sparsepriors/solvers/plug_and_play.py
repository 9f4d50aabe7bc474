"""Plug and play: solvers whose prior is a denoiser, in that field's own parameters (noise levels, not weights)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Inexact
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.operators.algebra import Identity
from sparsepriors.operators.base import LinearOperator
from sparsepriors.priors.base import Prior
from sparsepriors.priors.combinators import Scaled
from sparsepriors.solvers._loop import Loop, Proximal, door, ratio, suits
from sparsepriors.solvers._normal import METHODS, normal_solver
from sparsepriors.solvers.admm import admm
from sparsepriors.solvers.gradient import proximal_gradient
from sparsepriors.solvers.solution import Callback, Solution


@torch.no_grad()
def pnp_proximal_gradient(A: LinearOperator, y: Inexact[Tensor, "..."], prior: Prior, *, std: float,
                          step: float | None = None, accelerated: bool = False,
                          x0: Inexact[Tensor, "..."] | None = None, max_iter: int = 100, tol: float = 1e-4,
                          callback: Callback | None = None) -> Solution:
    """PnP-PGM (PnP-FISTA with ``accelerated``): gradient steps on 1/2 ||A x - y||^2, each followed by the denoiser.

    The denoiser always sees the noise level ``std``, whatever the step: this is `proximal_gradient` with the prior
    scaled by ``std**2 / step``.

    Parameters
    ----------
    A, y, x0, max_iter, callback
        As in `proximal_gradient`.
    prior
        A `PlugAndPlay` prior, or any other whose prox with step ``std**2`` is the denoiser wanted.
    std
        Noise level of the denoiser, in the units of x.
    step
        Step length; 1/||A||^2 by default.
    accelerated
        Nesterov's momentum, without restart.
    tol
        Of `proximal_gradient`'s certificate, the relative fixed-point residual.

    Returns
    -------
    Solution
        As of `proximal_gradient`, without an objective.

    Raises
    ------
    TypeError, ValueError, FloatingPointError
        As in `proximal_gradient`; also if ``std`` is not positive.

    References
    ----------
    Kamilov, Mansour, Wohlberg, A plug-and-play priors approach for solving nonlinear imaging inverse problems, IEEE
    Signal Processing Letters 24 (2017).
    """
    door(A, y, x0)
    std = _checks.positive_number("std", std)
    if step is None:
        norm = A.norm()
        step = 1 / norm ** 2 if norm > 0 else 1.0
    _checks.positive("step", step)
    _require_prior(prior)
    return proximal_gradient(A, y, Scaled(prior, std ** 2 / step), step=step, accelerated=accelerated, restart=False,
                             objective=False, x0=x0, max_iter=max_iter, tol=tol, callback=callback)


@torch.no_grad()
def pnp_admm(A: LinearOperator, y: Inexact[Tensor, "..."], prior: Prior, *, std: float, rho: float = 1.0,
             solve: str = "auto", relax: float = 1.0, x0: Inexact[Tensor, "..."] | None = None, max_iter: int = 100,
             tol: float = 1e-4, callback: Callback | None = None) -> Solution:
    """PnP-ADMM for 1/2 ||A x - y||^2: the denoiser always sees the noise level ``std``, whatever the penalty ``rho``.

    Parameters
    ----------
    A, y, solve, relax, x0, max_iter, callback
        As in `admm`.
    prior
        A `PlugAndPlay` prior, or any other whose prox with step ``std**2`` is the denoiser wanted.
    std
        Noise level of the denoiser, in the units of x.
    rho
        Penalty of the split, in the units of ``A^H A``: larger trusts the denoiser more.
    tol
        Of `admm`'s certificate, the larger relative residual.

    Returns
    -------
    Solution
        As of `admm`, without an objective.

    Raises
    ------
    TypeError, ValueError, FloatingPointError
        As in `admm`; also if ``std`` is not positive.

    References
    ----------
    Venkatakrishnan, Bouman, Wohlberg, Plug-and-play priors for model based reconstruction, GlobalSIP 2013.
    """
    std = _checks.positive_number("std", std)
    _checks.positive("rho", rho)
    _require_prior(prior)
    return admm(A, y, Scaled(prior, std ** 2 * rho), rho=rho, solve=solve, relax=relax, objective=False, x0=x0,
                max_iter=max_iter, tol=tol, callback=callback)


def noise_schedule(start: float, stop: float, steps: int) -> tuple[float, ...]:
    """Noise levels that fall from ``start`` to ``stop`` by a constant factor.

    Raises
    ------
    TypeError, ValueError
        If a level is not positive, they rise, or ``steps`` is below 1.
    """
    start, stop = _checks.positive_number("start", start), _checks.positive_number("stop", stop)
    _checks.count("steps", steps, low=1)
    if stop > start:
        raise ValueError(f"stop must not exceed start = {start:g}, got {stop:g}")
    if steps == 1:
        return (float(stop),)
    return tuple(math.exp(math.log(start) + i / (steps - 1) * math.log(stop / start)) for i in range(steps))


def _levels(stds: tuple[float, ...]) -> tuple[float, ...]:
    _checks.instance("stds", stds, (tuple, list))
    return tuple(_checks.positive_number(f"stds[{i}]", level) for i, level in enumerate(stds))


@torch.no_grad()
def hqs(A: LinearOperator, y: Inexact[Tensor, "..."], prior: Prior, *, noise_std: float,
        stds: tuple[float, ...] | None = None, trust: float = 0.23, solve: str = "auto", cg_iters: int = 20,
        x0: Inexact[Tensor, "..."] | None = None, max_iter: int = 24, tol: float = 1e-4,
        callback: Callback | None = None) -> Solution:
    r"""Half-quadratic splitting with a denoiser of falling noise level (DPIR).

    Iteration k with the level s_k:

        x <- argmin 1/(2 noise_std^2) ||A x - y||^2 + trust/(2 s_k^2) ||x - z||^2
        z <- denoiser at x with noise level s_k.

    Parameters
    ----------
    A
        Linear operator, real or complex.
    y
        ``(*batch, *A.out_shape)``; each item is a problem of its own.
    prior
        A `PlugAndPlay` prior, or any other whose prox with step s**2 denoises at the level s.
    noise_std
        Standard deviation of the noise in y, in the units of y.
    stds
        The levels s_k in the units of x; the last is kept when iterations remain. By default ``noise_schedule(49/255,
        max(noise_std, 0.005), 8)`` for images in [0, 1].
    trust
        Weight of the prior, lambda in the source.
    solve, cg_iters
        How x is found: as in `admm`.
    x0
        ``(*batch, *A.in_shape)``, the first z; ``A^H y`` by default.
    max_iter, tol
        Certificate, once the schedule has run out: the largest relative change ``||z - z_prev|| / ||z_prev||`` of the
        items from one iteration to the next.

    Returns
    -------
    Solution
        ``x`` is the last z. Trace: ``certificate`` and ``std``. Extras: ``x``, the other half, and ``iterations`` per
        item.

    Raises
    ------
    TypeError, ValueError
        If operator, measurement, prior and start do not fit one another or hold NaN, or a parameter is out of range.
    FloatingPointError
        If the iterate is not finite any more.

    References
    ----------
    Zhang, Li, Zuo, Zhang, Van Gool, Timofte, Plug-and-play image restoration with deep denoiser prior, IEEE Trans.
    PAMI 44 (2022), equations 6 and 7 and section 4.2.
    """
    unknown, _ = door(A, y, x0)
    suits("prior", prior, unknown, A.in_dtype, y.device)
    noise_std = _checks.positive_number("noise_std", noise_std)
    trust = _checks.positive_number("trust", trust)
    _checks.one_of("solve", solve, METHODS)
    _checks.count("cg_iters", cg_iters, low=1)
    levels = noise_schedule(max(49 / 255, noise_std), max(noise_std, 0.005), 8) if stds is None else _levels(stds)
    if not levels:
        raise ValueError("stds must name at least one noise level, got none")
    loop = Loop(unknown, y, max_iter, tol, callback, "the denoiser expands")

    identity = Identity(A.in_shape, A.in_dtype)
    backprojection = A._adjoint(y)
    z = backprojection if x0 is None else x0.clone()
    x = z
    prox = Proximal(prior, unknown)
    level = rho = math.nan
    normal = None
    for k in loop:
        if normal is None or k <= len(levels):
            level = levels[min(k, len(levels)) - 1]
            rho = trust * (noise_std / level) ** 2
            normal = normal_solver(A, identity, 1.0, rho, unknown, solve, cg_iters, 0.01 * loop.tol)
        x = loop.keep(normal.solve(backprojection + rho * z, x), x)
        step = torch.full(unknown.batch, level ** 2, dtype=unknown.norm(z).dtype, device=y.device)
        z_new = loop.keep(prox(x.clone(), step), z)
        change = ratio(unknown.norm(z_new - z), unknown.norm(z)) if k > len(levels) else None
        z = z_new
        loop.record(z, change, std=level)
    return loop.solution(z, {"x": x})


def _require_prior(prior: object) -> None:
    if not isinstance(prior, Prior):
        raise TypeError(f"prior must be a Prior, got {type(prior).__name__}")
