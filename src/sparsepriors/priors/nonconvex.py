"""Nonconvex separable penalties with the exact global proximal operator at every step length.

The scalar problem min over m >= 0 of step * phi(m) + (m - r)^2 / 2, r = |x|, is solved piece by piece: each piece of
phi contributes its stationary point, clipped to the piece, and the candidate of least objective is taken. That is
the global minimiser also where the step is so long that the objective is no longer convex. Ties go to the smaller m.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.priors import _shapes
from sparsepriors.priors.penalties import Weighted


@dataclass(frozen=True)
class Nonconvex(Weighted):
    """Base: subclasses give phi(m) for moduli m and the candidates of the scalar problem."""

    @abstractmethod
    def _phi(self, m: Tensor) -> Tensor:
        """Penalty per entry, weight included."""

    @abstractmethod
    def _candidates(self, r: Tensor, step: float | Tensor) -> list[Tensor]:
        """Nonnegative points, besides 0, among which the global minimiser lies."""

    def _value(self, x: Tensor) -> Tensor:
        return self._sum(self._phi(x.abs()))

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        r = x.abs()

        def better(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            take = b[1] < a[1]
            return torch.where(take, b[0], a[0]), torch.where(take, b[1], a[1])

        points = [torch.zeros_like(r), *self._candidates(r, step)]
        scored = [(m, step * self._phi(m) + 0.5 * (m - r).square()) for m in points]
        return _shapes.rephase(x, reduce(better, scored)[0])


@dataclass(frozen=True)
class L0(Nonconvex):
    """R(x) = sum_i weight_i [x_i != 0]; its prox is hard thresholding at sqrt(2 step weight)."""

    def _phi(self, m: Tensor) -> Tensor:
        return _shapes.like(self.weight, m) * (m != 0)

    def _candidates(self, r: Tensor, step: float | Tensor) -> list[Tensor]:
        return [r]


@dataclass(frozen=True)
class Lq(Nonconvex):
    """R(x) = sum_i weight_i |x_i|^q for q = 1/2 or 2/3, the two powers with a closed-form prox.

    Parameters
    ----------
    q
        ``0.5`` or ``2/3``.

    Source: Xu, Chang, Xu and Zhang (2012), L1/2 regularization: a thresholding representation theory; Cao, Sun and Xu
    (2013), Fast image deconvolution using closed-form thresholding formulas of Lq (q = 1/2, 2/3) regularization.
    """

    q: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.q, float) or not any(math.isclose(self.q, q) for q in (1 / 2, 2 / 3)):
            raise ValueError(f"q must be 1/2 or 2/3, got {self.q!r}")

    def _phi(self, m: Tensor) -> Tensor:
        return _shapes.like(self.weight, m) * m ** self.q

    def _candidates(self, r: Tensor, step: float | Tensor) -> list[Tensor]:
        t = _shapes.tensor_like(self.weight, r) * step
        tiny = torch.finfo(r.dtype).tiny
        # Below these points the scalar objective has no stationary point and 0 is the minimiser.
        if self.q == 0.5:
            exists = r > 1.5 * t ** (2 / 3)
            s = torch.where(exists, r, 1.0)
            angle = torch.arccos((torch.where(exists, t, 0.0) / 4 * (s / 3) ** -1.5).clamp(max=1))
            m = 2 / 3 * s * (1 + torch.cos(2 * math.pi / 3 - 2 / 3 * angle))
        else:
            exists = r > 2 / 3 * (3 * (2 * t) ** 3) ** 0.25
            s = torch.where(exists, r, 1.0)
            lam = 2 * torch.where(exists, t, 0.0).clamp(min=tiny ** 0.5)
            angle = torch.arccosh((27 / 16 * s.square() * lam ** -1.5).clamp(min=1))
            a = 2 / math.sqrt(3) * lam ** 0.25 * torch.cosh(angle / 3) ** 0.5
            m = ((a + (2 * s / a - a.square()).clamp(min=0).sqrt()) / 2) ** 3
        # One Newton step on m - r + t q m^(q-1) = 0 removes the rounding of the trigonometric form.
        m = m.clamp(min=tiny)
        slope = t * self.q * m ** (self.q - 1)
        curvature = 1 + (self.q - 1) * slope / m
        newton = m - torch.where(curvature > 0.05, (m - r + slope) / curvature.clamp(min=0.05), 0.0)
        return [torch.where(exists, newton.clamp(min=0), 0.0)]


@dataclass(frozen=True)
class MCP(Nonconvex):
    """Minimax concave penalty: weight r - r^2 / (2 gamma) up to r = gamma weight, constant beyond.

    Parameters
    ----------
    gamma
        Concavity, positive; large values approach `L1`.

    Source: Zhang (2010), Nearly unbiased variable selection under minimax concave penalty.
    """

    gamma: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.positive("gamma", self.gamma)

    def _phi(self, m: Tensor) -> Tensor:
        w = _shapes.like(self.weight, m)
        return torch.where(m <= self.gamma * w, w * m - m.square() / (2 * self.gamma), 0.5 * self.gamma * w * w)

    def _candidates(self, r: Tensor, step: float | Tensor) -> list[Tensor]:
        w, step = _shapes.tensor_like(self.weight, r), _shapes.tensor_like(step, r)
        knee = self.gamma * w
        return [_stationary(r - step * w, 1 - step / self.gamma, torch.zeros_like(knee), knee), torch.maximum(r, knee)]


@dataclass(frozen=True)
class SCAD(Nonconvex):
    """Smoothly clipped absolute deviation: slope weight up to r = weight, falling to 0 at r = a weight.

    Parameters
    ----------
    a
        Where the penalty becomes constant, in units of ``weight``; more than 2.

    Source: Fan and Li (2001), Variable selection via nonconcave penalized likelihood.
    """

    a: float = 3.7

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.positive("a", self.a)
        if self.a <= 2:
            raise ValueError(f"a must be more than 2, got {self.a}")

    def _phi(self, m: Tensor) -> Tensor:
        w, a = _shapes.tensor_like(self.weight, m), self.a
        middle = (2 * a * w * m - m.square() - w * w) / (2 * (a - 1))
        return torch.where(m <= w, w * m, torch.where(m <= a * w, middle, w * w * (a + 1) / 2))

    def _candidates(self, r: Tensor, step: float | Tensor) -> list[Tensor]:
        w, step, a = _shapes.tensor_like(self.weight, r), _shapes.tensor_like(step, r), self.a
        middle = _stationary(r - step * a * w / (a - 1), 1 - step / (a - 1), w, a * w)
        return [torch.minimum(torch.relu(r - step * w), w), middle, torch.maximum(r, a * w)]


@dataclass(frozen=True)
class LogSum(Nonconvex):
    """R(x) = sum_i weight_i log(1 + |x_i| / epsilon).

    Parameters
    ----------
    epsilon
        Scale below which the penalty is nearly linear, positive.

    Source: Candes, Wakin and Boyd (2008), Enhancing sparsity by reweighted l1 minimization.
    """

    epsilon: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.positive("epsilon", self.epsilon)

    def _phi(self, m: Tensor) -> Tensor:
        return _shapes.like(self.weight, m) * torch.log1p(m / self.epsilon)

    def _candidates(self, r: Tensor, step: float | Tensor) -> list[Tensor]:
        t = _shapes.tensor_like(self.weight, r) * step
        radicand = (r + self.epsilon).square() - 4 * t
        some = radicand > 0
        root = torch.where(some, radicand, 1.0).sqrt()
        return [torch.where(some, torch.relu((r - self.epsilon + root) / 2), 0.0)]


@dataclass(frozen=True)
class CEL0(Nonconvex):
    """Continuous exact l0: the least-squares-aware relaxation of weight * l0 for a matrix with these column norms.

    phi(r) = weight - norm^2 / 2 (r - sqrt(2 weight) / norm)^2 up to r = sqrt(2 weight) / norm, and weight beyond.
    Its minimisers with a least-squares term are minimisers of the l0 problem.

    Parameters
    ----------
    norm
        Euclidean norms of the columns, positive: a number or a tensor that broadcasts to ``x``.

    Source: Soubies, Blanc-Feraud and Aubert (2015), A continuous exact l0 penalty (CEL0) for least squares regularized
    problem, equation 2.14.
    """

    norm: float | Tensor = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.positive("norm", self.norm)

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        _shapes.must_broadcast("norm", self.norm, x)

    def _phi(self, m: Tensor) -> Tensor:
        w, norm = _shapes.tensor_like(self.weight, m), _shapes.tensor_like(self.norm, m)
        knee = (2 * w).sqrt() / norm
        return torch.where(m < knee, w - 0.5 * (norm * (m - knee)).square(), w)

    def _candidates(self, r: Tensor, step: float | Tensor) -> list[Tensor]:
        w, norm = _shapes.tensor_like(self.weight, r), _shapes.tensor_like(self.norm, r)
        step = _shapes.tensor_like(step, r)
        knee = (2 * w).sqrt() / norm
        inner = _stationary(r - step * norm * (2 * w).sqrt(), 1 - step * norm.square(), torch.zeros_like(knee), knee)
        return [inner, torch.maximum(r, knee)]


def _stationary(numerator: Tensor, curvature: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The zero of ``curvature * m - numerator`` clipped to [low, high]; ``low`` on pieces that are concave.

    A concave piece has its minimum at an end: ``low``, or ``high``, which the next piece offers.
    """
    convex = curvature > 0
    m = numerator / torch.where(convex, curvature, 1.0)
    return torch.where(convex, torch.minimum(torch.maximum(m, low), high), low)
