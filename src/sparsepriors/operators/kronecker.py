"""Kronecker products, applied factor by factor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor

from sparsepriors.operators._autograd import Map
from sparsepriors.operators.algebra import check_operators
from sparsepriors.operators.base import LinearOperator, Space
from sparsepriors.operators.dense import Matrix


@dataclass(frozen=True, eq=False, repr=False)
class Kronecker(LinearOperator):
    """A_1 (x) A_2 (x) ...: factor i acts on the i-th group of axes of x.

    For matrices, x has shape ``(n_1, n_2, ...)``, y has shape ``(m_1, m_2, ...)``, and with both flattened in row-major
    order y = (A_1 (x) A_2 (x) ...) x is that of ``numpy.kron``. The product's matrix is never formed.

    Parameters
    ----------
    factors
        Matrices, or operators that each keep the dtype; all of one dtype.
    """

    factors: tuple[LinearOperator | Tensor, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.factors, tuple) or not self.factors:
            raise TypeError(f"factors must be a non-empty tuple of matrices or LinearOperators, "
                            f"got {self.factors!r:.100}")
        built = tuple(Matrix(f) if isinstance(f, Tensor) else f for f in self.factors)
        check_operators(built, "factors")
        for op in built:
            if not op.in_dtype == op.out_dtype == built[0].in_dtype:
                raise TypeError(f"factors must share one dtype for input and result, got {built[0]} and {op}")
        object.__setattr__(self, "factors", built)

    @property
    def domain(self) -> Space:
        return Space(tuple(n for op in self._operators for n in op.in_shape), self._operators[0].in_dtype)

    @property
    def codomain(self) -> Space:
        return Space(tuple(n for op in self._operators for n in op.out_shape), self.in_dtype)

    @property
    def unitary(self) -> bool:
        return all(op.unitary for op in self._operators)

    @property
    def complex_linear(self) -> bool:
        return all(op.complex_linear for op in self._operators)

    @property
    def H(self) -> LinearOperator:
        return Kronecker(tuple(op.H for op in self._operators))

    def gram(self) -> LinearOperator:
        return Kronecker(tuple(op.gram() for op in self._operators))

    def _known_norm(self) -> float | None:
        product = 1.0
        for op in self._operators:
            known = op._known_norm()
            if known is None:
                return None
            product *= known
        return product

    @property
    def _operators(self) -> tuple[LinearOperator, ...]:
        return cast("tuple[LinearOperator, ...]", self.factors)

    def _forward(self, x: Tensor) -> Tensor:
        return _apply(x, [(op._forward, len(op.in_shape), len(op.out_shape)) for op in self._operators])

    def _adjoint(self, y: Tensor) -> Tensor:
        return _apply(y, [(op._adjoint, len(op.out_shape), len(op.in_shape)) for op in self._operators])

    def __repr__(self) -> str:
        return f"Kronecker({', '.join(map(repr, self._operators))})"


def _apply(x: Tensor, factors: list[tuple[Map, int, int]]) -> Tensor:
    """Apply each map to its group of axes: the groups rotate, so that the next one always stands last."""
    total = sum(n for _, n, _ in factors)
    for apply, before, after in reversed(factors):
        x = apply(x)
        total += after - before
        # The group just done goes to the front of the unknown's axes; after the last map the order is the first again.
        x = x.movedim(tuple(range(-after, 0)), tuple(range(-total, -total + after))) if after < total else x
    return x.contiguous()
