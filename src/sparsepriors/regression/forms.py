"""Separable priors in the forms that coordinate descent takes: a code of the kernels, or the prior's own prox."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sparsepriors.kernels import Penalty, gram_descent, gram_newton, optimality
from sparsepriors.priors.base import Prior
from sparsepriors.priors.combinators import Scaled
from sparsepriors.priors.nonconvex import CEL0, L0, MCP, SCAD, LogSum, Lq
from sparsepriors.priors.penalties import L1, ElasticNet, SquaredL2, Zero
from sparsepriors.priors.sets import Box, NonNegative

_EPOCHS = 20         # of one call of the kernel: cheap beside a factorisation
_CALLS = 200         # of the kernel, for one model
_STEPS = 3           # of Newton's method in a row
_NEWTON = 4000       # largest support that is factorised
_GRADIENT = 20000    # steps of proximal gradient, for one model
_LOOK = 10           # of them between two looks at the violation


class Form(Protocol):
    """What the rounds of coordinate descent ask of a penalty of p coordinates."""

    @property
    def kind(self) -> int | None:
        """A `Penalty`, or None for one that the kernels do not know."""
        ...

    def of(self, index: Tensor) -> Form:
        """The penalty of some coordinates."""
        ...

    def optimality(self, x: Tensor, q: Tensor, curvature: Tensor, residual: float,
                   projection: float) -> tuple[Tensor, Tensor, list[float]]:
        """As the kernel of this name."""
        ...

    def value(self, x: Tensor) -> float:
        """The penalty of x."""
        ...

    def violation(self, x: Tensor, q: Tensor, curvature: Tensor) -> float:
        """The largest of `optimality`."""
        ...

    def shrink(self, q: Tensor) -> float:
        """The factor, at most 1, that makes q feasible in the dual."""
        ...

    def conjugate(self, q: Tensor) -> float:
        """The penalty's conjugate at a q that is feasible."""
        ...

    def minimise(self, gram: Tensor, linear: Tensor, u: Tensor, q: Tensor, tol: float) -> Tensor:
        """The minimiser of ``1/2 u.G u - linear.u + penalty(u)``, G being the first rows and columns of ``gram``.

        From u, where ``q = linear - G u``, until no coordinate violates optimality by more than ``tol``.
        """
        ...


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
        return Separable(self.kind, self.weight[index], self.second[index], self.factor)

    def optimality(self, x: Tensor, q: Tensor, curvature: Tensor, residual: float,
                   projection: float) -> tuple[Tensor, Tensor, list[float]]:
        violation, active, numbers = optimality(x, q, curvature, self.kind, self.weight, self.second, self.factor,
                                                residual, projection)
        return violation, active, numbers.tolist()

    def value(self, x: Tensor) -> float:
        if self.kind == Penalty.elastic:
            return self.factor * float(self.weight @ x.abs() + 0.5 * (self.second @ x.square()))
        one = torch.ones_like(x)
        return self.optimality(x, x, one, 0.0, 0.0)[2][1]

    def violation(self, x: Tensor, q: Tensor, curvature: Tensor) -> float:
        return self.optimality(x, q, curvature, 0.0, 0.0)[2][0]

    def shrink(self, q: Tensor) -> float:
        w, reach = self.factor * self.weight, q if self.kind == Penalty.positive else q.abs()
        bound = torch.where((self.second == 0) & (reach > w), w / reach, 1.0)
        return float(bound.min()) if bound.numel() else 1.0

    def conjugate(self, q: Tensor) -> float:
        some = self.second > 0
        if not bool(some.any()):
            return 0.0
        reach = q if self.kind == Penalty.positive else q.abs()
        over = torch.relu(reach - self.factor * self.weight)[some]
        return float((over.square() / (2 * self.factor * self.second[some])).sum())

    def minimise(self, gram: Tensor, linear: Tensor, u: Tensor, q: Tensor, tol: float) -> Tensor:
        for _ in range(_CALLS):
            u, q, last = gram_descent(gram, linear, u, q, self.kind, self.weight, self.second, self.factor, tol,
                                      _EPOCHS, True)
            if float(last[1]) <= tol:
                break
            if self.quadratic and int(u.count_nonzero()) <= _NEWTON:
                u, q = gram_newton(gram, linear, u, self.kind, self.weight, self.second, self.factor, _STEPS)
        return u

    @property
    def quadratic(self) -> bool:
        """Whether it is quadratic on either side of zero, so that a fixed sign makes the problem a linear system."""
        return self.kind in (Penalty.elastic, Penalty.positive)


