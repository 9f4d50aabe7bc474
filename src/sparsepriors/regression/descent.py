"""Coordinate descent with working sets: penalised least squares with a separable prior, to a stated certificate.

A working set of columns grows by those that violate optimality most; on it the compiled kernel runs cyclic descent
on the Gram matrix with Anderson extrapolation, and where the penalty is quadratic between its kinks Newton steps on
the support end the descent (a Cholesky factorisation of the support's Gram matrix). Columns outside are touched once
per round, by X^T r. Sources: Friedman, Hastie, Tibshirani (2010), Regularization paths for generalized linear models
via coordinate descent (covariance updates); Massias, Gramfort, Salmon (2018), Celer (working sets by dual distance);
Bertrand, Massias (2021), Anderson acceleration of coordinate descent; Bertrand et al. (2022), Beyond L1 (working sets
for nonconvex penalties, scored by the violation of the fixed-point equation).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels import Penalty, gram_descent
from sparsepriors.priors.base import Prior
from sparsepriors.priors.combinators import Scaled
from sparsepriors.priors.nonconvex import CEL0, L0, MCP, SCAD, LogSum, Lq
from sparsepriors.priors.penalties import L1, ElasticNet, SquaredL2, Zero
from sparsepriors.priors.sets import Box, NonNegative
from sparsepriors.regression._design import Design, design
from sparsepriors.solvers.solution import Callback, Solution, State

_FIRST = 10          # columns that a working set takes in at least
_EPOCHS = 10         # of one call of the kernel
_CALLS = 200         # of the kernel, in one round
_INNER = 0.3         # the working set is solved to this share of the violation outside of it
_NEWTON = 4000       # largest support that is factorised
_LEAST = 1e-3        # the least such share: beyond it only a new product with A^T can help
_ROUNDING = 1e-15    # of the largest correlation: no violation is asked to be smaller
_STEPS = 10          # of Newton's method in a row
_DAMPING = 1e-5     # of a singular system, relative to its diagonal
_ROOM = 1.5          # growth of the Gram matrix's room


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
        return torch.as_tensor(value, dtype=torch.float64).expand(columns).contiguous()

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


@torch.no_grad()
def coordinate_descent(A: object, y: Float[Tensor, " n"], prior: Prior, *, weights: Float[Tensor, " n"] | None = None,
                       intercept: bool = False, x0: Float[Tensor, " p"] | None = None, max_iter: int = 100,
                       tol: float = 1e-6, callback: Callback | None = None) -> Solution:
    r"""Minimise ``1/2 sum_i weight_i (A x + b - y)_i^2 + prior(x)`` over x, and over b where it is asked for.

    Parameters
    ----------
    A
        ``(n, p)``: a `Matrix` operator, a float tensor on the CPU (its columns are best contiguous, as in Fortran
        order: else they are copied once) or a SciPy sparse matrix.
    y
        ``(n,)``, float32 or float64.
    prior
        Separable: `L1`, `ElasticNet`, `SquaredL2`, `Zero`, `NonNegative`, `Box`, `MCP`, `SCAD`, `L0`, `CEL0`, `Lq`,
        `LogSum`, perhaps times a number; weights may differ from coordinate to coordinate.
    weights
        ``(n,)``, nonnegative, not all zero; ones by default.
    intercept
        Whether b is a free number; else it is 0.
    x0
        ``(p,)``, the start; zeros by default. It matters for the prior that is not convex.
    max_iter, tol
        Most rounds, of one product with A^T each. Certificate: for `L1` and `ElasticNet` with positive weights, and
        `NonNegative` (once its gap is finite), the duality gap over ``1/2 ||y||^2``; for every other prior the largest
        violation ``L_j |x_j - prox(x_j + A_j^T r / L_j)|`` of the fixed-point equation, L_j = ||A_j||^2, over
        ``max |A^T y|``. With an intercept y and A are centred in both.

    Returns
    -------
    Solution
        float64. Trace: ``certificate``, ``objective`` and ``working_set`` (its size). Extras: ``intercept``.

    Raises
    ------
    TypeError, ValueError
        If the prior has no such form, the arguments do not fit one another or hold NaN, or a parameter is out of range.
    """
    return _Problem(A, y, weights, intercept).solve(prior, x0, max_iter, tol, callback)


@torch.no_grad()
def regularization_path(A: object, y: Float[Tensor, " n"], prior: Prior, factors: Sequence[float], *,
                        weights: Float[Tensor, " n"] | None = None, intercept: bool = False, max_iter: int = 100,
                        tol: float = 1e-6) -> Iterator[Solution]:
    """`coordinate_descent` for ``factor * prior``, factor by factor, each from the solution before it.

    The Gram matrix of the working set is kept, so that the path costs little more than its last point.

    Parameters
    ----------
    factors
        Positive, best falling from `largest_factor`.

    Yields
    ------
    Solution
        One for each factor. The other parameters and errors are those of `coordinate_descent`.
    """
    problem = _Problem(A, y, weights, intercept)
    x0 = None
    for factor in factors:
        found = problem.solve(Scaled(prior, factor), x0, max_iter, tol, None)
        yield found
        x0 = found.x


@torch.no_grad()
def largest_factor(A: object, y: Float[Tensor, " n"], prior: Prior, *, weights: Float[Tensor, " n"] | None = None,
                   intercept: bool = False) -> float:
    """The least factor, to 12 digits, from which on x = 0 satisfies the fixed-point equation of ``factor * prior``.

    Raises
    ------
    ValueError
        If there is none: the prior does not hold every coordinate at zero however large it is.
    """
    problem = _Problem(A, y, weights, intercept)
    separable(prior, problem.design.columns)
    low, high = 0.0, 1.0
    while problem.moves(prior, high):
        low, high = high, 4 * high
        if high > 1e300:
            raise ValueError(f"no multiple of {prior} holds every coordinate at zero")
    while not low and high > 1e-300 and not problem.moves(prior, high / 4):
        high /= 4
    while high - low > 1e-12 * high:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if problem.moves(prior, middle) else (low, middle)
    return high


class _Problem:
    """One design and one response; the working set outlives the solutions of a path."""

    def __init__(self, A: object, y: Tensor, weights: Tensor | None, intercept: bool) -> None:
        _checks.inexact("y", y)
        if y.ndim != 1 or y.is_complex() or y.device.type != "cpu":
            raise ValueError(f"y must be a real vector on the CPU, got {y.dtype} of shape {tuple(y.shape)}")
        if weights is not None:
            _checks.nonnegative("weights", weights)
            if weights.shape != y.shape or not bool((weights > 0).any()):
                raise ValueError(f"weights must have the shape {tuple(y.shape)} of y and a positive entry, got shape "
                                 f"{tuple(weights.shape)}")
        self.design: Design = design(A, weights, intercept)
        if self.design.rows != y.numel():
            raise ValueError(f"y must have an entry for each of the {self.design.rows} rows of A, got {y.numel()}")
        y = y.detach().double()
        s = torch.ones_like(y) if weights is None else weights.detach().double()
        self.mean = float(y @ s / s.sum()) if intercept and y.numel() else 0.0
        self.y = (y - self.mean) * s.sqrt()
        self.correlation = self.design.correlate(self.y)
        self.curvature = self.design.squared_norms()
        if not bool(torch.isfinite(self.curvature).all()):
            raise ValueError("A must be finite, found NaN or infinite entries, or columns too large to square")
        self.set = _WorkingSet(self.design)

    def moves(self, prior: Prior, factor: float) -> bool:
        """Whether a coordinate of x = 0 moves under the prior times the factor."""
        return bool((self._step(Scaled(prior, factor), torch.zeros_like(self.curvature), self.correlation) != 0).any())

    def _step(self, prior: Prior, x: Tensor, correlation: Tensor) -> Tensor:
        """What one exact step in each coordinate by itself leads to."""
        some = self.curvature > 0
        lengths = torch.where(some, self.curvature, 1.0)
        return torch.where(some, prior._prox(x + correlation / lengths, 1 / lengths), x)

    def solve(self, prior: Prior, x0: Tensor | None, max_iter: int, tol: float, callback: Callback | None) -> Solution:
        """See `coordinate_descent`."""
        _checks.count("max_iter", max_iter, low=1)
        _checks.positive("tol", tol)
        p = self.design.columns
        prior._check(torch.zeros(p, dtype=torch.float64))
        penalty = separable(prior, p)
        x = torch.zeros(p, dtype=torch.float64) if x0 is None else _start(x0, p)
        x = self._step(prior, x, torch.zeros_like(x)) if x0 is not None and penalty.kind != Penalty.elastic else x
        trace: dict[str, list[float]] = {"certificate": [], "objective": [], "working_set": []}
        scale = max(float(self.correlation.abs().max()) if p else 0.0, torch.finfo(torch.float64).tiny)
        share, converged = _INNER, False
        self.set.add(x.nonzero()[:, 0])
        for iteration in range(max_iter):
            support = x.nonzero()[:, 0]
            r = self.y - self.design.image(support, x[support])
            correlation = self.design.correlate(r)
            violation = self.curvature * (x - self._step(prior, x, correlation)).abs()
            worst = float(violation.max()) if p else 0.0
            objective = 0.5 * float(r @ r) + float(prior._value(x).sum())
            gap = self._gap(penalty, x, r, correlation)
            certificate = worst / scale if gap is None else gap / max(0.5 * float(self.y @ self.y), 1e-300)
            for name, value in zip(trace, (certificate, objective, float(self.set.size)), strict=True):
                trace[name].append(value)
            converged = certificate <= tol
            stop = callback is not None and callback(State(iteration + 1, x, {n: v[-1] for n, v in trace.items()}))
            if converged or stop:
                break
            grown = self.set.grow(violation, max(_FIRST, math.isqrt(p), support.numel()))
            share = _INNER if grown else max(share * _INNER, _LEAST)
            x = self.set.descend(penalty, x, correlation, max(share * worst, _ROUNDING * scale))
        intercept = self.mean - float(self.design.means @ x)
        return Solution(x, trace, len(trace["certificate"]), converged, trace["certificate"][-1],
                        {"intercept": torch.tensor(intercept, dtype=torch.float64)})

    def _gap(self, penalty: Separable, x: Tensor, r: Tensor, correlation: Tensor) -> float | None:
        """The duality gap at the dual point r, shrunk until it is feasible; None where no such bound is to be had."""
        w, ridge = penalty.factor * penalty.weight, penalty.factor * penalty.second
        if not penalty.quadratic or bool(((w == 0) & (ridge == 0) & (self.curvature > 0)).any()):
            return None
        reach = correlation if penalty.kind == Penalty.positive else correlation.abs()
        bound = torch.where((ridge == 0) & (reach > w), w / reach, 1.0)
        shrink = float(bound.min()) if bound.numel() else 1.0
        excess = torch.relu(shrink * reach - w).square()
        conjugate = torch.where(ridge > 0, excess / (2 * torch.where(ridge > 0, ridge, 1.0)), 0.0).sum()
        primal = 0.5 * (r @ r) + (w * x.abs() + 0.5 * ridge * x.square()).sum()
        return float(primal + conjugate - shrink * (r @ self.y) + 0.5 * shrink ** 2 * (r @ r))


class _WorkingSet:
    """Columns that are descended on, with their Gram matrix in a square that has room to grow."""

    def __init__(self, design: Design) -> None:
        self._design = design
        self._index = torch.zeros(0, dtype=torch.long)
        self._inside = torch.zeros(design.columns, dtype=torch.bool)
        self._gram = torch.zeros(0, 0, dtype=torch.float64)

    @property
    def size(self) -> int:
        """How many columns."""
        return self._index.numel()

    def grow(self, violation: Tensor, most: int) -> bool:
        """Take in the columns outside that violate optimality most; whether there was any."""
        outside = torch.where(self._inside, 0.0, violation)
        found = torch.topk(outside, min(most, outside.numel()))
        new = found.indices[found.values > 0]
        self.add(new)
        return new.numel() > 0

    def add(self, columns: Tensor) -> None:
        """Take these columns in; those inside stay where they are."""
        new = columns[~self._inside[columns]]
        if not new.numel():
            return
        k, size = self.size, self.size + new.numel()
        if size > self._gram.shape[0]:
            room = min(int(_ROOM * size) + _FIRST, self._design.columns)
            larger = torch.zeros(room, room, dtype=torch.float64)
            larger[:k, :k] = self._gram[:k, :k]
            self._gram = larger
        self._index = torch.cat([self._index, new])
        self._inside[new] = True
        block = self._design.gram(self._index, new)
        self._gram[:size, k:size] = block
        self._gram[k:size, :k] = block[:k].mT

    def descend(self, penalty: Separable, x: Tensor, correlation: Tensor, tol: float) -> Tensor:
        """Minimise over these columns until no coordinate violates optimality by more than ``tol``."""
        k, inner = self.size, penalty.of(self._index)
        u, q = x[self._index], correlation[self._index]
        linear = q + self._gram[:k, :k] @ u
        for _ in range(_CALLS):
            u, q, last = gram_descent(self._gram, linear, u, q, inner.kind, inner.weight, inner.second, inner.factor,
                                      tol, _EPOCHS, True)
            if float(last[1]) <= tol:
                break
            if inner.quadratic:
                u = _newton(self._gram[:k, :k], linear, u, inner)
                q = linear - self._gram[:k, :k] @ u
        return x.index_copy(0, self._index, u)


def _newton(gram: Tensor, linear: Tensor, u: Tensor, penalty: Separable) -> Tensor:
    """Newton's method on the support: towards the minimiser for the present signs, zero where a sign would change.

    A step is halved while it does not lower the objective; at the length at which the first sign changes it must.
    """
    best: float | None = None
    for _ in range(_STEPS):
        support = u.nonzero()[:, 0]
        if not 0 < support.numel() <= _NEWTON:
            break
        at, sign, part = u[support], torch.sgn(u[support]), penalty.of(support)
        hessian, slope = gram[support[:, None], support], linear[support]

        def objective(v: Tensor, hessian: Tensor = hessian, slope: Tensor = slope, part: Separable = part) -> float:
            smooth = 0.5 * (v @ (hessian @ v)) - slope @ v
            return float(smooth + part.factor * (part.weight * v.abs() + 0.5 * part.second * v.square()).sum())

        gradient = hessian @ at - slope + part.factor * (part.weight * sign + part.second * at)
        system = hessian + torch.diag(part.factor * part.second)
        factor, failed = torch.linalg.cholesky_ex(system)
        if int(failed):  # more columns than their rank: any long step along the null space ends at a sign
            factor, failed = torch.linalg.cholesky_ex(system + torch.diag(_DAMPING * system.diagonal()))
            if int(failed):
                break
        to = at - torch.cholesky_solve(gradient[:, None], factor)[:, 0]
        crosses = torch.sgn(to) != sign
        reach = float(torch.where(crosses, at / (at - to), 1.0).min())
        best, length = objective(at) if best is None else best, 1.0
        while True:
            trial = at + length * (to - at)
            trial = torch.where(torch.sgn(trial) == sign, trial, 0.0)
            value = objective(trial)
            if value < best or length == reach:
                break
            length = max(0.5 * length, reach)
        if not value < best:
            break
        u, best = u.index_copy(0, support, trial), value
        if not bool(crosses.any()):
            break
    return u


def _start(x0: Tensor, columns: int) -> Tensor:
    _checks.inexact("x0", x0)
    if x0.shape != (columns,) or x0.is_complex():
        raise ValueError(f"x0 must be a real vector of {columns} entries, got {x0.dtype} of shape {tuple(x0.shape)}")
    return x0.detach().double().clone()
