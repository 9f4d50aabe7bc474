"""Concave priors by a sequence of weighted Lassos."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.priors import L1, Prior, Zero
from sparsepriors.regression.descent import problem_of
from sparsepriors.solvers.solution import Solution

_BESIDE_ZERO = 1e-300  # where the slope from the right at zero is taken: |x| itself has none at zero
_STEEPEST = 1e50       # of a slope there: that of a power of |x|, which is infinite at zero, is larger
_ROUNDING = 1e-9       # relative, of a slope: what is no rise yet


@torch.no_grad()
def adaptive_lasso(A: object, y: Float[Tensor, " n"], prior: Prior, *, rounds: int = 3,
                   weights: Float[Tensor, " n"] | None = None, intercept: bool = False, loss: Prior | None = None,
                   x0: Float[Tensor, " p"] | None = None, max_iter: int = 100, tol: float = 1e-6) -> Solution:
    """Minimise a loss plus a concave prior by Lassos whose weights are the prior's slopes at the last coefficients.

    The prior lies below its tangents, so the sum never rises from round to round, but for what ``tol`` leaves. Two
    rounds with ``LogSum(w, epsilon)`` are a Lasso and the adaptive Lasso with the weights ``w / (epsilon + |x_j|)``.

    Parameters
    ----------
    A, y, weights, intercept, loss
        As for `coordinate_descent`; y is a vector.
    prior
        Separable; in the moduli rising, concave and differentiable, with a finite slope at zero: `MCP`, `SCAD`,
        `LogSum`, `CEL0`, `L1`, one of your own, perhaps times a number. No prox is asked of it.
    rounds
        How many Lassos, at least 1.
    x0
        ``(p,)``, whose slopes the first Lasso takes and where it starts; zeros by default.
    max_iter, tol
        Of each Lasso, as for `coordinate_descent`.

    Returns
    -------
    Solution
        float64, ``converged`` and ``certificate`` of the last Lasso. Trace: ``objective``, loss plus prior, after every
        round. Extras: ``intercept``, and ``slopes`` (p,), the weights of the last Lasso.

    Raises
    ------
    TypeError, ValueError
        As `coordinate_descent`; if the prior is not separable or has no derivative, or if a slope that is met is
        negative, not finite or larger than that at zero.

    References
    ----------
    Zou (2006), The adaptive lasso and its oracle properties. Candes, Wakin, Boyd (2008), Enhancing sparsity by
    reweighted l1 minimization. Zou, Li (2008), One-step sparse estimates in nonconcave penalized likelihood models
    (local linear approximation).
    """
    _checks.count("rounds", rounds, low=1)
    if not isinstance(prior, Prior):
        raise TypeError(f"prior must be a Prior, got {type(prior).__name__}")
    if not prior.separable:
        raise TypeError(f"prior must be separable, got {prior}")
    if _checks.inexact("y", y).ndim != 1:
        raise ValueError(f"y must be a vector, got shape {tuple(y.shape)}")
    problem = problem_of(A, y, L1(), weights, intercept, loss)
    x = problem.start(x0)
    prior._check(x)
    steepest, free = _slopes(prior, torch.zeros_like(x)), problem.form(Zero())
    objectives: list[float] = []
    while True:
        slopes = _slopes(prior, x)
        if bool((slopes > (1 + _ROUNDING) * steepest).any()):
            raise ValueError(f"prior must be concave in the moduli, got one whose slope rises: {prior}")
        found = problem.solve(L1(slopes), x, max_iter, tol, None)
        x = found.x
        objectives.append(problem.judge(free, x, None).objective + float(prior._value(x).sum()))
        if len(objectives) == rounds:
            break
    return Solution(x, {"objective": objectives}, rounds, found.converged, found.certificate,
                    {"intercept": found.extras["intercept"], "slopes": slopes})


def _slopes(prior: Prior, x: Tensor) -> Tensor:
    """The derivatives of the prior in the moduli, from the right at zero."""
    with torch.enable_grad():
        moduli = x.abs().clamp(min=_BESIDE_ZERO).requires_grad_()
        value = prior._value(moduli).sum()
        if not value.requires_grad:
            raise TypeError(f"prior must be differentiable in the moduli, got {prior}")
        (slopes,) = torch.autograd.grad(value, moduli)
    if not bool(((slopes >= 0) & (slopes <= _STEEPEST)).all()):
        raise ValueError(f"prior must have slopes that are finite and nonnegative, got {prior}")
    return slopes
