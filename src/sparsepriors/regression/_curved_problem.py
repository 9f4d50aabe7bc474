"""Losses that are not quadratic: Newton's quadratic on a working set, solved by coordinate descent, again and again."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparsepriors.regression._losses import Loss
from sparsepriors.regression._problem import Problem
from sparsepriors.regression._working_set import Columns, Judgement
from sparsepriors.regression.forms import Form

_MODELS = 20         # quadratics in one round
_SHIFTS = 100        # steps of the intercept, for one point
_EXACT = 1e-14       # of its slope, relative to what its terms sum to
_ROUNDING = 1e-13    # of an objective: what may look like a rise


class CurvedProblem(Problem):
    """``sum_i weight_i loss((A x + b column - y)_i) + prior(x)``, the column being ones, or absent.

    A model is the loss to second order, with the intercept at its optimum for every x. Where its minimiser does not
    lower the objective, the next one takes the loss's upper bound in place of its curvature, and must.
    """

    def __init__(self, A: object, y: Tensor, weights: Tensor | None, column: Tensor | None, loss: Loss) -> None:
        self._load(A, y, None, False)
        self.loss, self.column = loss, column
        self.weights = torch.ones_like(self.y) if weights is None else weights.detach().double()
        self.units = self.design.columns
        self.curvature = loss.lipschitz * self.design.weighted_norms(self.weights)
        self._must_be_finite()
        self.set = _ModelColumns(self)
        self.intercept = 0.0
        margins = self._centred(torch.zeros_like(self.y))
        self.correlation = self.design.correlate(-self.weights * loss.slope(margins))
        self.scale = float(self.correlation.abs().max()) if self.units else 0.0
        self.worth = float(self.weights @ loss.value(margins))

    def _centred(self, image: Tensor) -> Tensor:
        """Residuals ``image + b column - y`` with the best intercept b, which is kept."""
        if self.column is None:
            return image - self.y
        loss, c, rest = self.loss, self.column, image - self.y
        v = rest + self.intercept * c
        value = float(self.weights @ loss.value(v))
        bend = loss.curvature
        for _ in range(_SHIFTS):
            slopes = self.weights * loss.slope(v) * c
            slope, size = float(slopes.sum()), float(slopes.abs().sum())
            if abs(slope) <= _EXACT * size:
                break
            to = self.intercept - slope / float(self.weights @ (bend(v) * c.square()))
            trial = rest + to * c
            lower = float(self.weights @ loss.value(trial))
            if lower <= value + _ROUNDING * abs(value):
                self.intercept, v, value, bend = to, trial, lower, loss.curvature
            elif bend is loss.bound:
                break
            else:
                bend = loss.bound
        return v

    def _residual(self, x: Tensor) -> Tensor:
        support = x.nonzero()[:, 0]
        return self._centred(self.design.image(support, x[support]))

    def judge(self, penalty: Form, x: Tensor, keep: Tensor | None) -> Judgement:
        v = self._residual(x)
        slope = self.loss.slope(v)
        correlation = self.design.correlate(-self.weights * slope)
        violation, active, (worst, value, bounded) = penalty.optimality(x, correlation, self.curvature, 0.0, 0.0)
        objective = float(self.weights @ self.loss.value(v)) + value
        if math.isinf(bounded):
            return Judgement(worst / max(self.scale, 1e-300), objective, v, correlation, violation, active, math.inf)
        # The dual point is the slope, shrunk until it is feasible: a slope that the loss has stays one.
        shrink = penalty.shrink(correlation)
        slope = shrink * slope
        dual = float(self.weights @ (self.loss.conjugate(slope) + slope * self.y))
        gap = objective + dual + penalty.conjugate(shrink * correlation)
        return Judgement(gap / max(self.worth, 1e-300), objective, v, correlation, violation, torch.ones_like(active),
                         gap)

    def ended(self, x: Tensor) -> Tensor:
        self._residual(x)
        return self.y.new_tensor(self.intercept)


class _ModelColumns(Columns):
    """The columns that models are made of."""

    def __init__(self, problem: CurvedProblem) -> None:
        super().__init__(problem.design.columns)
        self._problem = problem

    def descend(self, penalty: Form, x: Tensor, found: Judgement, tol: float) -> Tensor:
        """Minimise over these columns until no coordinate violates optimality by more than ``tol``."""
        problem, loss, design = self._problem, self._problem.loss, self._problem.design
        index, inner = self.index, penalty.of(self.index)
        u = x[index]
        v = problem._centred(design.image(index, u))
        value = float(problem.weights @ loss.value(v)) + inner.value(u)
        bend = loss.curvature
        for _ in range(_MODELS):
            q = design.project(index, -problem.weights * loss.slope(v))
            if inner.violation(u, q, problem.curvature[index]) <= tol:
                break
            weights = problem.weights * bend(v)
            gram = design.weighted_gram(index, weights)
            before, b, means = u, problem.intercept, None
            if problem.column is not None:
                stiff = float(weights @ problem.column.square())
                means = design.project(index, weights * problem.column) / stiff
                gram = gram - stiff * torch.outer(means, means)
            u = inner.minimise(gram, q + gram @ u, u, q, 0.1 * tol)
            if means is not None:
                problem.intercept -= float(means @ (u - before))
            w = problem._centred(design.image(index, u))
            lower = float(problem.weights @ loss.value(w)) + inner.value(u)
            if lower <= value + _ROUNDING * abs(value):
                v, value, bend = w, lower, loss.curvature
                continue
            u, problem.intercept = before, b
            if bend is loss.bound:
                break
            bend = loss.bound
        return x.index_copy(0, index, u)
