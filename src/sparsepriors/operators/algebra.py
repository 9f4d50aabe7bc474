"""Operators made of operators: products, sums, multiples, adjoints, and the maps that only rename a space."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.operators.base import LinearOperator, Space


def compose(left: LinearOperator, right: LinearOperator) -> LinearOperator:
    """``left @ right``, flattened, with identities dropped."""
    _check_chain(left, right)
    if isinstance(right, Identity):
        return left
    if isinstance(left, Identity):
        return right
    return Composed((*_factors(left), *_factors(right)))


def add(left: LinearOperator, right: LinearOperator) -> LinearOperator:
    """``left + right``, flattened."""
    return Sum((*_terms(left), *_terms(right)))


def scale(operator: LinearOperator, factor: complex) -> LinearOperator:
    """``factor * operator``, with nested factors multiplied out."""
    if isinstance(operator, ScaledOperator):
        operator, factor = operator.operator, factor * operator.factor
    return ScaledOperator(operator, factor)


@dataclass(frozen=True, eq=False, repr=False)
class Identity(LinearOperator):
    """I on tensors of one shape and dtype."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _checks.shape("shape", self.shape))
        _checks.inexact_dtype("dtype", self.dtype)

    @property
    def domain(self) -> Space:
        return Space(self.shape, self.dtype)

    @property
    def unitary(self) -> bool:
        return True

    @property
    def H(self) -> LinearOperator:
        return self

    def _forward(self, x: Tensor) -> Tensor:
        return x.clone()

    def _adjoint(self, y: Tensor) -> Tensor:
        return y.clone()


@dataclass(frozen=True, eq=False, repr=False)
class Reshape(LinearOperator):
    """The same entries, in row-major order, under another shape."""

    shape: tuple[int, ...]
    new_shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _checks.shape("shape", self.shape))
        object.__setattr__(self, "new_shape", _checks.shape("new_shape", self.new_shape))
        _checks.inexact_dtype("dtype", self.dtype)
        if math.prod(self.shape) != math.prod(self.new_shape):
            raise ValueError(f"new_shape must hold as many entries as shape {self.shape}, got {self.new_shape}")

    @property
    def domain(self) -> Space:
        return Space(self.shape, self.dtype)

    @property
    def codomain(self) -> Space:
        return Space(self.new_shape, self.in_dtype)

    @property
    def unitary(self) -> bool:
        return True

    @property
    def H(self) -> LinearOperator:
        return Reshape(self.new_shape, self.shape, self.dtype)

    def gram(self) -> LinearOperator:
        return Identity(self.shape, self.dtype)

    def _forward(self, x: Tensor) -> Tensor:
        return x.reshape((*_batch(x, self.shape), *self.new_shape)).clone()

    def _adjoint(self, y: Tensor) -> Tensor:
        return y.reshape((*_batch(y, self.new_shape), *self.shape)).clone()


