"""Differences of total variation and its dual ball, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def differences(x: Tensor, d: int) -> Tensor:
    """Forward differences along the last ``d`` axes, the last zero: ``(..., *spatial)`` to ``(..., d, *spatial)``."""
    parts = []
    for axis in range(-d, 0):
        zero = torch.zeros_like(x.narrow(axis, 0, min(1, x.shape[axis])))
        parts.append(torch.cat((x.diff(dim=axis), zero), dim=axis))
    return torch.stack(parts, dim=-d - 1)


def differences_adjoint(p: Tensor, d: int) -> Tensor:
    """The adjoint of `differences`."""
    total: Tensor | None = None
    for i, axis in enumerate(range(-d, 0)):
        along = p.select(-d - 1, i)
        inner = along.narrow(axis, 0, along.shape[axis] - 1)
        zero = torch.zeros_like(along.narrow(axis, 0, 1))
        part = torch.cat((zero, inner), dim=axis) - torch.cat((inner, zero), dim=axis)
        total = part if total is None else total + part
    assert total is not None
    return total


def onto_bound(p: Tensor, bound: Tensor, d: int, isotropic: bool) -> Tensor:
    """The nearest field ``(..., d, *spatial)`` with |p| <= bound, joining the directions or each by itself."""
    if not isotropic and not p.is_complex():
        return torch.clamp(p, -bound, bound)
    square = p.abs().square()
    square = square.sum(dim=-d - 1, keepdim=True) if isotropic else square
    outside = square > bound * bound
    return p * torch.where(outside, bound / torch.where(outside, square, 1.0).sqrt(), 1.0)
