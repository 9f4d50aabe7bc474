"""Derivatives through linear maps that torch cannot see into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]


class _Linear(torch.autograd.Function):
    """y = A x whose derivative is A^H, itself differentiable by the same rule."""

    @staticmethod
    def forward(x: Tensor, apply: Map, apply_adjoint: Map) -> Tensor:
        return apply(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Map, Map], output: Tensor) -> None:
        ctx.maps = inputs[1:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        apply, apply_adjoint = ctx.maps
        return linear(grads[0], apply_adjoint, apply), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        apply, apply_adjoint = ctx.maps
        return linear(tangents[0], apply, apply_adjoint)


def linear(x: Tensor, apply: Map, apply_adjoint: Map) -> Tensor:
    """``apply(x)``, with ``apply_adjoint`` as its derivative."""
    y = _Linear.apply(x, apply, apply_adjoint)
    assert isinstance(y, Tensor)
    return y


def to_numpy(x: Tensor) -> np.ndarray:
    """The entries of ``x`` on the CPU, C-contiguous."""
    return np.ascontiguousarray(x.detach().cpu().resolve_conj().resolve_neg().numpy())
