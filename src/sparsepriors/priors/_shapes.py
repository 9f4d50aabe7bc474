"""Weights, steps and unknowns: how they line up with a tensor."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparsepriors._norms import euclidean


def like(value: float | Tensor, x: Tensor) -> float | Tensor:
    """Return a number as it is, a tensor in the real dtype and on the device of ``x``."""
    if isinstance(value, Tensor):
        return value.to(dtype=x.dtype.to_real(), device=x.device)
    return value


def tensor_like(value: float | Tensor, x: Tensor) -> Tensor:
    """Return a number or tensor as a tensor in the real dtype and on the device of ``x``."""
    return torch.as_tensor(value, dtype=x.dtype.to_real(), device=x.device)


def largest(value: float | Tensor) -> float:
    """Return the largest entry of a nonnegative number or tensor (0 for an empty one)."""
    if isinstance(value, Tensor):
        return float(value.detach().max()) if value.numel() else 0.0
    return float(value)


def must_broadcast(name: str, value: object, x: Tensor) -> None:
    """Raise `ValueError` if ``value`` is a tensor that does not broadcast to the shape of ``x``."""
    if not isinstance(value, Tensor):
        return
    try:
        fits = torch.broadcast_shapes(x.shape, value.shape) == x.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"{name} of shape {tuple(value.shape)} does not broadcast to x of shape {tuple(x.shape)}")


def must_be_constant(name: str, value: object, dims: int | None) -> None:
    """Raise `ValueError` if ``value`` is a tensor that varies inside one unknown of ``dims`` trailing axes."""
    if not isinstance(value, Tensor):
        return
    event = value.shape if dims is None else value.shape[value.ndim - min(dims, value.ndim):]
    if any(n != 1 for n in event):
        raise ValueError(f"{name} must be constant over each unknown (dims = {dims}), got shape {tuple(value.shape)}")


def flatten(x: Tensor, dims: int | None) -> Tensor:
    """Return ``x`` as ``(*batch, n)``, one row per unknown."""
    batch = () if dims is None else x.shape[:x.ndim - dims]
    return x.reshape(*batch, math.prod(x.shape[len(batch):]))


def per_row(value: float | Tensor, x: Tensor, dims: int | None) -> float | Tensor:
    """Return a number as it is, a tensor that is constant over each unknown with one entry per row of `flatten`."""
    if not isinstance(value, Tensor):
        return value
    if dims is None:
        return value.reshape(())
    batch = x.shape[:x.ndim - dims]
    full = value.reshape((1,) * (x.ndim - value.ndim) + tuple(value.shape))
    return full.reshape(full.shape[:len(batch)]).expand(batch)


def rephase(x: Tensor, modulus: Tensor) -> Tensor:
    """Return the tensor with the signs or phases of ``x`` and these moduli; zero where ``x`` is zero."""
    if not x.is_complex():
        return torch.sgn(x) * modulus
    r = x.abs()   # not torch.sgn, which is NaN for complex entries below the normal numbers
    some = r > 0
    return x * torch.where(some, modulus / torch.where(some, r, 1), 0)


def check_axis(axis: int | tuple[int, ...], dims: int | None) -> None:
    """Raise unless ``axis`` names distinct axes inside one unknown of ``dims`` trailing axes."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    if not axes or not all(isinstance(a, int) and not isinstance(a, bool) for a in axes):
        raise TypeError(f"axis must be an integer or a tuple of integers, got {axis!r}")
    if dims is not None and any(not -dims <= a < 0 for a in axes):
        raise ValueError(f"axis must lie in the last dims = {dims} axes, counted from the end as -{dims} to -1, "
                         f"got {axis!r}")
    if len(set(axes)) != len(axes):
        raise ValueError(f"axis must name distinct axes, got {axis!r}")


def group_axes(axis: int | tuple[int, ...], x: Tensor) -> tuple[int, ...]:
    """Return the axes of the groups for this tensor, or raise `ValueError` if it has too few."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    if any(not -x.ndim <= a < x.ndim for a in axes):
        raise ValueError(f"x must have the axes {axis!r} along which its groups lie, got shape {tuple(x.shape)}")
    found = tuple(a % x.ndim for a in axes)
    if len(set(found)) != len(found):
        raise ValueError(f"axis {axis!r} names an axis of x of shape {tuple(x.shape)} twice")
    return found


def norms(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return Euclidean norms over ``axes``, kept with length 1."""
    return euclidean(x, axes, keepdim=True)


def must_hold_matrices(name: str, dims: int | None) -> None:
    """Raise `ValueError` if an unknown of ``dims`` axes cannot hold a matrix."""
    if dims is not None and dims < 2:
        raise ValueError(f"dims of {name} must be at least 2, the rows and columns of its matrices, got {dims}")


def must_be_matrices(name: str, x: Tensor) -> None:
    """Raise `ValueError` unless ``x`` has two axes."""
    if x.ndim < 2:
        raise ValueError(f"x must have at least 2 axes for {name}, rows and columns last, got shape {tuple(x.shape)}")
