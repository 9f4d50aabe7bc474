"""Sparse Bayesian learning for a matrix: a Gaussian prior with a variance of its own for each coefficient.

The variances gamma (and the variance s of the noise, where it is not known) minimise minus the logarithm of the
evidence, ``L log det S + tr(Y^H S^-1 Y)`` with ``S = s I + A diag(gamma) A^H`` and L measurement vectors; most of them
end at zero. Three ways to get there: EM (Wipf and Rao, 2004, 2007), MacKay's fixed point (1992; Tipping, 2001), and
changing one variance at a time (Tipping and Faul, 2003).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.operators import Kronecker, Matrix
from sparsepriors.regression._evidence import Evidence, KroneckerEvidence, whitened
from sparsepriors.regression._one_by_one import one_by_one
from sparsepriors.regression.kron_sbl import FIRST_NOISE
from sparsepriors.solvers import Callback, Solution, State

UPDATES = ("em", "mackay", "one-by-one")

_LEAST_NOISE = 1e-12


@torch.no_grad()
def sparse_bayes(A: Inexact[Tensor, "m n"] | Kronecker, y: Inexact[Tensor, "..."], *,
                 noise: float | Tensor | None = None, update: str = "em",
                 start: Float[Tensor, " n"] | None = None, prune: float = 1e-4, max_iter: int = 1000,
                 tol: float = 1e-5, callback: Callback | None = None) -> Solution:
    """Regress y on the columns of A with automatic relevance determination.

    Parameters
    ----------
    A
        ``(m, n)``, real or complex; or a `Kronecker` product of matrices, which is not formed while there are more
        columns than rows: a step of ``"em"`` and ``"mackay"`` then costs a Cholesky factor of an ``(m, m)`` matrix.
    y
        ``(m,)``, or ``(m, L)`` for L measurement vectors that share the variances of their coefficients, and so the
        support (M-SBL); in the order of ``numpy.kron`` where A is a product. Complex numbers have circular noise and
        coefficients.
    noise
        Variance of the noise (of a complex number, not of its parts); or ``(m,)`` variances; or an ``(m, m)``
        covariance, positive definite; or ``None`` to learn one variance. One number or ``None`` with a product.
    update
        ``"em"``: without pruning the objective never rises. ``"mackay"``: fewer steps, mostly falling.
        ``"one-by-one"``: starts from the empty model and adds, changes and removes the column that lowers the objective
        most; it never rises either. The three may end in different local minima; with unknown noise and fewer rows
        than columns the lower minimum, which the last finds more often, may fit the noise.
    start
        ``(n,)`` nonnegative variances; by default equal ones that explain the power of y, and none for
        ``"one-by-one"``.
    prune
        A column is given up for good once the power ``gamma_n ||a_n||^2`` is below this share of the largest; not used
        by ``"one-by-one"``, which removes and adds as the objective says.
    max_iter, tol
        Certificate: the change of the variances relative to their norm; for ``"one-by-one"``, where an iteration is
        up to a hundred single changes, what a single change could still lower the objective by, over m L, or the
        relative change of the noise if that is larger.

    Returns
    -------
    Solution
        ``x``: posterior mean, ``(n,)`` or ``(n, L)``. Trace: ``objective`` at the variances whose posterior the
        iteration computed, and ``certificate``. Extras: ``gamma`` (n,), ``noise_var`` (1 where ``noise`` is not one
        number), ``variances`` (n,) of the posterior, and for the k columns that are left ``kept`` (k,) and
        ``covariance`` (k, k).

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit, something is NaN, a number is out of its range, or the covariance is not positive
        definite.
    """
    _checks.one_of("update", update, UPDATES)
    factors, y, dtype = checked_data(A, y)
    _checks.count("max_iter", max_iter, low=1)
    tol = _checks.positive_number("tol", tol)
    prune = _checks.nonnegative_number("prune", prune)
    if prune >= 1:
        raise ValueError(f"prune must be below 1, got {prune}")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable, got {type(callback).__name__}")
    given: float | None = None
    if isinstance(noise, Tensor) and noise.ndim:
        if len(factors) > 1:
            raise ValueError(f"noise must be a number or None for a Kronecker product, got shape {tuple(noise.shape)}")
        whole, y = whitened(factors[0], y, noise)
        factors, given = [whole], 1.0
    elif noise is not None:
        _checks.positive("noise", noise)
        given = float(noise)
    gamma = None
    if start is not None:
        _checks.nonnegative("start", _checks.inexact("start", start))
        columns = prod(a.shape[1] for a in factors)
        if tuple(start.shape) != (columns,):
            raise ValueError(f"start must have shape {(columns,)}, got {tuple(start.shape)}")
        gamma = start.double().clone()
    vector = y.ndim == 1
    evidence = evidence_of(factors, y)
    found = maximise(evidence, given, update=update, gamma=gamma, prune=prune, max_iter=max_iter, tol=tol,
                     callback=callback)
    x = (found.x[:, 0] if vector else found.x).to(dtype)
    real = dtype.to_real()
    extras = {name: t if name == "kept" else t.to(dtype if name == "covariance" else real)
              for name, t in found.extras.items()}
    return Solution(x, found.trace, found.iterations, found.converged, found.certificate, extras)


def sparse_bayes_cost(A: Inexact[Tensor, "m n"] | Kronecker, y: Inexact[Tensor, "..."], gamma: Float[Tensor, " n"],
                      noise_var: float) -> float:
    """``L log det S + tr(Y^H S^-1 Y)`` for ``S = noise_var I + A diag(gamma) A^H``.

    Minus the logarithm of the evidence of complex y up to a constant, and minus twice that of real y.

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit, something is NaN, or ``noise_var`` is not positive.
    """
    factors, y, _ = checked_data(A, y)
    _checks.nonnegative("gamma", _checks.inexact("gamma", gamma))
    _checks.positive("noise_var", noise_var)
    columns = prod(a.shape[1] for a in factors)
    if tuple(gamma.shape) != (columns,):
        raise ValueError(f"gamma must have shape {(columns,)}, got {tuple(gamma.shape)}")
    return evidence_of(factors, y).posterior(gamma.double(), float(noise_var)).cost


def maximise(evidence: Evidence, noise: float | None, *, update: str, gamma: Tensor | None, prune: float,
             max_iter: int, tol: float, callback: Callback | None = None) -> Solution:
    """`sparse_bayes` for data that were checked; ``noise`` is learnt where it is ``None``."""
    floor = _LEAST_NOISE * evidence.power or 1.0
    first = max(FIRST_NOISE * evidence.power, floor) if noise is None else noise
    steps = _Steps(evidence, callback, max_iter, tol)
    if not evidence.power:
        gamma, s = torch.zeros(evidence.columns, dtype=torch.float64), first
        at = evidence.posterior(gamma, s)
        steps.close(at.mean, at.cost, 0.0)
    elif update == "one-by-one":
        gamma = torch.zeros(evidence.columns, dtype=torch.float64) if gamma is None else gamma
        gamma, s = one_by_one(evidence, gamma, first, floor if noise is None else None, steps.close, max_iter, tol)
    else:
        gamma = evidence.equal_variances() if gamma is None else gamma
        s = first
        power = evidence.squared_norms
        for _ in range(max_iter):
            old = gamma
            gamma = torch.where(gamma * power >= prune * (gamma * power).max(), gamma, 0) if prune else gamma
            at = evidence.posterior(gamma, s)
            if update == "em":
                gamma = at.variances + at.mean.abs().square().mean(1)
                following = (at.residual + s * float(at.determined.sum())) / evidence.rows
            else:
                gamma = torch.where(at.determined > 0, at.mean.abs().square().mean(1)
                                    / at.determined.clamp(min=torch.finfo(torch.float64).tiny), 0)
                following = at.residual / max(evidence.rows - float(at.determined.sum()), 1e-6 * evidence.rows)
            s = max(following, floor) if noise is None else s
            change = float((gamma - old).norm() / old.norm().clamp(min=torch.finfo(torch.float64).tiny))
            if steps.close(at.mean, at.cost, change):
                break
    at = evidence.posterior(gamma, s)
    kept = gamma.nonzero()[:, 0]
    extras = {"gamma": gamma, "noise_var": torch.tensor(s, dtype=torch.float64), "variances": at.variances,
              "kept": kept, "covariance": evidence.covariance(gamma, s, kept)}
    return Solution(at.mean, steps.trace, steps.iteration, steps.certificate <= tol, steps.certificate, extras)


@dataclass
class _Steps:
    """The trace, and when to stop."""

    evidence: Evidence
    callback: Callable[[State], bool | None] | None
    max_iter: int
    tol: float

    def __post_init__(self) -> None:
        self.trace: dict[str, list[float]] = {"objective": [], "certificate": []}
        self.iteration = 0
        self.certificate = float("inf")

    def close(self, x: Tensor, objective: float, certificate: float) -> bool:
        """Note one iteration; whether it was the last."""
        self.iteration += 1
        self.certificate = certificate
        noted = {"objective": objective, "certificate": certificate}
        for name, value in noted.items():
            self.trace[name].append(value)
        asked = self.callback is not None and self.callback(State(self.iteration, x, noted)) is True
        return asked or certificate <= self.tol


def checked_data(A: Tensor | Kronecker, y: Tensor) -> tuple[list[Tensor], Tensor, torch.dtype]:
    """The matrix, or the factors of a product, and measurements in double precision, and what they promote to."""
    if isinstance(A, Kronecker):
        if not all(isinstance(op, Matrix) for op in A.factors):
            raise TypeError(f"A must be a Kronecker product of matrices, got {A}")
        factors = [op.matrix for op in A.factors if isinstance(op, Matrix)]
    else:
        factors = [A]
    for a in factors:
        _checks.inexact("A", a)
        if a.ndim != 2 or 0 in a.shape:
            raise ValueError(f"A must be a matrix with no empty axis, got shape {tuple(a.shape)}")
    _checks.inexact("y", y)
    rows = prod(len(a) for a in factors)
    if y.ndim not in (1, 2) or y.shape[0] != rows or 0 in y.shape:
        raise ValueError(f"y must have shape ({rows},) or ({rows}, L), got {tuple(y.shape)}")
    dtype = torch.promote_types(factors[0].dtype, y.dtype)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return [a.to(wide) for a in factors], y.to(wide), dtype


def evidence_of(factors: list[Tensor], y: Tensor) -> Evidence:
    """Of data that were checked."""
    Y = y[:, None] if y.ndim == 1 else y
    return KroneckerEvidence(factors, Y) if len(factors) > 1 else Evidence.of(factors[0], Y)
