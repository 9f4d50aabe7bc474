"""A hard threshold of its own for every latent, learned through the jump."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.priors.codes import CodePrior, State


@dataclass(frozen=True)
class JumpReLU(CodePrior, separable=True):
    """Nonnegative codes that are zero up to a threshold: R(x) = threshold^2 / 2 for every nonzero entry.

    The prox with step 1 keeps what exceeds the threshold. An encoder learns one threshold for each latent, from this
    one, by the straight-through estimate that replaces the jump by a ramp of width ``bandwidth``.

    Parameters
    ----------
    threshold
        Positive.
    weight
        Of the mean number of nonzeros in the loss.
    bandwidth
        Width of the estimate's kernel, a rectangle, positive.
    target
        If given, the loss has ``weight * (L0 / target - 1)^2`` instead of ``weight * L0``.

    References
    ----------
    Rajamanoharan et al. (2024), Jumping ahead: improving reconstruction fidelity with JumpReLU sparse autoencoders,
    arXiv:2407.14435, equations 11 and 12; the target is that of dictionary_learning.
    """

    threshold: float = 0.001
    weight: float = 1.0
    bandwidth: float = 0.001
    target: float | None = None

    learned: ClassVar[frozenset[str]] = frozenset({"threshold"})

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.positive("threshold", self.threshold)
        _checks.nonnegative("weight", self.weight)
        _checks.positive("bandwidth", self.bandwidth)
        if self.target is not None:
            _checks.positive("target", self.target)

    def _value(self, x: Tensor) -> Tensor:
        cost = 0.5 * self.threshold**2
        return self._sum(torch.where(x < 0, torch.inf, torch.where(x > 0, cost, 0.0)).to(x.dtype))

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        return torch.where(x > self.threshold * torch.as_tensor(step, dtype=x.dtype, device=x.device).sqrt(), x, 0)

    def state(self, latents: int) -> dict[str, Tensor]:
        """A threshold for each latent."""
        return {"threshold": torch.full((latents,), self.threshold)}

    def activate(self, pre: Tensor, state: State, *, training: bool = False, weights: Tensor | None = None) -> Tensor:
        scale = 1.0 if weights is None else weights
        return _Jump.apply(pre * scale, state["threshold"], self.bandwidth) / scale

    def penalty(self, codes: Tensor, pre: Tensor, norms: Tensor, state: State) -> Tensor:
        l0 = _Step.apply(pre, state["threshold"], self.bandwidth).sum(dim=-1).mean()
        return self.weight * (l0 if self.target is None else (l0 / self.target - 1).square())

    @torch.no_grad()
    def constrain(self, state: State) -> None:
        state["threshold"].clamp_(min=0.0)

    @torch.no_grad()
    def rescale(self, state: State, factor: float) -> None:
        state["threshold"].mul_(factor)

    def subset(self, state: State, latents: Tensor) -> dict[str, Tensor]:
        return {"threshold": state["threshold"][latents]}


class _Jump(torch.autograd.Function):
    """x where it exceeds a threshold; the threshold's gradient through a rectangle around the jump."""

    @staticmethod
    def forward(ctx, x, threshold, bandwidth):
        ctx.save_for_backward(x, threshold)
        ctx.bandwidth = bandwidth
        return torch.where(x > threshold, x, 0)

    @staticmethod
    def backward(ctx, *grads):
        x, threshold = ctx.saved_tensors
        near = (x - threshold).abs() < ctx.bandwidth / 2
        down = torch.where(near, grads[0], 0) * (-threshold / ctx.bandwidth)
        return torch.where(x > threshold, grads[0], 0), down.sum_to_size(threshold.shape), None


class _Step(torch.autograd.Function):
    """1 where x exceeds a threshold; only the threshold has a gradient, through the same rectangle."""

    @staticmethod
    def forward(ctx, x, threshold, bandwidth):
        ctx.save_for_backward(x, threshold)
        ctx.bandwidth = bandwidth
        return (x > threshold).to(x.dtype)

    @staticmethod
    def backward(ctx, *grads):
        x, threshold = ctx.saved_tensors
        near = (x - threshold).abs() < ctx.bandwidth / 2
        return None, (torch.where(near, grads[0], 0) * (-1 / ctx.bandwidth)).sum_to_size(threshold.shape), None
