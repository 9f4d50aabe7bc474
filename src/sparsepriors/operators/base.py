"""Linear operators with exact adjoints, and the algebra that composes them.

Inner products: <u, v> = sum conj(u) v for complex spaces; an operator from a real to a complex space uses the real
part, so its adjoint returns a real tensor. Every operator satisfies <A x, y> = <x, A^H y> to rounding.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Self, overload

import torch
from jaxtyping import Inexact
from torch import Tensor

from sparsepriors import _checks
from sparsepriors._described import Described


class LinearOperator(Described, ABC):
    """y = A x between tensor spaces; batch axes lead.

    Subclasses state ``in_shape``, ``out_shape``, ``in_dtype``, ``out_dtype`` and give ``_forward`` and ``_adjoint``.
    """

    @property
    @abstractmethod
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one x."""

    @property
    @abstractmethod
    def out_shape(self) -> tuple[int, ...]:
        """Shape of one y."""

    @property
    @abstractmethod
    def in_dtype(self) -> torch.dtype:
        """Dtype of x."""

    @property
    def out_dtype(self) -> torch.dtype:
        """Dtype of y; that of x unless the operator says otherwise."""
        return self.in_dtype

    @abstractmethod
    def _forward(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _adjoint(self, y: Tensor) -> Tensor: ...

    def forward(self, x: Inexact[Tensor, "..."]) -> Inexact[Tensor, "..."]:
        """A x: ``(..., *in_shape)`` to ``(..., *out_shape)``.

        Raises
        ------
        TypeError, ValueError
            If ``x`` has another shape or dtype, or holds NaN or infinite entries.
        """
        _checks.trailing_shape("x", _checks.inexact("x", x), self.in_shape)
        _checks.same_dtype("x", x, self.in_dtype)
        return self._forward(x)

    def adjoint(self, y: Inexact[Tensor, "..."]) -> Inexact[Tensor, "..."]:
        """A^H y: ``(..., *out_shape)`` to ``(..., *in_shape)``.

        Raises
        ------
        TypeError, ValueError
            If ``y`` has another shape or dtype, or holds NaN or infinite entries.
        """
        _checks.trailing_shape("y", _checks.inexact("y", y), self.out_shape)
        _checks.same_dtype("y", y, self.out_dtype)
        return self._adjoint(y)

    def __call__(self, x: Tensor) -> Tensor:
        return self.forward(x)
