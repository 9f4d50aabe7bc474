"""Coordinate descent with working sets: regression with a separable or a group prior, to a stated certificate.

A working set of columns or groups grows by those that violate optimality most; on it the compiled kernels run cyclic
descent on the Gram matrix with Anderson extrapolation, and where the penalty is quadratic between its kinks Newton
steps on the support end the descent (a Cholesky factorisation of the support's Gram matrix). Columns outside are
touched once per round, by X^T r, and no more when the duality gap proves that they are zero. A loss that is not
quadratic is fitted by a sequence of quadratic models on the working set. Sources: Friedman, Hastie, Tibshirani (2010),
Regularization paths for generalized linear models via coordinate descent (covariance updates); Massias, Gramfort,
Salmon (2018), Celer (working sets by dual distance); Bertrand, Massias (2021), Anderson acceleration of coordinate
descent; Bertrand et al. (2022), Beyond L1 (working sets for nonconvex penalties, scored by the violation of the
fixed-point equation); Ndiaye, Fercoq, Gramfort, Salmon (2017), Gap safe screening rules; Lee, Sun, Saunders (2014),
Proximal Newton-type methods.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels.dispatch import serial_torch
from sparsepriors.operators.dense import Matrix
from sparsepriors.priors.base import Prior
from sparsepriors.priors.combinators import Scaled
from sparsepriors.priors.penalties import Logistic
from sparsepriors.regression._curved_problem import CurvedProblem
from sparsepriors.regression._group_problem import GroupProblem, group_form, grouped
from sparsepriors.regression._losses import loss_of
from sparsepriors.regression._problem import Problem
from sparsepriors.regression.forms import form_of
from sparsepriors.solvers.solution import Callback, Solution


@torch.no_grad()
@serial_torch()
def coordinate_descent(A: object, y: Float[Tensor, " n *tasks"], prior: Prior, *,
                       weights: Float[Tensor, " n"] | None = None, intercept: bool = False, loss: Prior | None = None,
                       x0: Float[Tensor, " p *tasks"] | None = None, max_iter: int = 100, tol: float = 1e-6,
                       callback: Callback | None = None) -> Solution:
    r"""Minimise ``sum_i weight_i loss((A x + b - y)_i) + prior(x)`` over x, and over b where it is asked for.

    Parameters
    ----------
    A
        ``(n, p)``: a `Matrix` operator, a float tensor on the CPU (its columns are best contiguous, as in Fortran
        order: else they are copied once) or a SciPy sparse matrix.
    y
        ``(n,)``, float32 or float64; or ``(n, tasks)``, and x is ``(p, tasks)``.
    prior
        Separable: `L1`, `ElasticNet`, `SquaredL2`, `Zero`, `NonNegative`, `Box`, `MCP`, `SCAD`, `L0`, `CEL0`, `Lq`,
        `LogSum`, perhaps times a number; weights may differ from coordinate to coordinate. Any other separable and
        convex prior, your own too, through its prox, without compiled epochs. Or one of those by name, of the norms of
        groups: ``Partition(prior, labels)`` for a vector, ``GroupL2(axis=-1)`` and ``Groups(prior, axis=-1)``, whose
        groups are the rows, for a matrix.
    weights
        ``(n,)``, nonnegative, not all zero; ones by default.
    intercept
        Whether b is a free number, or one for each task; else it is 0.
    loss
        Of one residual: `Huber`, `Logistic` or `SquaredL2`, perhaps times a number; by default squares, halved. For
        `Logistic` the rows of A are to be multiplied by labels of 1 and -1, and y is zero. Groups take the default.
    x0
        Of the shape of x, the start; zeros by default. It matters for the prior that is not convex.
    max_iter, tol
        Most rounds, of one product with A^T each. Certificate: for `L1` and `ElasticNet` with positive weights, alone
        or of norms, the duality gap over the least loss of x = 0; for every other prior the largest violation
        ``L_j |x_j - prox(x_j + A_j^T r / L_j)|`` of the fixed-point equation over that of x = 0 without a prior. r is
        minus the gradient of the loss, L_j a bound of its curvature along column or group j: ||A_j||^2 for squares.
        With an intercept y and A are centred for them.

    Returns
    -------
    Solution
        float64. Trace: ``certificate``, ``objective`` and ``working_set`` (its size). Extras: ``intercept`` and
        ``gap``, the duality gap, infinite where none is known.

    Raises
    ------
    TypeError, ValueError
        If the prior has no such form, the arguments do not fit one another or hold NaN, or a parameter is out of range.
    """
    return problem_of(A, y, prior, weights, intercept, loss).solve(prior, x0, max_iter, tol, callback)


@torch.no_grad()
@serial_torch()
def logistic_regression(A: object, labels: Float[Tensor, " n"], prior: Prior, *,
                        weights: Float[Tensor, " n"] | None = None, intercept: bool = False,
                        x0: Float[Tensor, " p"] | None = None, max_iter: int = 100, tol: float = 1e-6) -> Solution:
    r"""Minimise ``sum_i weight_i log(1 + exp(-label_i (A x + b)_i)) + prior(x)``.

    Parameters
    ----------
    A
        As for `coordinate_descent`.
    labels
        ``(n,)``, each 1 or -1.
    prior
        As for `coordinate_descent`, not of groups.

    Returns
    -------
    Solution
        As from `coordinate_descent`, whose other parameters these are.

    Raises
    ------
    TypeError, ValueError
        As `coordinate_descent`, and if the labels are others, or all alike with an intercept: it would be infinite.
    """
    _checks.inexact("labels", labels)
    if labels.ndim != 1 or not bool((labels.abs() == 1).all()):
        raise ValueError(f"labels must be a vector of 1 and -1, got shape {tuple(labels.shape)}")
    if intercept and len(labels.unique()) < 2:
        raise ValueError("labels must hold both 1 and -1 where there is an intercept, got one of them only")
    signs = labels.detach().double()
    matrix: Any = A.matrix if isinstance(A, Matrix) else A
    if len(getattr(matrix, "shape", ())) == 2 and matrix.shape[0] != len(signs):
        raise ValueError(f"labels must have an entry for each row of A, got {len(signs)} for shape "
                         f"{tuple(matrix.shape)}")
    if isinstance(matrix, Tensor) and matrix.ndim == 2:
        matrix = matrix * signs.to(matrix.dtype)[:, None]
    elif not isinstance(matrix, Tensor):
        import scipy.sparse

        if scipy.sparse.issparse(matrix):
            matrix = scipy.sparse.csc_array(scipy.sparse.diags_array(signs.numpy()) @ matrix)
    problem = problem_of(matrix, torch.zeros_like(signs), prior, weights, signs if intercept else False, Logistic())
    return problem.solve(prior, x0, max_iter, tol, None)


@torch.no_grad()
def regularization_path(A: object, y: Float[Tensor, " n *tasks"], prior: Prior, factors: Sequence[float], *,
                        weights: Float[Tensor, " n"] | None = None, intercept: bool = False, loss: Prior | None = None,
                        max_iter: int = 100, tol: float = 1e-6) -> Iterator[Solution]:
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
    with serial_torch():
        problem = problem_of(A, y, prior, weights, intercept, loss)
    x0 = None
    for factor in factors:
        with serial_torch():
            found = problem.solve(Scaled(prior, factor), x0, max_iter, tol, None)
        yield found
        x0 = found.x


@torch.no_grad()
@serial_torch()
def largest_factor(A: object, y: Float[Tensor, " n *tasks"], prior: Prior, *,
                   weights: Float[Tensor, " n"] | None = None, intercept: bool = False,
                   loss: Prior | None = None) -> float:
    """The least factor, to 12 digits, from which on x = 0 satisfies the fixed-point equation of ``factor * prior``.

    Raises
    ------
    ValueError
        If there is none: the prior does not hold every coordinate at zero however large it is.
    """
    problem = problem_of(A, y, prior, weights, intercept, loss)
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


def by_columns(prior: Prior, shape: tuple[int, ...]) -> bool:
    """Whether `coordinate_descent` takes this prior of coefficients of this shape, ``(p,)`` or ``(p, tasks)``."""
    try:
        _ = group_form(prior, shape) if len(shape) == 2 or grouped(prior) else form_of(prior, shape[0])
    except TypeError:
        return False
    return True


def problem_of(A: object, y: Tensor, prior: Prior, weights: Tensor | None, intercept: bool | Tensor,
               loss: Prior | None) -> Problem:
    """The problem with columns or with groups as its units; an intercept's column may be another than ones."""
    _checks.inexact("y", y)
    if y.ndim not in (1, 2) or y.is_complex() or y.device.type != "cpu":
        raise ValueError(f"y must be a real vector or matrix on the CPU, got {y.dtype} of shape {tuple(y.shape)}")
    if not isinstance(prior, Prior):
        raise TypeError(f"prior must be a Prior, got {type(prior).__name__}")
    if weights is not None:
        _checks.nonnegative("weights", weights)
        if weights.shape != y.shape[:1] or not bool((weights > 0).any()):
            raise ValueError(f"weights must have the shape {tuple(y.shape[:1])} of y and a positive entry, got "
                             f"shape {tuple(weights.shape)}")
    groups = y.ndim == 2 or grouped(prior)
    if loss is not None:
        if groups:
            raise TypeError(f"groups are fitted by least squares: loss must be None for {prior}, got {loss}")
        column = intercept if isinstance(intercept, Tensor) else torch.ones_like(y).double() if intercept else None
        return CurvedProblem(A, y, weights, column, loss_of(loss))
    if groups:
        return GroupProblem(A, y, weights, bool(intercept), prior)
    return Problem(A, y, weights, bool(intercept))
