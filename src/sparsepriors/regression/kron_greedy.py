"""Least squares on a Kronecker support, where it is known, and the greedy search for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Inexact
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.regression._modes import along_modes, check_factors
from sparsepriors.solvers import Solution


@torch.no_grad()
def kron_least_squares(y: Inexact[Tensor, "..."], factors: Sequence[Inexact[Tensor, "..."]],
                       supports: Sequence[Tensor]) -> Inexact[Tensor, "..."]:
    """Least squares for x that is zero outside a product of index sets; of least norm where it is not unique.

    Parameters
    ----------
    y, factors
        As in `kron_sbl`.
    supports
        For each axis a boolean ``(*batch, n_i)`` or ``(n_i,)``. Who knows the true ones has the oracle's estimate.

    Returns
    -------
    Tensor
        ``(*batch, n_1, ..., n_I)``.

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit, something is NaN, or a support is not boolean.
    """
    problem = check_factors(y, factors)
    if len(supports) != problem.axes:
        raise ValueError(f"supports must have one entry for each of {problem.axes} axes, got {len(supports)}")
    inverses = []
    for i, (a, support) in enumerate(zip(problem.factors, supports, strict=True)):
        n = a.shape[-1]
        if tuple(_checks.boolean(f"supports[{i}]", support).shape) not in ((n,), (*problem.batch, n)):
            raise ValueError(f"supports[{i}] must have shape {(n,)} or {(*problem.batch, n)}, "
                             f"got {tuple(support.shape)}")
        mask = support.expand(*problem.batch, n).reshape(-1, 1, n)
        inverses.append(torch.linalg.pinv(a * mask))
    return problem.items(along_modes(problem.y, inverses)).to(problem.dtype)


@torch.no_grad()
def kron_omp(y: Inexact[Tensor, "..."], factors: Sequence[Inexact[Tensor, "..."]], *,
             most: int | Sequence[int] | None = None, tol: float = 1e-2,
             noise_var: float | Tensor | None = None) -> Solution:
    """Orthogonal matching pursuit with one set of indices per axis (Caiafa and Cichocki, 2013).

    Each step takes the column of the product that correlates best with what is left of y, adds its index on every axis
    to that axis' set, and fits by least squares on the product of the sets.

    Parameters
    ----------
    y, factors
        As in `kron_sbl`.
    most
        Most indices per axis, one number or one for each; by default as many as the matrix has rows or columns.
    tol
        An item stops when the norm of the residual is at most this share of the norm of y (the certificate).
    noise_var
        Where it is given, an item also stops when the squared residual is at most its expectation, one number or
        ``(*batch)`` per measurement.

    Returns
    -------
    Solution
        Trace: ``certificate``. Extras: ``residual``, the norm's share of the norm of y, and ``iterations``, per item.
        An item that has no new index to add stops, too.

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit, something is NaN, or a number is out of its range.
    """
    problem = check_factors(y, factors)
    tol = _checks.positive_number("tol", tol)
    limits = [most] * problem.axes if most is None or isinstance(most, int) else list(most)
    if len(limits) != problem.axes:
        raise ValueError(f"most must be one number or one for each of {problem.axes} axes, got {most}")
    limits = [min(a.shape[-2:]) if n is None else _checks.count("most", n, low=1)
              for n, a in zip(limits, problem.factors, strict=True)]
    norms = problem.y.flatten(1).norm(dim=1)
    enough = tol * norms
    if noise_var is not None:
        _checks.positive("noise_var", noise_var)
        given = torch.as_tensor(noise_var, dtype=torch.float64)
        if tuple(given.shape) not in ((), problem.batch):
            raise ValueError(f"noise_var must be a number or have the batch shape {problem.batch}, "
                             f"got {tuple(given.shape)}")
        expected = (given * problem.y[:1].numel()).sqrt() if len(problem.y) else given
        enough = torch.maximum(enough, expected.expand(problem.batch).reshape(-1))
    chosen = [torch.zeros(len(norms), n, dtype=torch.bool) for n in problem.columns]
    adjoints = [a.mH for a in problem.factors]
    x = problem.y.new_zeros(len(norms), *problem.columns)
    residual, left = problem.y, norms.clone()
    running = left > enough
    iterations = torch.zeros(len(norms), dtype=torch.int64)
    trace: list[float] = []
    items = torch.arange(len(norms))
    while bool(running.any()):
        best = along_modes(residual, adjoints).abs().flatten(1).argmax(1)
        grown = torch.zeros_like(running)
        for mask, limit, index in zip(chosen, limits, torch.unravel_index(best, problem.columns), strict=True):
            new = running & ~mask[items, index] & (mask.sum(1) < limit)
            mask[items[new], index[new]] = True
            grown |= new
        running = running & grown
        iterations += running
        inverses = [torch.linalg.pinv(a * mask[:, None, :]) for a, mask in zip(problem.factors, chosen, strict=True)]
        x = along_modes(problem.y, inverses)
        residual = problem.y - along_modes(x, problem.factors)
        left = residual.flatten(1).norm(dim=1)
        running = running & (left > enough)
        trace.append(float((left / norms.clamp(min=torch.finfo(torch.float64).tiny)).max()))
    share = left / norms.clamp(min=torch.finfo(torch.float64).tiny)
    worst = float(share.max()) if len(share) else 0.0
    extras = {"residual": problem.items(share).to(problem.dtype.to_real()), "iterations": problem.items(iterations)}
    return Solution(problem.items(x).to(problem.dtype), {"certificate": trace}, len(trace),
                    bool((left <= enough).all()), worst, extras)
