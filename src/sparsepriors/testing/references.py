"""Answers of small problems by dense linear algebra, to judge solvers by."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

SPARSITY = 2
"""Nonzero entries of a sparse answer."""


def ridge(matrix: Tensor, y: Tensor, weight: float) -> Tensor:
    """Minimiser of 1/2 ||M x - y||^2 + weight/2 ||x||^2."""
    system = matrix.mH @ matrix + weight * torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
    return torch.linalg.solve(system, matrix.mH @ y)


def smallest_within(matrix: Tensor, y: Tensor, weight: float, *, eps: float) -> Tensor:
    """Minimiser of weight/2 ||x||^2 subject to ||M x - y|| <= eps: a ridge of bisected weight.

    Raises
    ------
    ValueError
        If no x meets the constraint.
    """
    if float(torch.linalg.vector_norm(y)) <= eps:
        return torch.zeros(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
    low, high = 1e-14, 1e14
    if float(torch.linalg.vector_norm(matrix @ ridge(matrix, y, low) - y)) > eps:
        raise ValueError(f"eps = {eps} is below the distance of y from the range of the matrix")
    for _ in range(200):
        middle = (low * high) ** 0.5
        inside = float(torch.linalg.vector_norm(matrix @ ridge(matrix, y, middle) - y)) <= eps
        low, high = (middle, high) if inside else (low, middle)
    return ridge(matrix, y, low)


def envelope(matrix: Tensor, y: Tensor, weight: float, *, noise_std: float, trust: float,
             stds: tuple[float, ...]) -> Tensor:
    """The half z of half-quadratic splitting with weight/2 ||z||^2: then x is a ridge and z a multiple of it."""
    variance = stds[-1] ** 2
    rho = trust * noise_std ** 2 / variance
    shrink = 1 / (1 + weight * variance)
    return shrink * ridge(matrix, y, rho * (1 - shrink))


def _penalised(matrix: Tensor, y: Tensor, weight: float) -> Tensor:
    return ridge(matrix, y, weight)


def _least_squares(matrix: Tensor, y: Tensor, weight: float) -> Tensor:
    return ridge(matrix, y, 0.0)


def _hermitian(matrix: Tensor, y: Tensor, weight: float) -> Tensor:
    return torch.linalg.solve(matrix, y)


def sparsest(matrix: Tensor, y: Tensor, weight: float) -> Tensor:
    """Least ||M x - y|| with `SPARSITY` nonzero entries in x: every support is tried."""
    x = torch.zeros(*y.shape[:-1], matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
    least = torch.linalg.vector_norm(y)
    for support in combinations(range(matrix.shape[1]), SPARSITY):
        columns = matrix[:, support]
        values = ridge(columns, y, 0.0)
        if (misfit := torch.linalg.vector_norm(columns @ values - y)) < least:
            least = misfit
            x = torch.zeros_like(x).index_copy(0, torch.tensor(support, device=x.device), values)
    return x


ANSWERS: dict[str, Callable[..., Tensor]] = {
    "penalised": _penalised, "least squares": _least_squares, "hermitian": _hermitian, "constrained": smallest_within,
    "envelope": envelope, "sparse": sparsest, "set": sparsest,
}
"""For each problem of `SolverCase`, its solution with the prior weight/2 ||x||^2."""

PROBLEMS = tuple(ANSWERS)


def answer(problem: str, matrix: Tensor, y: Tensor, weight: float, keywords: Mapping[str, Any]) -> Tensor:
    """The solution of a problem with the prior weight/2 ||x||^2, given a solver's keywords."""
    solve = ANSWERS[problem]
    named = {p.name for p in inspect.signature(solve).parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    return solve(matrix, y, weight, **{name: value for name, value in keywords.items() if name in named})
