"""Projections onto the simplex and the l1 ball, in linear time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels import reference
from sparsepriors.kernels.dispatch import code_path, native_for, threads


def project_simplex(x: Tensor, radius: float | Tensor, *, instruction_set: str | None = None) -> Tensor:
    """As `reference.project_simplex`, without sorting where it can be compiled.

    Sums are made in double precision and do not depend on the thread count. Where a gradient is asked for, the
    reference runs.

    Parameters
    ----------
    x
        ``(*batch, n)``, real, finite.
    radius
        Positive, a number or ``(*batch)``.
    instruction_set
        One of `instruction_sets`, by default the first.

    Raises
    ------
    TypeError, ValueError
        If ``x`` is not real floating point or has no axis, the radius is not positive or not one for each row, or the
        instruction set is not to be had.

    References
    ----------
    Michelot (1986), A finite algorithm for finding the projection of a point onto the canonical simplex of R^n; Condat
    (2016), Fast projection onto the simplex and the l1 ball, compares the methods.
    """
    if not x.is_floating_point():
        raise TypeError(f"x must be a real floating point tensor, got {x.dtype}")
    return _project(x, radius, instruction_set, reference.project_simplex, ball=False)


def project_l1_ball(x: Tensor, radius: float | Tensor, *, instruction_set: str | None = None) -> Tensor:
    """As `reference.project_l1_ball`, without sorting where it can be compiled; see `project_simplex`.

    Parameters
    ----------
    x
        ``(*batch, n)``, real or complex, finite.
    radius
        Positive, a number or ``(*batch)``.
    instruction_set
        One of `instruction_sets`, by default the first.

    Raises
    ------
    TypeError, ValueError
        If ``x`` is not floating point or complex or has no axis, the radius is not positive or not one for each row, or
        the instruction set is not to be had.
    """
    if not (x.is_floating_point() or x.is_complex()):
        raise TypeError(f"x must be a floating point or complex tensor, got {x.dtype}")
    return _project(x, radius, instruction_set, reference.project_l1_ball, ball=True)


def _project(x: Tensor, radius: float | Tensor, instruction_set: str | None,
             plain: Callable[[Tensor, float | Tensor], Tensor], *, ball: bool) -> Tensor:
    if x.ndim == 0:
        raise ValueError("x must have shape (*batch, n), got shape ()")
    _checks.positive("radius", radius)
    each = isinstance(radius, Tensor)
    if each and radius.shape != x.shape[:-1]:
        raise ValueError(f"radius must be a number or have shape {tuple(x.shape[:-1])}, one for each row of x of shape "
                         f"{tuple(x.shape)}, got {tuple(radius.shape)}")
    path = code_path(instruction_set)
    native = native_for(x)
    if native is None or (torch.is_grad_enabled() and (x.requires_grad or (each and radius.requires_grad))):
        return plain(x, radius)
    row = (x.detach() if x.requires_grad else x).resolve_conj().contiguous()
    out = torch.empty_like(row)
    if each:
        radius = radius.detach().to("cpu", torch.float64).contiguous()
    elif x.ndim > 1:
        radius = torch.full(x.shape[:-1], radius, dtype=torch.float64)
    native.project_simplex(row, radius, ball, out, threads(), path)
    return out
