"""Tipping and Faul (2003): maximise the evidence by one variance at a time, each to its exact maximiser."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparsepriors.regression._evidence import At, Evidence

_CHANGES = 100
"""Single changes between two computations from scratch, which take the rounding of the updates away."""


def one_by_one(evidence: Evidence, gamma: Tensor, noise: float, floor: float | None,
               close: Callable[[Tensor, float, float], bool], max_iter: int, tol: float) -> tuple[Tensor, float]:
    """Variances and noise at a maximum of the evidence.

    With C the covariance of the data, a column a adds ``log(1 + g s) - g q^2 / (1 + g s)`` to the objective per vector,
    where s = a^H C_0^-1 a, q^2 = mean |a^H C_0^-1 y|^2 and C_0 leaves the column itself out; the minimum is at
    g = (q^2 - s) / s^2 if that is positive, else at zero. Each change is an update of C^-1 of rank one.

    Parameters
    ----------
    evidence, gamma, noise
        The problem and where to start.
    floor
        The least noise that may be learnt; ``None`` where it is known.
    close
        Notes mean, objective and certificate of an iteration, and says whether it was the last.
    max_iter, tol
        Most iterations; a change must gain a tenth of ``tol`` per row to be made.
    """
    for _ in range(max_iter):
        gamma, left = _changes(evidence, gamma, noise, 0.1 * tol * evidence.rows)
        at = evidence.posterior(gamma, noise)
        moved = 0.0
        if floor is not None:
            following, at = _next_noise(evidence, gamma, noise, at, floor)
            moved, noise = abs(following / noise - 1), following
        if close(at.mean, at.cost, max(left / evidence.rows, moved)):
            break
    return gamma, noise


def _changes(evidence: Evidence, gamma: Tensor, noise: float, least: float) -> tuple[Tensor, float]:
    """Up to a hundred changes, the most useful first; and what one more could still gain, per vector.

    They end when none gains more than ``least``.
    """
    A, Y = evidence.matrix(), evidence.Y
    gamma = gamma.clone()
    kept = gamma.nonzero()[:, 0]
    scaled = A[:, kept] * gamma[kept].sqrt()
    covariance = scaled @ scaled.mH
    covariance.diagonal().add_(noise)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
    whole = inverse @ A
    strength = (A.conj() * whole).sum(0).real
    match = whole.mH @ Y
    left = 0.0
    for change in range(_CHANGES + 1):
        inside = (1 - gamma * strength).clamp(min=torch.finfo(torch.float64).eps)
        s, power = strength / inside, match.abs().square().mean(1) / inside.square()
        target = torch.where(s > 0, (power - s).clamp(min=0) / s.square().clamp(min=1e-300), 0)
        gain = _cost(gamma, s, power) - _cost(target, s, power)
        i = int(gain.argmax())
        left = float(gain[i])
        if change == _CHANGES or left <= least:
            break
        step = float(target[i] - gamma[i])
        v = inverse @ A[:, i]
        c = A.mH @ v
        factor = step / (1 + step * float(strength[i]))
        match = match - factor * c[:, None] * match[i]
        strength = (strength - factor * c.abs().square()).clamp(min=0)
        inverse = inverse - factor * torch.outer(v, v.conj())
        gamma[i] = target[i]
    return gamma, max(left, 0.0)


def _cost(gamma: Tensor, s: Tensor, power: Tensor) -> Tensor:
    return (gamma * s).log1p() - gamma * power / (1 + gamma * s)


def _next_noise(evidence: Evidence, gamma: Tensor, noise: float, at: At, floor: float) -> tuple[float, At]:
    """MacKay's fixed point where it lowers the objective, else the step of EM, which always does but for rounding."""
    determined = float(at.determined.sum())
    jump = at.residual / max(evidence.rows - determined, 1e-6 * evidence.rows)
    for following in (jump, (at.residual + noise * determined) / evidence.rows):
        there = evidence.posterior(gamma, max(following, floor))
        if there.cost <= at.cost:
            return max(following, floor), there
    return noise, at
