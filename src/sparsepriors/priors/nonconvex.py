"""Nonconvex separable penalties with the exact global proximal operator at every step length.

The scalar problem min over m >= 0 of step * phi(m) + (m - r)^2 / 2, r = |x|, is solved in closed form, also where the
step is so long that the objective is no longer convex and two local minima compete. Ties go to the smaller m.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.priors import _shapes
from sparsepriors.priors.penalties import Weighted


@dataclass(frozen=True)
class Nonconvex(Weighted):
    """Base: subclasses give phi(m) and the solution of the scalar problem for moduli."""

    @abstractmethod
    def _phi(self, m: Tensor) -> Tensor:
        """Penalty per entry, weight included."""

    @abstractmethod
    def _shrink(self, r: Tensor, step: float | Tensor) -> Tensor:
        """Global minimiser over m >= 0 of step * phi(m) + (m - r)^2 / 2."""

    def _value(self, x: Tensor) -> Tensor:
        return self._sum(self._phi(x.abs()))

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        return _shapes.rephase(x, self._shrink(x.abs(), step))


@dataclass(frozen=True)
class L0(Nonconvex):
    """R(x) = sum_i weight_i [x_i != 0]; its prox is hard thresholding at sqrt(2 step weight)."""

    def _phi(self, m: Tensor) -> Tensor:
        return _shapes.tensor_like(self.weight, m) * (m != 0)  # a number times booleans would be single precision

    def _shrink(self, r: Tensor, step: float | Tensor) -> Tensor:
        return _hard(r, (2 * _shapes.tensor_like(self.weight, r) * step).sqrt())


@dataclass(frozen=True)
class Lq(Nonconvex):
    """R(x) = sum_i weight_i |x_i|^q for q = 1/2 or 2/3, the two powers with a closed-form prox.

    Parameters
    ----------
    q
        ``0.5`` or ``2/3``.

    References
    ----------
    Xu, Chang, Xu and Zhang (2012), L1/2 regularization: a thresholding representation theory; Cao, Sun and Xu (2013),
    Fast image deconvolution using closed-form thresholding formulas of Lq (q = 1/2, 2/3) regularization.
    """

    q: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.q, float) or not any(math.isclose(self.q, q) for q in (1 / 2, 2 / 3)):
            raise ValueError(f"q must be 1/2 or 2/3, got {self.q!r}")

    def _phi(self, m: Tensor) -> Tensor:
        return _shapes.like(self.weight, m) * m ** self.q

    def _shrink(self, r: Tensor, step: float | Tensor) -> Tensor:
        q, t = self.q, _shapes.tensor_like(self.weight, r) * step
        # The jump: at |x| = (2 - q) b the minimiser goes from 0 to 2 (1 - q) b, where b = (2 t (1 - q))^(1/(2-q))
        # / (2 (1 - q)) (Marjanovic and Solo, 2012, On lq optimization and matrix completion).
        b = (2 * t * (1 - q)) ** (1 / (2 - q)) / (2 * (1 - q))
        kept = r > (2 - q) * b
        some = kept & (b > 1e-20 * r)  # else the penalty moves |x| by less than its rounding
        rho = torch.where(some, r, 2.0) / torch.where(some, b, 1.0)
        # In units of b the stationary points depend on rho = |x| / b alone: m - rho + s m^(q-1) = 0. The closed forms
        # are of order one for moderate rho; for a large one m = rho - s m^(q-1) needs one iteration from rho.
        near = rho.clamp(max=1e4)
        m = torch.where(rho <= 1e4, _half(near) if q == 0.5 else _two_thirds(near), rho)
        slope = q * (2 * (1 - q)) ** (1 - q)
        # Fixed-point steps contract at least by q / 2 and remove the rounding of the closed forms.
        for _ in range(2):
            m = rho - slope * m ** (q - 1)
        return torch.where(some, m * b, torch.where(kept, r, 0.0))


@dataclass(frozen=True)
class MCP(Nonconvex):
    """Minimax concave penalty: weight r - r^2 / (2 gamma) up to r = gamma weight, constant beyond.

    Parameters
    ----------
    gamma
        Concavity, positive; large values approach `L1`.

    References
    ----------
    Zhang (2010), Nearly unbiased variable selection under minimax concave penalty.
    """

    gamma: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.positive_number("gamma", self.gamma)

    def _phi(self, m: Tensor) -> Tensor:
        w = _shapes.like(self.weight, m)
        return torch.where(m <= self.gamma * w, w * m - m.square() / (2 * self.gamma), 0.5 * self.gamma * w * w)

    def _shrink(self, r: Tensor, step: float | Tensor) -> Tensor:
        return _firm(r, step, _shapes.tensor_like(self.weight, r), _shapes.tensor_like(self.gamma, r))


@dataclass(frozen=True)
class SCAD(Nonconvex):
    """Smoothly clipped absolute deviation: slope weight up to r = weight, falling to 0 at r = a weight.

    Parameters
    ----------
    a
        Where the penalty becomes constant, in units of ``weight``; more than 2.

    References
    ----------
    Fan and Li (2001), Variable selection via nonconcave penalized likelihood.
    """

    a: float = 3.7

    def __post_init__(self) -> None:
        super().__post_init__()
        if _checks.number("a", self.a) <= 2:
            raise ValueError(f"a must be more than 2, got {self.a}")

    def _phi(self, m: Tensor) -> Tensor:
        w, a = _shapes.tensor_like(self.weight, m), self.a
        middle = (2 * a * w * m - m.square() - w * w) / (2 * (a - 1))
        return torch.where(m <= w, w * m, torch.where(m <= a * w, middle, w * w * (a + 1) / 2))

    def _shrink(self, r: Tensor, step: float | Tensor) -> Tensor:
        w, t, a = _shapes.tensor_like(self.weight, r), _shapes.tensor_like(step, r), self.a
        soft = torch.relu(r - t * w)
        # Up to t = a - 1 the objective is convex; beyond, the middle piece bends down and the outer two compete.
        bends = t >= a - 1
        middle = ((a - 1) * r - a * t * w) / torch.where(bends, 1.0, a - 1 - t)
        short = torch.where(r <= (1 + t) * w, soft, torch.where(r <= a * w, middle, r))
        jump = w * torch.where(t <= a + 1, (a + 1 + t) / 2, (t * (a + 1)).sqrt())
        return torch.where(bends, torch.where(r <= jump, soft, r), short)


@dataclass(frozen=True)
class LogSum(Nonconvex):
    """R(x) = sum_i weight_i log(1 + |x_i| / epsilon).

    Parameters
    ----------
    epsilon
        Scale below which the penalty is nearly linear, positive.

    References
    ----------
    Candes, Wakin and Boyd (2008), Enhancing sparsity by reweighted l1 minimization.
    """

    epsilon: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.positive("epsilon", self.epsilon)

    def _phi(self, m: Tensor) -> Tensor:
        return _shapes.like(self.weight, m) * torch.log1p(m / self.epsilon)

    def _shrink(self, r: Tensor, step: float | Tensor) -> Tensor:
        t, epsilon = _shapes.tensor_like(self.weight, r) * step, self.epsilon
        twice = 2 * t.sqrt()
        # (r + epsilon)^2 - 4 t, factored: it vanishes where the two stationary points meet.
        radicand = (r + epsilon - twice) * (r + epsilon + twice)
        some = radicand > 0
        # The larger root of m^2 - (r - epsilon) m + t - r epsilon = 0, by the form that subtracts no near numbers.
        root, linear = torch.where(some, radicand, 1.0).sqrt(), r - epsilon
        low = linear < 0
        m = torch.where(low, 2 * (r * epsilon - t) / torch.where(low, root - linear, 1.0), (linear + root) / 2)
        m = torch.where(some, torch.relu(m), 0.0)
        convex = t <= epsilon * epsilon
        better = t * torch.log1p(m / epsilon) + 0.5 * (m - r).square() < 0.5 * r.square()
        return torch.where(torch.where(convex, r * epsilon > t, better), m, 0.0)


@dataclass(frozen=True)
class CEL0(Nonconvex):
    """Continuous exact l0: the least-squares-aware relaxation of weight * l0 for a matrix with these column norms.

    phi(r) = weight - norm^2 / 2 (r - sqrt(2 weight) / norm)^2 up to r = sqrt(2 weight) / norm, and weight beyond.
    Its minimisers with a least-squares term are minimisers of the l0 problem.

    Parameters
    ----------
    norm
        Euclidean norms of the columns, positive: a number or a tensor that broadcasts to ``x``.

    References
    ----------
    Soubies, Blanc-Feraud and Aubert (2015), A continuous exact l0 penalty (CEL0) for least squares regularized problem,
    equation 2.14.
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

    def _shrink(self, r: Tensor, step: float | Tensor) -> Tensor:
        w, norm = _shapes.tensor_like(self.weight, r), _shapes.tensor_like(self.norm, r)
        # Expanding the square shows an MCP with weight norm sqrt(2 w) and gamma 1 / norm^2.
        return _firm(r, step, norm * (2 * w).sqrt(), norm ** -2)


