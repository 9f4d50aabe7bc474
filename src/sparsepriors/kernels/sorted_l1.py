"""The proximal operator of the sorted l1 norm."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels import reference
from sparsepriors.kernels.dispatch import native_for, threads


def sorted_l1_prox(r: Tensor, weights: Tensor, step: float | Tensor) -> Tensor:
    """As `reference.sorted_l1_prox`, by a radix sort and one pass over the sorted moduli where it can be compiled.

    Where a gradient is asked for, the reference runs.

    Parameters
    ----------
    r
        ``(*batch, n)``, nonnegative, finite.
    weights
        ``(n,)``, nonnegative, none larger than the one before it.
    step
        Nonnegative, a number or ``(*batch)``.

    Raises
    ------
    TypeError, ValueError
        If ``r`` is not real floating point, the weights are not one for each entry of a row, or the step is negative or
        not one for each row.
    """
    if not r.is_floating_point():
        raise TypeError(f"r must be a real floating point tensor, got {r.dtype}")
    if r.ndim == 0 or weights.shape != r.shape[-1:]:
        raise ValueError(f"r and weights must have shapes (*batch, n) and (n,), got {tuple(r.shape)} and "
                         f"{tuple(weights.shape)}")
    _checks.nonnegative("step", step)
    each = isinstance(step, Tensor)
    if each and step.shape != r.shape[:-1]:
        raise ValueError(f"step must be a number or have shape {tuple(r.shape[:-1])}, one for each row of r of shape "
                         f"{tuple(r.shape)}, got {tuple(step.shape)}")
    native = native_for(r)
    if native is None or (torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad
                                                          for t in (r, weights, step))):
        return reference.sorted_l1_prox(r, weights, step)
    rows = r.detach().contiguous()
    out = torch.empty_like(rows)
    weights = weights.detach().to("cpu", r.dtype).contiguous()
    if each:
        steps = step.detach().to("cpu", torch.float64).contiguous()
    else:
        steps = torch.full(r.shape[:-1], step, dtype=torch.float64)
    native.sorted_l1_prox(rows, weights, steps, out, threads())
    return out
