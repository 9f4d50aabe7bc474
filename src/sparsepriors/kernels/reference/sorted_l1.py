"""The proximal operator of the sorted l1 norm."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def sorted_l1_prox(r: Tensor, weights: Tensor, step: float | Tensor) -> Tensor:
    """The minimiser u >= 0 of ``step * sum_i weights_i u_(i) + ||u - r||^2 / 2`` for each row, u_(1) >= u_(2) >= ....

    Isotonic regression of the sorted, shifted moduli.

    Parameters
    ----------
    r
        ``(*batch, n)``, nonnegative.
    weights
        ``(n,)``, nonnegative, none larger than the one before it.
    step
        Nonnegative, a number or ``(*batch)``.
    """
    if not r.numel():
        return r.clone()
    step = torch.as_tensor(step, dtype=torch.float64, device=r.device).expand(r.shape[:-1])[..., None]
    ordered, order = r.sort(dim=-1, descending=True, stable=True)
    shifted = ordered.double() - step * weights.to(r.device, torch.float64)
    flat = torch.stack([_decreasing(row) for row in shifted.reshape(-1, shifted.shape[-1])]).reshape(shifted.shape)
    return torch.empty_like(r).scatter(-1, order, torch.relu(flat).to(r.dtype))


def _decreasing(row: Tensor) -> Tensor:
    """The nearest nonincreasing sequence: blocks of the isotonic fit, averaged so that gradients flow."""
    block = _Blocks.apply(row)
    assert isinstance(block, Tensor)
    sizes = block.bincount()
    means = row.new_zeros(sizes.numel()).index_add(0, block, row) / sizes.to(row.dtype)
    return means[block]


class _Blocks(torch.autograd.Function):
    """The block of the isotonic fit that each entry of a row falls into: a step function, with no derivative."""

    @staticmethod
    def forward(row: Tensor) -> Tensor:
        from scipy.optimize import isotonic_regression

        fit = isotonic_regression(row.detach().cpu().numpy(), increasing=False)
        sizes = torch.as_tensor(fit.blocks, device=row.device, dtype=torch.int64).diff()
        return torch.repeat_interleave(torch.arange(sizes.numel(), device=row.device), sizes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> None:
        return None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> None:
        return None
