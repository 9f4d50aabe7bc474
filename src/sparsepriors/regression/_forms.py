"""Separable priors in the form that the compiled kernels of coordinate descent take."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsepriors.kernels import Penalty, optimality
from sparsepriors.priors.base import Prior
from sparsepriors.priors.combinators import Scaled
from sparsepriors.priors.nonconvex import CEL0, L0, MCP, SCAD, LogSum, Lq
from sparsepriors.priors.penalties import L1, ElasticNet, SquaredL2, Zero
from sparsepriors.priors.sets import Box, NonNegative


@dataclass(frozen=True)
class Separable:
    """A separable penalty as the kernel takes it: a code, two numbers per coordinate, a common factor.

    Attributes
    ----------
    kind
        A `Penalty`.
    weight, second
        ``(p,)`` float64.
    factor
        Of the whole penalty.
    """

    kind: Penalty
    weight: Tensor
    second: Tensor
    factor: float = 1.0

    def of(self, index: Tensor) -> Separable:
        """The penalty of some coordinates."""
        return Separable(self.kind, self.weight[index], self.second[index], self.factor)

    def optimality(self, x: Tensor, q: Tensor, curvature: Tensor, residual: float,
                   projection: float) -> tuple[Tensor, Tensor, list[float]]:
        """As the kernel of this name."""
        violation, active, numbers = optimality(x, q, curvature, self.kind, self.weight, self.second, self.factor,
                                                residual, projection)
        return violation, active, numbers.tolist()

    def value(self, x: Tensor) -> float:
        """The penalty of x."""
        one = torch.ones_like(x)
        return self.optimality(x, x, one, 0.0, 0.0)[2][1]

    def violation(self, x: Tensor, q: Tensor, curvature: Tensor) -> float:
        """The largest of `optimality`."""
        return self.optimality(x, q, curvature, 0.0, 0.0)[2][0]

    def shrink(self, q: Tensor) -> float:
        """The factor, at most 1, that makes q feasible in the dual of a quadratic penalty."""
        w, reach = self.factor * self.weight, q if self.kind == Penalty.positive else q.abs()
        bound = torch.where((self.second == 0) & (reach > w), w / reach, 1.0)
        return float(bound.min()) if bound.numel() else 1.0

    @property
    def quadratic(self) -> bool:
        """Whether it is quadratic on either side of zero, so that a fixed sign makes the problem a linear system."""
        return self.kind in (Penalty.elastic, Penalty.positive)


def separable(prior: Prior, columns: int) -> Separable:
    """The kernel's form of a separable prior of vectors of this length.

    Raises
    ------
    TypeError
        If the kernel has no form for it; `sparsepriors.solvers.proximal_gradient` takes every prior.
    """
    def vector(value: float | Tensor) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float64).reshape(-1).expand(columns).contiguous()

    match prior:
        case Scaled():
            inner = separable(prior.prior, columns)
            return Separable(inner.kind, inner.weight, inner.second, inner.factor * prior.factor)
        case Zero():
            return Separable(Penalty.elastic, vector(0.0), vector(0.0))
        case ElasticNet():
            return Separable(Penalty.elastic, vector(prior.weight), vector(prior.ridge))
        case L1():
            return Separable(Penalty.elastic, vector(prior.weight), vector(0.0))
        case SquaredL2():
            return Separable(Penalty.elastic, vector(0.0), vector(prior.weight))
        case NonNegative():
            return Separable(Penalty.positive, vector(0.0), vector(0.0))
        case Box():
            return Separable(Penalty.box, vector(prior.low), vector(prior.high))
        case L0():
            return Separable(Penalty.l0, vector(prior.weight), vector(0.0))
        case MCP():
            return Separable(Penalty.mcp, vector(prior.weight), vector(prior.gamma))
        case CEL0():
            norm = vector(prior.norm)
            return Separable(Penalty.mcp, norm * (2 * vector(prior.weight)).sqrt(), norm ** -2)
        case SCAD():
            return Separable(Penalty.scad, vector(prior.weight), vector(prior.a))
        case LogSum():
            return Separable(Penalty.log_sum, vector(prior.weight), vector(prior.epsilon))
        case Lq():
            return Separable(Penalty.power, vector(prior.weight), vector(prior.q))
    raise TypeError(f"coordinate_descent has no form for {type(prior).__name__}; proximal_gradient takes every prior")
