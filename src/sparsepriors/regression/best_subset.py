"""Best subsets: the least squares with k columns, by forward steps, splicing and exact exchanges, for k after k.

No algorithm of polynomial time finds the best subset of every design; this one ends at a subset that no exchange of one
column improves, often at the best, and never leaves more than orthogonal matching pursuit does.

Sources: Zhu, Wen, Zhu, Zhang, Wang (2020), A polynomial algorithm for best-subset selection problem, PNAS 117
(splicing, the information criterion); Hazimeh, Mazumder (2020), Fast best subset selection, Operations Research 68
(local exchanges); Miller (2002), Subset selection in regression (forward steps); Chen, Chen (2008), Extended Bayesian
information criteria for model selection with large model spaces, Biometrika 95.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.regression._unit_design import unit_design
from sparsepriors.solvers.solution import Solution

_DEPENDENT = 1e-10   # square of the part of a unit column outside the span of others, at which it counts as inside
_GAIN = 1e-10        # of the residual sum of squares, the least for which columns are exchanged
_ROUNDING = 1e-20    # of the response's square, below which nothing is left of it
_SPLICED = 3         # columns that splicing exchanges at most in one go


@torch.no_grad()
def best_subset(A: object, y: Float[Tensor, " n"], k: int, *, weights: Float[Tensor, " n"] | None = None,
                intercept: bool = False, max_iter: int = 100) -> Solution:
    """Least ``sum_i weight_i (A x + b - y)_i^2`` with at most k nonzero entries in x, to a local optimum.

    Parameters
    ----------
    A
        ``(n, p)``: a `Matrix` operator, a float tensor on the CPU or a SciPy sparse matrix. The scale of a column does
        not matter.
    y
        ``(n,)``.
    k
        Most columns; no more than are independent are taken.
    weights, intercept
        As in `coordinate_descent`.
    max_iter
        Most exchanges for each number of columns.

    Returns
    -------
    Solution
        float64, with the certificate: the share of the residual sum of squares that the best exchange of a column
        would take away, converged when no more than 1e-10. Trace: ``certificate`` and ``residual`` (sum of squares)
        for 0, 1, 2, ... columns. Extras: ``intercept``, ``residual`` and the information criteria ``gic``,
        ``n log(residual / n) + |x|_0 log(p) log(log n)``, and ``ebic``, ``n log(residual / n) + |x|_0 log(n) +
        2 log(p choose |x|_0)``, n being the sum of the weights.

    Raises
    ------
    TypeError, ValueError
        If the arguments do not fit one another or hold NaN, or a parameter is out of range.
    """
    *_, last = best_subset_path(A, y, range(k + 1) if isinstance(k, int) and k >= 0 else (k,), weights=weights,
                                intercept=intercept, max_iter=max_iter)
    return last


@torch.no_grad()
def best_subset_path(A: object, y: Float[Tensor, " n"], sizes: Sequence[int], *,
                     weights: Float[Tensor, " n"] | None = None, intercept: bool = False,
                     max_iter: int = 100) -> Iterator[Solution]:
    """`best_subset` for several numbers of columns, each from the one before it.

    Parameters
    ----------
    sizes
        Rising. Sizes between them are visited on the way.

    Yields
    ------
    Solution
        One for each size. The other parameters and errors are those of `best_subset`.
    """
    _checks.instance("sizes", sizes, (tuple, list, range))
    problem = _Problem(A, y, weights, intercept)
    for i, size in enumerate(sizes):
        _checks.count(f"sizes[{i}]", size, low=0)
        if i and size <= sizes[i - 1]:
            raise ValueError(f"sizes must rise, got {size} after {sizes[i - 1]}")
    _checks.count("max_iter", max_iter, low=1)
    subset = pursuit = _Subset(problem, [])
    trace: dict[str, list[float]] = {"certificate": [0.0], "residual": [subset.residual]}
    for size in sizes:
        while len(subset.columns) < size:
            column, pursued = subset.addition(forward=True), pursuit.addition(forward=False)
            if column is None:
                break
            both = pursuit is subset and pursued == column
            subset = _improved(grown := subset.added(column), max_iter)
            if pursued is not None:
                pursuit = grown if both else pursuit.added(pursued)
            if pursued is not None and not both:
                subset = min(subset, _improved(pursuit, max_iter), key=lambda s: s.residual)
            trace["certificate"].append(subset.best_exchange()[0])
            trace["residual"].append(subset.residual)
        yield problem.solution(subset, {name: list(values) for name, values in trace.items()})


class _Problem:
    """The design by its columns scaled to norm 1, the response, and what they have to do with one another."""

    def __init__(self, A: object, y: Tensor, weights: Tensor | None, intercept: bool) -> None:
        _checks.inexact("y", y)
        if y.ndim != 1 or y.is_complex() or y.device.type != "cpu" or not y.numel():
            raise ValueError(f"y must be a real vector on the CPU with an entry, got {y.dtype} of shape "
                             f"{tuple(y.shape)}")
        if weights is not None:
            _checks.nonnegative("weights", weights)
            if weights.shape != y.shape or not bool((weights > 0).any()):
                raise ValueError(f"weights must have the shape {tuple(y.shape)} of y and a positive entry, got shape "
                                 f"{tuple(weights.shape)}")
        self._design = unit_design(A, weights, intercept)
        if self._design.rows != y.numel():
            raise ValueError(f"y must have an entry for each of the {self._design.rows} rows of A, got {y.numel()}")
        s = torch.ones(y.numel(), dtype=torch.float64) if weights is None else weights.detach().double()
        self._rows = float(s.sum())
        y = y.detach().double()
        self.mean = float(y @ s / s.sum()) if intercept else 0.0
        self.y = (y - self.mean) * s.sqrt()
        self.square = float(self.y @ self.y)
        self.scale = self._design.scale
        self.correlation = self.correlate(self.y)

    @property
    def columns(self) -> int:
        """How many there are."""
        return self._design.columns

    def correlate(self, r: Tensor) -> Tensor:
        """With every column."""
        return self._design._adjoint(r)

    def image(self, columns: Tensor, x: Tensor) -> Tensor:
        """Of coefficients on some columns."""
        return self._design.image(columns, x)

    def gram(self, columns: Sequence[int]) -> Tensor:
        """Products of some columns with every column."""
        return self._design.products(torch.tensor(columns, dtype=torch.long))

    def square_gram(self, columns: Tensor) -> Tensor:
        """Products of some columns with one another."""
        scale = self.scale[columns]
        return scale[:, None] * self._design.inner.gram(columns, columns) * scale

    def solution(self, subset: _Subset, trace: dict[str, list[float]]) -> Solution:
        """What the columns of a subset give."""
        x = torch.zeros(self.columns, dtype=torch.float64)
        x[subset.index] = subset.x * self.scale[subset.index]
        n, p, k = self._rows, self.columns, len(subset.columns)
        fit, log_n = n * math.log(max(subset.residual, torch.finfo(torch.float64).tiny) / n), math.log(max(n, 1.0))
        choices = math.lgamma(p + 1) - math.lgamma(k + 1) - math.lgamma(p - k + 1)
        extras = {"intercept": self.mean - float(self._design.means @ x), "residual": subset.residual,
                  "gic": fit + k * math.log(max(p, 2)) * math.log(max(log_n, 1.0)),
                  "ebic": fit + k * log_n + 2 * choices}
        certificate = trace["certificate"][-1]
        return Solution(x, trace, len(trace["certificate"]), certificate <= _GAIN, certificate,
                        {name: torch.tensor(value, dtype=torch.float64) for name, value in extras.items()})


class _Subset:
    """Some independent columns, fitted; and for all columns, what they correlate with and what is new in them."""

    def __init__(self, problem: _Problem, columns: list[int], cross: Tensor | None = None) -> None:
        self.problem = problem
        self.columns = columns
        self.index = index = torch.tensor(columns, dtype=torch.long)
        self.cross = problem.gram(columns) if cross is None else cross
        gram = self.cross[:, index]
        self.inverse = torch.linalg.inv_ex(gram).inverse if columns else gram
        self.x = self.inverse @ problem.correlation[index]
        r = problem.y - problem.image(index, self.x)
        self.residual = float(r @ r)
        self.correlation = problem.correlate(r)
        self.correlation[index] = 0.0
        self.along = self.inverse @ self.cross
        new = 1 - (self.cross * self.along).sum(dim=0)
        self.new = torch.where((new > _DEPENDENT) & (problem.scale > 0), new, 0.0)
        self.new[index] = 0.0
        self._exchange: tuple[float, int, int] | None = None

    @property
    def independent(self) -> bool:
        """Whether every column keeps a part of its own beside the others."""
        own = self.inverse.diagonal()
        return bool((torch.isfinite(own) & (own > 0) & (own < 1 / _DEPENDENT)).all()) and math.isfinite(self.residual)

    @property
    def exact(self) -> bool:
        """Whether nothing but rounding is left of the response."""
        return self.residual <= _ROUNDING * self.problem.square

    def replaced(self, out: Sequence[int], into: Sequence[int]) -> _Subset:
        """The subset with the columns at these places replaced by others."""
        columns, cross = list(self.columns), self.cross.clone()
        for at, column, row in zip(out, into, self.problem.gram(into), strict=True):
            columns[at], cross[at] = column, row
        return _Subset(self.problem, columns, cross)

    def addition(self, *, forward: bool) -> int | None:
        """The column to add, None where no column is independent or nothing is left to explain.

        With ``forward`` the one that takes most off the residual, else the one that correlates with it most, which is
        the choice of orthogonal matching pursuit.
        """
        gain = self.correlation.square() / (torch.where(self.new > 0, self.new, 1.0) if forward else 1.0)
        gain = torch.where(self.new > 0, gain, 0.0)
        return int(gain.argmax()) if gain.numel() and not self.exact and bool((gain > 0).any()) else None

    def added(self, column: int) -> _Subset:
        """The subset with one column more."""
        return _Subset(self.problem, [*self.columns, column], torch.cat([self.cross, self.problem.gram([column])]))

    def best_exchange(self) -> tuple[float, int, int]:
        """The share of the residual that the best exchange of one column takes away, its place, and what comes in.

        Without the column at place j the fit has another residual and the other columns have more that is new in them:
        both change along one direction of the span, and the products of all columns with it are a row of ``along``
        over the root of M_jj, M the inverse Gram matrix.
        """
        if self._exchange is None:
            self._exchange = self._best_exchange()
        return self._exchange

    def _best_exchange(self) -> tuple[float, int, int]:
        if not self.columns or self.exact or not bool((self.new > 0).any()):
            return 0.0, 0, 0
        own = self.inverse.diagonal()[:, None]
        lost = self.x.square()[:, None] / own
        new = self.new + self.along.square() / own
        gained = (self.correlation + self.along * self.x[:, None] / own).square() / new
        gain = torch.where(self.new > 0, gained - lost, -torch.inf)
        place, column = divmod(int(gain.argmax()), gain.shape[1])
        return max(float(gain[place, column]) / self.residual, 0.0), place, column

    def spliced(self) -> _Subset | None:
        """A better subset by exchanging several of the least useful columns for the most promising ones, if any.

        A column inside is worth the square of its coefficient, one outside that of its correlation with the residual
        (the sacrifices of Zhu et al., for columns of norm 1).
        """
        most = min(_SPLICED, len(self.columns), int((self.new > 0).sum()))
        if most < 2:
            return None
        out = torch.topk(self.x.square(), most, largest=False).indices
        into = torch.topk(torch.where(self.new > 0, self.correlation.square(), -1.0), most).indices
        among = self.problem.square_gram(into)
        for count in range(2, most + 1):
            if self._residual_of(out[:count], into[:count], among[:count, :count]) < (1 - _GAIN) * self.residual:
                trial = self.replaced(out[:count].tolist(), into[:count].tolist())
                if trial.independent and trial.residual < (1 - _GAIN) * self.residual:
                    return trial
        return None

    def _residual_of(self, out: Tensor, into: Tensor, among: Tensor) -> float:
        """Of the subset with these places taken by others, whose Gram matrix is ``among``; infinite if dependent."""
        index = self.index.index_copy(0, out, into)
        gram = self.cross[:, index]
        gram[out] = self.cross[:, into].mT
        gram[out[:, None], out] = among
        factor, failed = torch.linalg.cholesky_ex(gram)
        if int(failed):
            return math.inf
        c = self.problem.correlation[index]
        half = torch.linalg.solve_triangular(factor, c[:, None], upper=False)
        return self.problem.square - float(half.square().sum())


def _improved(subset: _Subset, max_iter: int) -> _Subset:
    """Exchange columns while that lowers the residual."""
    for _ in range(max_iter):
        share, place, column = subset.best_exchange()
        better = subset.replaced([place], [column]) if share > _GAIN else subset.spliced()
        if better is None or not better.independent or not better.residual < subset.residual:
            break
        subset = better
    return subset
