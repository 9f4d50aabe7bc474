"""Convex penalties with a closed-form proximal operator.

All take a ``weight`` that multiplies the penalty: a number, or a tensor that broadcasts against the unknown
(per-coordinate weights). For complex tensors they are functions of the moduli and keep the phase.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.priors import _shapes
from sparsepriors.priors.base import Prior

_PROX_STEPS = 60  # of Newton's method or bisection: together they end at rounding


@dataclass(frozen=True)
class Zero(Prior, convex=True, separable=True):
    """R(x) = 0: no belief; its prox is the identity."""

    @property
    def lipschitz(self) -> float:
        """Zero."""
        return 0.0

    def _value(self, x: Tensor) -> Tensor:
        return self._sum(torch.zeros_like(x, dtype=x.dtype.to_real()))

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        return x.clone()

    def _grad(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


@dataclass(frozen=True)
class Weighted(Prior, separable=True):
    """Base of separable penalties sum_i weight_i * phi(|x_i|).

    Parameters
    ----------
    weight
        Nonnegative, a number or a tensor that broadcasts to the shape of ``x``.
    """

    weight: float | Tensor = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.nonnegative("weight", self.weight)

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        _shapes.must_broadcast("weight", self.weight, x)


@dataclass(frozen=True)
class L1(Weighted, convex=True):
    """R(x) = sum_i weight_i |x_i|; its prox is soft thresholding.

    Source: Donoho (1995), De-noising by soft-thresholding; the complex form shrinks the modulus.
    """

    def _value(self, x: Tensor) -> Tensor:
        return self._sum(_shapes.like(self.weight, x) * x.abs())

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        threshold = _shapes.like(self.weight, x) * step
        if x.is_complex():
            return _shapes.rephase(x, torch.relu(x.abs() - threshold))
        return _soft(x, threshold)


@dataclass(frozen=True)
class SquaredL2(Weighted, convex=True):
    """R(x) = 1/2 sum_i weight_i |x_i|^2 (ridge, Tikhonov; the data term of Gaussian noise)."""

    @property
    def lipschitz(self) -> float:
        """The largest weight."""
        return _shapes.largest(self.weight)

    def _value(self, x: Tensor) -> Tensor:
        return 0.5 * self._sum(_shapes.like(self.weight, x) * _abs_squared(x))

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        return x / (1 + _shapes.like(self.weight, x) * step)

    def _grad(self, x: Tensor) -> Tensor:
        return _shapes.like(self.weight, x) * x


@dataclass(frozen=True)
class ElasticNet(Weighted, convex=True):
    """R(x) = sum_i weight_i |x_i| + ridge_i/2 |x_i|^2.

    Parameters
    ----------
    ridge
        Weight of the quadratic part, nonnegative, a number or a tensor that broadcasts to ``x``.

    References
    ----------
    Zou and Hastie (2005), Regularization and variable selection via the elastic net.
    """

    ridge: float | Tensor = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.nonnegative("ridge", self.ridge)

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        _shapes.must_broadcast("ridge", self.ridge, x)

    def _value(self, x: Tensor) -> Tensor:
        return self._sum(_shapes.like(self.weight, x) * x.abs()
                         + 0.5 * _shapes.like(self.ridge, x) * _abs_squared(x))

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        threshold = _shapes.like(self.weight, x) * step
        soft = (_shapes.rephase(x, torch.relu(x.abs() - threshold)) if x.is_complex() else _soft(x, threshold))
        return soft / (1 + _shapes.like(self.ridge, x) * step)


@dataclass(frozen=True)
class Huber(Weighted, convex=True):
    """R(x) = sum_i weight_i h(|x_i|), h(r) = r^2 / (2 delta) up to delta and r - delta/2 beyond.

    Parameters
    ----------
    delta
        Where the quadratic becomes linear, positive.

    References
    ----------
    Huber (1964), Robust estimation of a location parameter, divided by delta so that the slope at infinity is
    ``weight``: it is the Moreau envelope of ``L1(weight)`` with parameter ``delta / weight``.
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.positive("delta", self.delta)

    @property
    def lipschitz(self) -> float:
        """The largest weight over delta."""
        return _shapes.largest(self.weight) / self.delta

    def _value(self, x: Tensor) -> Tensor:
        r = x.abs()
        inner = _abs_squared(x) / (2 * self.delta)
        return self._sum(_shapes.like(self.weight, x) * torch.where(r <= self.delta, inner, r - self.delta / 2))

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        t = _shapes.like(self.weight, x) * step
        r = x.abs()
        # One expression for both branches: x shrinks by t |x| / max(|x|, delta + t).
        return x * (1 - t / torch.clamp(r, min=self.delta + t))

    def _grad(self, x: Tensor) -> Tensor:
        return _shapes.like(self.weight, x) * x / x.abs().clamp(min=self.delta)


