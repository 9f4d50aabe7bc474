"""Penalised least squares on one design: what a path of solutions shares, and the rounds that find one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels import Penalty
from sparsepriors.priors import Prior, Scaled
from sparsepriors.regression._design import Design, design, support_of
from sparsepriors.regression._working_set import Judgement, WorkingSet
from sparsepriors.regression.forms import Form, form_of
from sparsepriors.solvers.solution import Callback, Solution, State

_FIRST = 10          # columns or groups that a working set takes in at least
_INNER = 0.1         # the working set is solved to this share of the violation outside of it
_LEAST = 1e-3        # the least such share: beyond it only a new product with A^T can help
_ROUNDING = 1e-15    # of the largest correlation: no violation is asked to be smaller


class Problem:
    """One design and one response; the working set outlives the solutions of a path. The units are the columns."""

    def __init__(self, A: object, y: Tensor, weights: Tensor | None, intercept: bool) -> None:
        self._load(A, y, weights, intercept)
        self.units = self.design.columns
        self.curvature = self.design.squared_norms()
        self._must_be_finite()
        self.set = WorkingSet(self.design)
        self.scale = float(self.correlation.abs().max()) if self.units else 0.0

    def _load(self, A: object, y: Tensor, weights: Tensor | None, intercept: bool) -> None:
        self.design: Design = design(A, weights, intercept)
        if self.design.rows != len(y):
            raise ValueError(f"y must have an entry for each of the {self.design.rows} rows of A, got {len(y)}")
        self.shape = (self.design.columns, *y.shape[1:])
        y = y.detach().double()
        s = torch.ones(len(y), dtype=torch.float64) if weights is None else weights.detach().double()
        self.mean = s @ y / s.sum() if intercept and y.numel() else y.new_zeros(y.shape[1:])
        y = y - self.mean if intercept else y
        self.y = y if weights is None else (y.mT * s.sqrt()).mT if y.ndim == 2 else y * s.sqrt()
        self.correlation = self.design.correlate(self.y)

    def _must_be_finite(self) -> None:
        if not _checks.all_finite(self.curvature):
            raise ValueError("A must be finite, found NaN or infinite entries, or columns too large to square")

    def form(self, prior: Prior) -> Form:
        """The prior as the rounds take it."""
        return form_of(prior, self.design.columns)

    def step(self, prior: Prior, x: Tensor, correlation: Tensor) -> Tensor:
        """What one exact step in each unit by itself leads to."""
        some = self.curvature > 0
        lengths = torch.where(some, self.curvature, 1.0)
        return torch.where(some, prior._prox(x + correlation / lengths, 1 / lengths), x)

    def residual(self, x: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
        """R = Y - X x, and X^T R for the columns to keep."""
        support = support_of(x)
        if not support.numel():
            return self.y, self.correlation
        r = self.y - self.design.image(support, x[support])
        return r, self.design.correlate(r, keep)

    def products(self, r: Tensor) -> tuple[float, float]:
        """r.r and r.y."""
        return float(r.flatten() @ r.flatten()), float(r.flatten() @ self.y.flatten())

    def judge(self, penalty: Form, x: Tensor, keep: Tensor | None) -> Judgement:
        """How far x is from optimal, from the columns to keep."""
        r, correlation = self.residual(x, keep)
        violation, active, numbers = penalty.optimality(x, correlation, self.curvature, *self.products(r))
        return self.judged(r, correlation, violation, active, numbers[1], numbers[2], keep)

    def judged(self, r: Tensor, correlation: Tensor, violation: Tensor, active: Tensor, value: float, gap: float,
               keep: Tensor | None) -> Judgement:
        """A judgement from its parts; the gap is infinite where none is known."""
        worst = float(violation.max()) if violation.numel() else 0.0
        certificate = (worst / max(self.scale, 1e-300) if math.isinf(gap)
                       else gap / max(0.5 * float(self.y.flatten() @ self.y.flatten()), 1e-300))
        return Judgement(certificate, 0.5 * self.products(r)[0] + value, r, correlation, violation,
                         active if keep is None else active & keep, gap)

    def moves(self, prior: Prior, factor: float) -> bool:
        """Whether x = 0 moves under the prior times the factor."""
        zero = torch.zeros(self.shape, dtype=torch.float64)
        return bool(self.step(Scaled(prior, factor), zero, self.correlation).any())

    def solve(self, prior: Prior, x0: Tensor | None, max_iter: int, tol: float, callback: Callback | None) -> Solution:
        """See `coordinate_descent`."""
        _checks.count("max_iter", max_iter, low=1)
        tol = _checks.positive_number("tol", tol)
        prior._check(torch.zeros(self.shape, dtype=torch.float64))
        penalty = self.form(prior)
        x = self.start(x0)
        x = self.step(prior, x, torch.zeros_like(x)) if x0 is not None and penalty.kind != Penalty.elastic else x
        trace: dict[str, list[float]] = {"certificate": [], "objective": [], "working_set": []}
        share, converged, keep = _INNER, False, None
        gap = math.inf
        for iteration in range(max_iter):
            support = self.set.start(x)
            found = self.judge(penalty, x, keep)
            if keep is not None and found.certificate <= tol:  # once more, with the columns that were left out
                keep, found = None, self.judge(penalty, x, None)
            for name, value in zip(trace, (found.certificate, found.objective, float(self.set.size)), strict=True):
                trace[name].append(value)
            converged, gap = found.certificate <= tol, found.gap
            stop = callback is not None and callback(State(iteration + 1, x, {n: v[-1] for n, v in trace.items()}))
            if converged or stop:
                break
            worst = float(found.violation.max())
            grown = self.set.grow(found.violation, max(_FIRST, math.isqrt(self.units), support))
            # Where nothing was taken in the next round may be the last, and that one looks at all columns.
            needed = found.active | self.set.inside
            keep = needed if grown and 2 * int(needed.count_nonzero()) < self.units else None
            share = _INNER if grown else max(share * _INNER, _LEAST)
            x = self.set.descend(penalty, x, found, max(share * worst, _ROUNDING * self.scale))
        return Solution(x, trace, len(trace["certificate"]), converged, trace["certificate"][-1],
                        {"intercept": self.ended(x), "gap": torch.tensor(gap, dtype=torch.float64)})

    def start(self, x0: Tensor | None) -> Tensor:
        """What was given to start from, checked; else zeros."""
        if x0 is None:
            return torch.zeros(self.shape, dtype=torch.float64)
        _checks.inexact("x0", x0)
        if x0.shape != self.shape or x0.is_complex():
            raise ValueError(f"x0 must be a real tensor of shape {self.shape}, got {x0.dtype} of shape "
                             f"{tuple(x0.shape)}")
        return x0.detach().double().clone()

    def ended(self, x: Tensor) -> Tensor:
        """The intercept that belongs to x."""
        return self.mean - self.design.means @ x

