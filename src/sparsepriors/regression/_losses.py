"""Smooth losses by what Newton's method and a duality gap ask of them, sample by sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsepriors.priors import Huber, Logistic, Prior, Scaled, SquaredL2

_FLOOR = 1e-3  # of the bound: the least curvature, so that a sample on a straight piece keeps a scale


@dataclass(frozen=True)
class Loss:
    """A loss phi of one number, as maps of tensors.

    Attributes
    ----------
    value, slope, curvature
        phi and its derivatives; the curvature is at least a thousandth of the bound.
    bound
        b(v) such that ``phi(u) <= phi(v) + phi'(v) (u - v) + b(v) (u - v)^2 / 2`` for every u.
    conjugate
        ``phi*(s)`` for slopes s that phi has.
    lipschitz
        The largest curvature.
    """

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    curvature: Callable[[Tensor], Tensor]
    bound: Callable[[Tensor], Tensor]
    conjugate: Callable[[Tensor], Tensor]
    lipschitz: float


def loss_of(prior: Prior, factor: float = 1.0) -> Loss:
    """The loss that a smooth prior of residuals is.

    Raises
    ------
    TypeError
        If it is none of `SquaredL2`, `Huber` and `Logistic`, perhaps times a number, with one weight for all.
    """
    if isinstance(prior, Scaled):
        return loss_of(prior.prior, factor * prior.factor)
    if isinstance(prior, SquaredL2 | Huber | Logistic) and not isinstance(prior.weight, Tensor) and prior.weight > 0:
        w = factor * prior.weight
        match prior:
            case Huber():
                return _huber(w, prior.delta)
            case Logistic():
                return _logistic(w)
        return Loss(lambda v: 0.5 * w * v.square(), lambda v: w * v, lambda v: torch.full_like(v, w),
                    lambda v: torch.full_like(v, w), lambda s: s.square() / (2 * w), w)
    raise TypeError("loss must be SquaredL2, Huber or Logistic, perhaps times a number, with a positive number as "
                    f"its weight, got {prior}")


def _huber(w: float, delta: float) -> Loss:
    def value(v: Tensor) -> Tensor:
        r = v.abs()
        return w * torch.where(r <= delta, r.square() / (2 * delta), r - delta / 2)

    def bound(v: Tensor) -> Tensor:
        return w / v.abs().clamp(min=delta)

    return Loss(value, lambda v: w * (v / delta).clamp(-1, 1),
                lambda v: torch.where(v.abs() <= delta, w / delta, _FLOOR * bound(v)), bound,
                lambda s: delta * s.square() / (2 * w), w / delta)


def _logistic(w: float) -> Loss:
    def bound(v: Tensor) -> Tensor:  # Jaakkola and Jordan (2000), Bayesian parameter estimation via variational methods
        r = v.abs()
        return w * torch.where(r > 1e-4, torch.tanh(r / 2) / (2 * r.clamp(min=1e-4)), 0.25)

    def curvature(v: Tensor) -> Tensor:
        return torch.maximum(w * torch.sigmoid(v) * torch.sigmoid(-v), _FLOOR * bound(v))

    def conjugate(s: Tensor) -> Tensor:
        p = (-s / w).clamp(0, 1)
        return w * (torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))

    return Loss(lambda v: w * torch.nn.functional.softplus(-v), lambda v: -w * torch.sigmoid(-v), curvature, bound,
                conjugate, 0.25 * w)