@dataclass(frozen=True)
class ByProx:
    """A separable convex prior of vectors that the kernels do not know, through its own value and prox.

    Attributes
    ----------
    columns
        Length of the vectors.
    index
        The coordinates that count; the others are zero.
    """

    prior: Prior
    columns: int
    index: Tensor

    kind = None

    def of(self, index: Tensor) -> ByProx:
        return ByProx(self.prior, self.columns, self.index[index])

    def _whole(self, v: Tensor, rest: float) -> Tensor:
        return v.new_full((self.columns,), rest).index_copy(0, self.index, v)

    def _prox(self, v: Tensor, steps: Tensor) -> Tensor:
        return self.prior._prox(self._whole(v, 0.0), self._whole(steps, 1.0))[self.index]

    def optimality(self, x: Tensor, q: Tensor, curvature: Tensor, residual: float,
                   projection: float) -> tuple[Tensor, Tensor, list[float]]:
        some = curvature > 0
        lengths = torch.where(some, curvature, 1.0)
        violation = torch.where(some, curvature * (x - self._prox(x + q / lengths, 1 / lengths)).abs(), 0.0)
        worst = float(violation.max()) if violation.numel() else 0.0
        return violation, torch.ones_like(some), [worst, self.value(x), torch.inf]

    def value(self, x: Tensor) -> float:
        return float(self.prior._value(self._whole(x, 0.0)).sum())

    def violation(self, x: Tensor, q: Tensor, curvature: Tensor) -> float:
        return self.optimality(x, q, curvature, 0.0, 0.0)[2][0]

    def shrink(self, q: Tensor) -> float:
        raise TypeError(f"the conjugate of {type(self.prior).__name__} is not known")

    def conjugate(self, q: Tensor) -> float:
        raise TypeError(f"the conjugate of {type(self.prior).__name__} is not known")

    def minimise(self, gram: Tensor, linear: Tensor, u: Tensor, q: Tensor, tol: float) -> Tensor:
        k = len(linear)
        gram = gram[:k, :k]
        if not bool(gram.any()):
            return u
        steps = torch.full_like(u, 1 / float(torch.linalg.matrix_norm(gram, 2)))
        at, momentum = u, 1.0
        for done in range(_GRADIENT):
            if done % _LOOK == 0 and self.violation(u, linear - gram @ u, gram.diagonal()) <= tol:
                break
            new = self._prox(at + steps * (linear - gram @ at), steps)
            if bool((at - new) @ (new - u) > 0):  # momentum that points uphill is dropped
                at, momentum = new, 1.0
            else:
                after = 0.5 * (1 + (1 + 4 * momentum**2) ** 0.5)
                at, momentum = new + (momentum - 1) / after * (new - u), after
            u = new
        return u


def form_of(prior: Prior, columns: int) -> Form:
    """The kernels' form of a separable prior, or its own prox where they have none.

    Raises
    ------
    TypeError
        If the kernels have no form for it and it is not both separable and convex: a fixed point of proximal gradient
        on the working set need not be one of coordinate steps then.
    """
    try:
        return separable(prior, columns)
    except TypeError:
        if not (prior.separable and prior.convex):
            raise
        return ByProx(prior, columns, torch.arange(columns))


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
    raise TypeError(f"coordinate descent has no form for {type(prior).__name__}; proximal_gradient takes every prior")