def _hard(r: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(r > threshold, r, 0.0)


def _firm(r: Tensor, step: float | Tensor, w: Tensor, gamma: Tensor) -> Tensor:
    """Solve the scalar problem of MCP: firm thresholding up to step = gamma, hard thresholding beyond."""
    t = _shapes.tensor_like(step, r)
    bends = t >= gamma
    middle = torch.relu(r - t * w) / torch.where(bends, 1.0, 1 - t / gamma)
    return torch.where(bends, _hard(r, w * (t * gamma).sqrt()), torch.where(r <= gamma * w, middle, r))


def _half(rho: Tensor) -> Tensor:
    """Largest root of m - rho + m^(-1/2) / 2 = 0 for rho >= 3/2 (Xu et al., 2012, theorem 1)."""
    angle = torch.arccos(0.25 * (rho / 3) ** -1.5)
    return 2 / 3 * rho * (1 + torch.cos(2 * math.pi / 3 - 2 / 3 * angle))


def _two_thirds(rho: Tensor) -> Tensor:
    """Largest root of m - rho + s m^(-1/3) = 0, s = (2/3)^(4/3), for rho >= 4/3 (Cao, Sun and Xu, 2013).

    With m = 2/3 y^3 it reads y^4 - (3/2) rho y + 1 = 0, a quartic whose resolvent cubic has one real root.
    """
    p = 1.5 * rho
    a = (4 / math.sqrt(3) * torch.cosh(torch.arccosh(3 * math.sqrt(3) / 16 * p.square()) / 3)).sqrt()
    return 2 / 3 * ((a + (2 * p / a - a.square()).clamp(min=1e-12).sqrt()) / 2) ** 3
