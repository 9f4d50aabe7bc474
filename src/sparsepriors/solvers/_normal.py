"""Solvers for the normal equations ``(q A^H A + rho K^H K) x = b``, direct wherever the structure allows it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsepriors import operators as ops
from sparsepriors.operators.base import LinearOperator
from sparsepriors.solvers._loop import Items, owned
from sparsepriors.solvers.cg import solve_inexactly

METHODS = ("auto", "exact", "cg", "linearised")
DENSE_SIZE = 2048
"""The largest side of a matrix that is factorised."""


@dataclass(frozen=True)
class NormalSolver:
    """``solve(b, x)`` returns the solution, or something nearer to it than the start ``x`` if it is not `exact`."""

    solve: Callable[[Tensor, Tensor], Tensor]
    exact: bool
    name: str


def normal_solver(A: LinearOperator | None, K: LinearOperator, q: float, rho: float, items: Items, method: str,
                  cg_iters: int, cg_tol: float) -> NormalSolver:
    """The best solver for ``q A^H A + rho K^H K`` (without the first term where ``A`` is ``None``).

    Direct ways, in this order: an entrywise division where both Gram operators are diagonal; one in the Fourier
    domain where both commute with periodic shifts; a Cholesky factor of the system, or of the smaller one that
    Woodbury's identity leaves where K^H K = I, while its side is at most `DENSE_SIZE`. Otherwise conjugate gradients.

    Raises
    ------
    ValueError
        If ``method`` is "exact" and no direct way exists.
    """
    gram_k = K.gram()
    system = rho * gram_k if A is None else q * A.gram() + rho * gram_k
    if method in ("auto", "exact"):
        found = _direct(system, A, gram_k, q, rho)
        if found is not None:
            return found
        if method == "exact":
            raise ValueError(f"solve='exact' has no direct way for the normal equations of A = {A} and analysis = {K}: "
                             f"they are not diagonal, not shift invariant, singular, or of more than {DENSE_SIZE} "
                             f"unknowns; use solve='cg'")
    if method == "linearised":
        bound = rho * K.norm() ** 2 + (0.0 if A is None else q * A.norm() ** 2)
        return NormalSolver(lambda b, x: x + (b - system._forward(x)) * (1 / bound), False, "linearised")

    def apply(x: Tensor) -> Tensor:
        return owned(system._forward(x), x)

    return NormalSolver(lambda b, x: solve_inexactly(apply, b, x.clone(), items, iterations=cg_iters, limit=cg_tol),
                        False, "cg")


def _direct(system: LinearOperator, A: LinearOperator | None, gram_k: LinearOperator, q: float,
            rho: float) -> NormalSolver | None:
    diagonal = _diagonal(system)
    if diagonal is not None:
        if not _invertible(diagonal):
            return None
        inverse = diagonal.reciprocal()  # a complex tensor is divided ten times slower than multiplied
        return NormalSolver(lambda b, x: b * inverse, True, "diagonal")
    if _shift_invariant(system):
        return _fourier(system)
    n = math.prod(system.in_shape)
    if not system.complex_linear and system.in_dtype.is_complex:
        return None
    m = math.prod(A.out_shape) if A is not None else n
    if A is not None and m < n and m <= DENSE_SIZE and m * n <= DENSE_SIZE ** 2 * 4 and _is_identity(gram_k):
        return _woodbury(A, rho / q, rho)
    return _cholesky(system) if n <= DENSE_SIZE else None


def _invertible(eigenvalues: Tensor) -> bool:
    low, high = torch.aminmax(eigenvalues)
    return bool(low > eigenvalues.numel() ** 0.5 * torch.finfo(eigenvalues.dtype).eps * high)


def _fourier(system: LinearOperator) -> NormalSolver | None:
    """Eigenvalues of a shift-invariant operator are the Fourier transform of its response to a point."""
    shape = system.in_shape
    axes = tuple(range(-len(shape), 0))
    point = torch.zeros(shape, dtype=system.in_dtype, device=system.device)
    point[(0,) * len(shape)] = 1
    response = system._forward(point)
    if system.in_dtype.is_complex:
        eigenvalues = torch.fft.fftn(response, dim=axes).real.contiguous()
        if not _invertible(eigenvalues):
            return None
        inverse = eigenvalues.reciprocal()
        return NormalSolver(lambda b, x: torch.fft.ifftn(torch.fft.fftn(b, dim=axes).mul_(inverse), dim=axes),
                            True, "fourier")
    eigenvalues = torch.fft.rfftn(response, dim=axes).real.contiguous()
    if not _invertible(eigenvalues):
        return None
    inverse = eigenvalues.reciprocal()
    return NormalSolver(
        lambda b, x: torch.fft.irfftn(torch.fft.rfftn(b, dim=axes).mul_(inverse), s=shape, dim=axes), True,
        "fourier")


def _rows(x: Tensor, event: tuple[int, ...]) -> Tensor:
    """One row for each item, also where there are none or they have no entries."""
    return x.reshape(math.prod(x.shape[:x.ndim - len(event)]), math.prod(event))


def _cholesky(system: LinearOperator) -> NormalSolver | None:
    factor, info = torch.linalg.cholesky_ex(system.dense())
    if int(info):
        return None

    def solve(b: Tensor, x: Tensor) -> Tensor:
        return torch.cholesky_solve(_rows(b, system.in_shape).mT, factor).mT.reshape(b.shape)

    return NormalSolver(solve, True, "cholesky")


def _woodbury(A: LinearOperator, damping: float, rho: float) -> NormalSolver | None:
    """(q A^H A + rho I)^{-1} b = (b - A^H (damping I + A A^H)^{-1} A b) / rho with damping = rho / q."""
    outer = A.H.gram().dense()
    outer.diagonal().add_(damping)
    factor, info = torch.linalg.cholesky_ex(outer)
    if int(info):
        return None

    def solve(b: Tensor, x: Tensor) -> Tensor:
        forward = A._forward(b)
        inner = torch.cholesky_solve(_rows(forward, A.out_shape).mT, factor).mT.reshape(forward.shape)
        return (b - A._adjoint(inner)) * (1 / rho)

    return NormalSolver(solve, True, "woodbury")


def _is_identity(op: LinearOperator) -> bool:
    return isinstance(op, ops.Identity)


def _diagonal(op: LinearOperator) -> Tensor | None:
    """The real diagonal of an operator that is visibly diagonal and Hermitian, else ``None``."""
    real = op.in_dtype.to_real() if op.in_dtype.is_complex else op.in_dtype
    match op:
        case ops.Identity():
            return torch.ones((), dtype=real)
        case ops.Diagonal():
            return None if op.diagonal.is_complex() else op.diagonal
        case ops.Mask():
            return op.mask.to(real)
        case ops.ScaledOperator():
            inner = _diagonal(op.operator)
            return None if inner is None or isinstance(op.factor, complex) else op.factor * inner
        case ops.Sum():
            parts = [_diagonal(o) for o in op.operators]
            found = [p for p in parts if p is not None]
            if len(found) < len(parts):
                return None
            total = found[0]
            for p in found[1:]:
                total = total + p
            return total
    return None


def _shift_invariant(op: LinearOperator) -> bool:
    """Whether the operator visibly commutes with periodic shifts of every axis of its unknown."""
    match op:
        case ops.Identity() | ops.RealToComplex():
            return True
        case ops.FiniteDifference():
            return op.boundary == "periodic"
        case ops.Convolution():
            return op.mode == "circular"
        case ops.Adjoint() | ops.ScaledOperator():
            return _shift_invariant(op.operator)
        case ops.Sum():
            return all(map(_shift_invariant, op.operators))
        case ops.Composed():
            return all(map(_shift_invariant, _without_fourier_multipliers(op.operators)))
    return False


def _without_fourier_multipliers(factors: tuple[LinearOperator, ...]) -> tuple[LinearOperator, ...]:
    """The factors of a product less each run F^H D F with F over all axes and D diagonal: those commute with shifts."""
    kept: list[LinearOperator] = []
    i = 0
    while i < len(factors):
        end = _multiplier_end(factors, i)
        if end is None:
            kept.append(factors[i])
            i += 1
        else:
            i = end
    return tuple(kept)


def _multiplier_end(factors: tuple[LinearOperator, ...], start: int) -> int | None:
    left = factors[start]
    if not (isinstance(left, ops.Adjoint) and isinstance(left.operator, ops.FourierTransform)):
        return None
    F = left.operator
    if F.dims not in (None, len(F.shape)):
        return None
    for i in range(start + 1, len(factors)):
        op = factors[i]
        if isinstance(op, ops.FourierTransform):
            same = (op.shape, op.dtype, op.centred) == (F.shape, F.dtype, F.centred) and op.dims in (None, len(F.shape))
            return i + 1 if same else None
        if not isinstance(op, (ops.Diagonal, ops.Mask, ops.Identity)):
            return None
    return None
