"""Projections onto the simplex and the l1 ball."""

from __future__ import annotations

import torch
from torch import Tensor


def project_simplex(x: Tensor, radius: float | Tensor) -> Tensor:
    """The nearest point of the simplex {u >= 0, sum u = radius} to each row, by sorting.

    Parameters
    ----------
    x
        ``(*batch, n)``, real.
    radius
        Positive, a number or ``(*batch)``.
    """
    if not x.numel():
        return x.clone()
    rows = x.double()
    return torch.relu(_lowered(rows, _column(radius, rows))).to(x.dtype)


def project_l1_ball(x: Tensor, radius: float | Tensor) -> Tensor:
    """The nearest point of the ball {sum |u| <= radius} to each row, by sorting.

    Parameters
    ----------
    x
        ``(*batch, n)``, real or complex.
    radius
        Positive, a number or ``(*batch)``.
    """
    if not x.numel():
        return x.clone()
    r = x.abs()
    moduli = r.double()
    radius = _column(radius, moduli)
    left = torch.relu(_lowered(moduli, radius))
    some = r > 0
    if x.is_complex():   # not torch.sgn, which is NaN for entries below the normal numbers
        moved = x * torch.where(some, left / torch.where(some, moduli, 1), 0).to(r.dtype)
    else:
        moved = x.sgn() * left.to(r.dtype)
    return torch.where(moduli.sum(dim=-1, keepdim=True) > radius, moved, x)


def _column(radius: float | Tensor, rows: Tensor) -> Tensor:
    radius = torch.as_tensor(radius, dtype=torch.float64, device=rows.device)
    return radius.expand(rows.shape[:-1])[..., None]


def _lowered(rows: Tensor, radius: Tensor) -> Tensor:
    """Each row minus the tau at which sum_i max(row_i - tau, 0) = radius."""
    top = rows.amax(dim=-1, keepdim=True).detach()
    rows = rows - top   # what is near the largest keeps its digits in the sums
    ordered = torch.sort(rows, dim=-1, descending=True).values
    count = torch.arange(1, rows.shape[-1] + 1, device=rows.device, dtype=torch.float64)
    tau = (ordered.cumsum(dim=-1) - radius) / count
    # The last index at which the ordered entry still exceeds its tau; index 0 always does.
    stay = (ordered > tau).sum(dim=-1, keepdim=True).clamp(min=1)
    left = rows - tau.gather(-1, stay - 1)
    # What rounding left in the running sums shows in the entries themselves, which add up to the radius.
    return left - (torch.relu(left).sum(dim=-1, keepdim=True) - radius) / stay