@dataclass(frozen=True, eq=False, repr=False)
class RealToComplex(LinearOperator):
    """A real tensor as a complex one with imaginary part zero; the adjoint keeps the real part.

    ``dtype`` is that of the real side.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _checks.shape("shape", self.shape))
        if self.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"dtype must be torch.float32 or torch.float64, got {self.dtype}")

    @property
    def domain(self) -> Space:
        return Space(self.shape, self.dtype)

    @property
    def codomain(self) -> Space:
        return Space(self.shape, self.dtype.to_complex())

    def gram(self) -> LinearOperator:
        return Identity(self.shape, self.dtype)

    def _known_norm(self) -> float:
        return 1.0

    def _forward(self, x: Tensor) -> Tensor:
        return torch.complex(x, torch.zeros_like(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return y.real.clone()


@dataclass(frozen=True, eq=False, repr=False)
class Adjoint(LinearOperator):
    """A^H for an operator A without a class for its adjoint."""

    operator: LinearOperator

    def __post_init__(self) -> None:
        check_operator("operator", self.operator)

    @property
    def domain(self) -> Space:
        return self.operator.codomain

    @property
    def codomain(self) -> Space:
        return self.operator.domain

    @property
    def unitary(self) -> bool:
        return self.operator.unitary

    @property
    def complex_linear(self) -> bool:
        return self.operator.complex_linear

    @property
    def H(self) -> LinearOperator:
        return self.operator

    def gram(self) -> LinearOperator:
        return Identity(self.in_shape, self.in_dtype) if self.unitary else super().gram()

    def _known_norm(self) -> float | None:
        return self.operator._known_norm()

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator._adjoint(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._forward(y)

    def __repr__(self) -> str:
        return f"{_bracketed(self.operator)}.H"


@dataclass(frozen=True, eq=False, repr=False)
class Composed(LinearOperator):
    """A product of operators: the last one acts first. Usually written ``A @ B``."""

    operators: tuple[LinearOperator, ...]

    def __post_init__(self) -> None:
        check_operators(self.operators)
        for left, right in zip(self.operators, self.operators[1:], strict=False):
            _check_chain(left, right)

    @property
    def domain(self) -> Space:
        return self.operators[-1].domain

    @property
    def codomain(self) -> Space:
        return self.operators[0].codomain

    @property
    def unitary(self) -> bool:
        return all(op.unitary for op in self.operators)

    @property
    def complex_linear(self) -> bool:
        return all(op.complex_linear for op in self.operators)

    @property
    def H(self) -> LinearOperator:
        return Composed(tuple(op.H for op in reversed(self.operators)))

    def gram(self) -> LinearOperator:
        # (A B)^H (A B) = B^H (A^H A) B: a unitary A disappears and a diagonal A^H A stays one operator.
        first, *rest = self.operators
        inner = first.gram()
        for op in rest:
            inner = op.gram() if isinstance(inner, Identity) else op.H @ inner @ op
        return inner

    def _known_norm(self) -> float | None:
        other = [op for op in self.operators if not op.unitary]
        if not other:
            return 1.0
        return other[0]._known_norm() if len(other) == 1 else None

    def _forward(self, x: Tensor) -> Tensor:
        for op in reversed(self.operators):
            x = op._forward(x)
        return x

    def _adjoint(self, y: Tensor) -> Tensor:
        for op in self.operators:
            y = op._adjoint(y)
        return y

    def __repr__(self) -> str:
        return " @ ".join(_bracketed(op) for op in self.operators)


@dataclass(frozen=True, eq=False, repr=False)
class Sum(LinearOperator):
    """A sum of operators between the same spaces. Usually written ``A + B``."""

    operators: tuple[LinearOperator, ...]

    def __post_init__(self) -> None:
        check_operators(self.operators)
        first = self.operators[0]
        for op in self.operators[1:]:
            if (op.in_shape, op.out_shape) != (first.in_shape, first.out_shape):
                raise ValueError(f"cannot add {first} and {op}: their shapes differ")
            if (op.in_dtype, op.out_dtype) != (first.in_dtype, first.out_dtype):
                raise TypeError(f"cannot add {first} and {op}: their dtypes differ")

    @property
    def domain(self) -> Space:
        return self.operators[0].domain

    @property
    def codomain(self) -> Space:
        return self.operators[0].codomain

    @property
    def complex_linear(self) -> bool:
        return all(op.complex_linear for op in self.operators)

    @property
    def H(self) -> LinearOperator:
        return Sum(tuple(op.H for op in self.operators))

    def _forward(self, x: Tensor) -> Tensor:
        first, *rest = self.operators
        y = first._forward(x)
        for op in rest:
            y = y + op._forward(x)
        return y

    def _adjoint(self, y: Tensor) -> Tensor:
        first, *rest = self.operators
        x = first._adjoint(y)
        for op in rest:
            x = x + op._adjoint(y)
        return x

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.operators))


@dataclass(frozen=True, eq=False, repr=False)
class ScaledOperator(LinearOperator):
    """A multiple of an operator. Usually written ``c * A``; c may be complex where A's result is."""

    operator: LinearOperator
    factor: complex

    def __post_init__(self) -> None:
        check_operator("operator", self.operator)
        if not isinstance(self.factor, (int, float, complex)) or isinstance(self.factor, bool):
            raise TypeError(f"factor must be a number, got {type(self.factor).__name__}")
        if not math.isfinite(abs(self.factor)):
            raise ValueError(f"factor must be finite, got {self.factor}")
        if isinstance(self.factor, complex) and not self.operator.out_dtype.is_complex:
            raise TypeError(f"factor must be real for {self.operator}, whose result is real, got {self.factor}")

    @property
    def domain(self) -> Space:
        return self.operator.domain

    @property
    def codomain(self) -> Space:
        return self.operator.codomain

    @property
    def unitary(self) -> bool:
        return self.operator.unitary and abs(self.factor) == 1

    @property
    def complex_linear(self) -> bool:
        return self.operator.complex_linear

    def gram(self) -> LinearOperator:
        return scale(self.operator.gram(), abs(self.factor) ** 2)

    def _known_norm(self) -> float | None:
        known = self.operator._known_norm()
        return None if known is None else abs(self.factor) * known

    def _forward(self, x: Tensor) -> Tensor:
        return self.factor * self.operator._forward(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._adjoint(self.factor.conjugate() * y)

    def __repr__(self) -> str:
        return f"{self.factor:g} * {_bracketed(self.operator)}"


def _batch(x: Tensor, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The leading axes of ``x``, whose trailing axes are ``shape``."""
    return tuple(x.shape[: x.ndim - len(shape)])


def _factors(op: LinearOperator) -> tuple[LinearOperator, ...]:
    return op.operators if isinstance(op, Composed) else (op,)


def _terms(op: LinearOperator) -> tuple[LinearOperator, ...]:
    return op.operators if isinstance(op, Sum) else (op,)


def _bracketed(op: LinearOperator) -> str:
    return f"({op})" if isinstance(op, (Composed, Sum, ScaledOperator)) else repr(op)


def check_operator(name: str, op: object) -> None:
    """Raise `TypeError` unless this is an operator."""
    if not isinstance(op, LinearOperator):
        raise TypeError(f"{name} must be a LinearOperator, got {type(op).__name__}")


def check_operators(operators: object, name: str = "operators") -> None:
    """Raise `TypeError` unless this is a non-empty tuple of operators."""
    if not isinstance(operators, tuple) or not operators:
        raise TypeError(f"{name} must be a non-empty tuple of LinearOperators, got {operators!r:.100}")
    for i, op in enumerate(operators):
        check_operator(f"{name}[{i}]", op)


def _check_chain(left: LinearOperator, right: LinearOperator) -> None:
    if left.in_shape != right.out_shape:
        raise ValueError(f"cannot compose {left} with {right}: the first expects shape {left.in_shape}, "
                         f"the second gives {right.out_shape}")
    if left.in_dtype != right.out_dtype:
        raise TypeError(f"cannot compose {left} with {right}: the first expects {left.in_dtype}, "
                        f"the second gives {right.out_dtype}")
