"""Sparse Bayesian learning for coefficients that come in blocks: precisions that neighbours share."""

from __future__ import annotations

import torch
from jaxtyping import Inexact
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.operators import Kronecker
from sparsepriors.regression.kron_sbl import FIRST_NOISE
from sparsepriors.regression.sparse_bayes import checked_data, evidence_of
from sparsepriors.solvers import Callback, Solution, State

_OFF = 1e10
"""Precision of what counts as zero for the next posterior; a later one may bring it back."""


@torch.no_grad()
def pattern_coupled_bayes(A: Inexact[Tensor, "m n"] | Kronecker, y: Inexact[Tensor, "..."], *,
                          noise: float | None = None, coupling: float = 1.0, shape: float = 0.5, rate: float = 1e-4,
                          prune: float = 1e-3, max_iter: int = 150, tol: float = 1e-4,
                          callback: Callback | None = None) -> Solution:
    """Regress y on the columns of A, coefficients next to one another being large or zero together (PC-SBL).

    The precision of coefficient i is ``a_i + coupling (a_(i-1) + a_(i+1))``, and with ``w_i = E|x_i|^2 + coupling
    (E|x_(i-1)|^2 + E|x_(i+1)|^2)`` of the posterior the next ``a_i`` is ``shape / (w_i / 2 + rate)``: a step towards
    the maximum that EM looks for, without a proof of monotony.

    Parameters
    ----------
    A, y, noise
        As in `sparse_bayes`; the noise is one variance, or ``None`` to learn it.
    coupling
        How much neighbours count, 0 or more; without them, this is `sparse_bayes` with ``shape`` 1/2 and ``rate`` 0.
    shape, rate
        Of the gamma law of every ``a_i``. A small rate lets coefficients vanish.
    prune
        Where ``prune * a_i`` exceeds the smallest ``a``, its precision is set to 1e10 for one iteration; 0 for never.
    max_iter, tol
        Certificate: the change of the posterior mean, relative to its norm.

    Returns
    -------
    Solution
        ``x``: the posterior mean. Trace: ``certificate``. Extras: ``gamma`` (n,), the variances of the prior,
        ``noise_var`` and ``variances`` (n,) of the posterior.

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit, something is NaN, or a number is out of its range.

    References
    ----------
    Fang, Shen, Li, Wang (2015), Pattern-coupled sparse Bayesian learning for recovery of block-sparse signals, IEEE
    Transactions on Signal Processing 63(2); the constants are those of the code of He and Joseph (2024), whose shape
    is 1.
    """
    factors, y, dtype = checked_data(A, y)
    if noise is not None:
        _checks.positive("noise", noise)
    coupling = _checks.nonnegative_number("coupling", coupling)
    shape = _checks.positive_number("shape", shape)
    rate = _checks.nonnegative_number("rate", rate)
    prune = _checks.nonnegative_number("prune", prune)
    if prune >= 1:
        raise ValueError(f"prune must be below 1, got {prune}")
    _checks.count("max_iter", max_iter, low=1)
    tol = _checks.positive_number("tol", tol)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable, got {type(callback).__name__}")
    evidence = evidence_of(factors, y)
    floor = 1e-12 * evidence.power or 1.0
    s = max(FIRST_NOISE * evidence.power, floor) if noise is None else float(noise)
    gamma = 1 / _with_neighbours(torch.ones(evidence.columns, dtype=torch.float64), coupling)
    at, change, iteration = evidence.posterior(gamma, s), float("inf"), 0
    trace: dict[str, list[float]] = {"certificate": []}
    asked = False
    while not asked and change > tol and iteration < max_iter:
        iteration += 1
        weight = _with_neighbours(at.variances + at.mean.abs().square().mean(1), coupling)
        alpha = shape / (weight / 2 + rate).clamp(min=1 / _OFF)
        if prune:
            alpha = torch.where(prune * alpha > alpha.min(), _OFF, alpha)
        gamma = 1 / _with_neighbours(alpha, coupling)
        if noise is None:
            s = max((at.residual + s * float(at.determined.sum())) / evidence.rows, floor)
        before, at = at.mean, evidence.posterior(gamma, s)
        change = float((at.mean - before).norm() / before.norm().clamp(min=torch.finfo(torch.float64).tiny))
        trace["certificate"].append(change)
        asked = callback is not None and callback(State(iteration, at.mean, {"certificate": change})) is True
    x = (at.mean[:, 0] if y.ndim == 1 else at.mean).to(dtype)
    real = dtype.to_real()
    extras = {"gamma": gamma.to(real), "noise_var": torch.tensor(s, dtype=real), "variances": at.variances.to(real)}
    return Solution(x, trace, iteration, change <= tol, change, extras)


def _with_neighbours(a: Tensor, coupling: float) -> Tensor:
    """``a_i + coupling (a_(i-1) + a_(i+1))``, nothing lying beyond the ends."""
    out = a.clone()
    out[1:] += coupling * a[:-1]
    out[:-1] += coupling * a[1:]
    return out