@dataclass(frozen=True)
class Logistic(Weighted, convex=True, accepts_complex=False):
    """R(x) = sum_i weight_i log(1 + exp(-x_i)), the logistic loss of margins.

    A margin is a prediction times its label of 1 or -1: as the ``loss`` of a solver, with the rows of the operator
    times the labels and a measurement of zero, it makes logistic regression.

    Source: Cox (1958), The regression analysis of binary sequences.
    """

    @property
    def lipschitz(self) -> float:
        """A quarter of the largest weight."""
        return _shapes.largest(self.weight) / 4

    def _value(self, x: Tensor) -> Tensor:
        return self._sum(_shapes.like(self.weight, x) * torch.nn.functional.softplus(-x))

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        t = _shapes.tensor_like(self.weight, x) * step
        low, high, u = x, x + t, x + t / 2
        for _ in range(_PROX_STEPS):
            # Newton's method on u - x - t sigmoid(-u), which rises, kept between the signs that are known.
            p = torch.sigmoid(-u)
            excess = u - x - t * p
            low, high = torch.where(excess <= 0, u, low), torch.where(excess >= 0, u, high)
            u = u - excess / (1 + t * p * (1 - p))
            u = torch.where((u >= low) & (u <= high), u, (low + high) / 2)
        return u

    def _grad(self, x: Tensor) -> Tensor:
        return -_shapes.like(self.weight, x) * torch.sigmoid(-x)


@dataclass(frozen=True)
class GroupL2(Prior, convex=True):
    """R(x) = sum_g weight_g ||x_g||_2, groups being the entries along ``axis`` (group lasso).

    Parameters
    ----------
    weight
        Nonnegative, a number or a tensor that broadcasts to the groups' norms, ``x`` with ``axis`` of length 1.
    axis
        One axis or several. Negative counts from the end; a nonnegative axis needs ``dims=None``.

    References
    ----------
    Yuan and Lin (2006), Model selection and estimation in regression with grouped variables.
    """

    weight: float | Tensor = 1.0
    axis: int | tuple[int, ...] = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.nonnegative("weight", self.weight)
        _shapes.check_axis(self.axis, self.dims)

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        axes = _shapes.group_axes(self.axis, x)
        _shapes.must_broadcast("weight", self.weight, x.detach().abs().sum(dim=axes, keepdim=True))

    def _value(self, x: Tensor) -> Tensor:
        norms = _shapes.norms(x, _shapes.group_axes(self.axis, x))
        return self._sum(_shapes.like(self.weight, x) * norms)

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        norms = _shapes.norms(x, _shapes.group_axes(self.axis, x))
        threshold = _shapes.tensor_like(self.weight, x) * step
        shrunk = torch.relu(norms - threshold)
        return x * torch.where(shrunk > 0, shrunk / norms.clamp(min=torch.finfo(norms.dtype).tiny), 0)


def _soft(x: Tensor, threshold: float | Tensor) -> Tensor:
    """Soft threshold a real tensor."""
    if isinstance(threshold, Tensor):
        return x - torch.clamp(x, -threshold, threshold)
    return x - x.clamp(-threshold, threshold)


def _abs_squared(x: Tensor) -> Tensor:
    return x.real.square() + x.imag.square() if x.is_complex() else x.square()
