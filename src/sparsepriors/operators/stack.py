"""Operators side by side: one input to several outputs, and several inputs to several outputs."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.operators.algebra import add, check_operators
from sparsepriors.operators.base import LinearOperator, Space


@dataclass(frozen=True, eq=False, repr=False)
class Stack(LinearOperator):
    """x to (A_1 x, A_2 x, ...), the results joined in one tensor.

    Parameters
    ----------
    operators
        Operators with one input space and one result dtype.
    axis
        Axis of the results along which they are joined; the other axes must agree. ``None``: the results are flattened
        and joined to one vector, whatever their shapes.
    """

    operators: tuple[LinearOperator, ...]
    axis: int | None = 0

    def __post_init__(self) -> None:
        check_operators(self.operators)
        first = self.operators[0]
        for op in self.operators[1:]:
            if op.in_shape != first.in_shape:
                raise ValueError(f"cannot stack {first} and {op}: their inputs have other shapes")
            if (op.in_dtype, op.out_dtype) != (first.in_dtype, first.out_dtype):
                raise TypeError(f"cannot stack {first} and {op}: their dtypes differ")
        _joined([op.out_shape for op in self.operators], self.axis)

    @property
    def domain(self) -> Space:
        return self.operators[0].domain

    @property
    def codomain(self) -> Space:
        return Space(_joined([op.out_shape for op in self.operators], self.axis), self.operators[0].out_dtype)

    @property
    def complex_linear(self) -> bool:
        return all(op.complex_linear for op in self.operators)

    def gram(self) -> LinearOperator:
        grams = tuple(op.gram() for op in self.operators)
        return functools.reduce(add, grams)

    def _forward(self, x: Tensor) -> Tensor:
        return _join([op._forward(x) for op in self.operators], [op.out_shape for op in self.operators], self.axis)

    def _adjoint(self, y: Tensor) -> Tensor:
        parts = _split(y, [op.out_shape for op in self.operators], self.axis)
        first, *rest = (op._adjoint(part) for op, part in zip(self.operators, parts, strict=True))
        for x in rest:
            first = first + x
        return first

    def __repr__(self) -> str:
        return f"Stack({', '.join(map(repr, self.operators))})"


@dataclass(frozen=True, eq=False, repr=False)
class BlockDiagonal(LinearOperator):
    """(x_1, x_2, ...) to (A_1 x_1, A_2 x_2, ...), inputs and results each joined in one tensor.

    Parameters
    ----------
    operators
        Operators of one input and one result dtype.
    axis
        Axis along which inputs and results are joined; their other axes must agree. ``None``: both are flattened and
        joined to vectors, whatever their shapes.
    """

    operators: tuple[LinearOperator, ...]
    axis: int | None = 0

    def __post_init__(self) -> None:
        check_operators(self.operators)
        first = self.operators[0]
        for op in self.operators[1:]:
            if (op.in_dtype, op.out_dtype) != (first.in_dtype, first.out_dtype):
                raise TypeError(f"cannot join {first} and {op}: their dtypes differ")
        _joined([op.in_shape for op in self.operators], self.axis)
        _joined([op.out_shape for op in self.operators], self.axis)

    @property
    def domain(self) -> Space:
        return Space(_joined([op.in_shape for op in self.operators], self.axis), self.operators[0].in_dtype)

    @property
    def codomain(self) -> Space:
        return Space(_joined([op.out_shape for op in self.operators], self.axis), self.operators[0].out_dtype)

    @property
    def unitary(self) -> bool:
        return all(op.unitary for op in self.operators)

    @property
    def complex_linear(self) -> bool:
        return all(op.complex_linear for op in self.operators)

    @property
    def H(self) -> LinearOperator:
        return BlockDiagonal(tuple(op.H for op in self.operators), self.axis)

    def gram(self) -> LinearOperator:
        return BlockDiagonal(tuple(op.gram() for op in self.operators), self.axis)

    def _known_norm(self) -> float | None:
        norms = [op._known_norm() for op in self.operators]
        known = [n for n in norms if n is not None]
        return max(known) if len(known) == len(norms) else None

    def _forward(self, x: Tensor) -> Tensor:
        parts = _split(x, [op.in_shape for op in self.operators], self.axis)
        return _join([op._forward(part) for op, part in zip(self.operators, parts, strict=True)],
                     [op.out_shape for op in self.operators], self.axis)

    def _adjoint(self, y: Tensor) -> Tensor:
        parts = _split(y, [op.out_shape for op in self.operators], self.axis)
        return _join([op._adjoint(part) for op, part in zip(self.operators, parts, strict=True)],
                     [op.in_shape for op in self.operators], self.axis)

    def __repr__(self) -> str:
        return f"BlockDiagonal({', '.join(map(repr, self.operators))})"


def _joined(shapes: Sequence[tuple[int, ...]], axis: int | None) -> tuple[int, ...]:
    """Shape of the tensors of these shapes joined along ``axis``."""
    if axis is None:
        return (sum(math.prod(s) for s in shapes),)
    first = shapes[0]
    _checks.count("axis", axis, low=-len(first), high=len(first) - 1)
    axis %= len(first)
    for shape in shapes[1:]:
        if len(shape) != len(first) or any(a != b for i, (a, b) in enumerate(zip(first, shape, strict=True))
                                           if i != axis):
            raise ValueError(f"shapes {first} and {shape} do not join along axis {axis}; "
                             f"axis=None joins flattened tensors")
    return (*first[:axis], sum(s[axis] for s in shapes), *first[axis + 1:])


def _join(parts: list[Tensor], shapes: list[tuple[int, ...]], axis: int | None) -> Tensor:
    if axis is None:
        flat = [p.reshape((*p.shape[:p.ndim - len(s)], math.prod(s))) for p, s in zip(parts, shapes, strict=True)]
        return torch.cat(flat, dim=-1)
    return torch.cat(parts, dim=axis % len(shapes[0]) - len(shapes[0]))


def _split(x: Tensor, shapes: list[tuple[int, ...]], axis: int | None) -> list[Tensor]:
    if axis is None:
        flat = x.split([math.prod(s) for s in shapes], dim=-1)
        return [p.reshape((*x.shape[:-1], *s)) for p, s in zip(flat, shapes, strict=True)]
    axis = axis % len(shapes[0])
    return list(x.split([s[axis] for s in shapes], dim=axis - len(shapes[0])))
