"""The scales of batch normalisations as the measure of channels, and a prior on them during training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparsepriors import _checks
from sparsepriors.networks.train_loop import Hook, TrainLoop
from sparsepriors.priors.base import Prior

VIA = ("subgradient", "prox")


def scales(model: nn.Module) -> dict[str, nn.Parameter]:
    """The scale of every batch normalisation by layer name, one entry for each channel.

    ``Global().masks(Unstructured(0.5), {n: s.abs() for n, s in scales(model).items()})`` keeps the channels of largest
    scale, half of all.

    Raises
    ------
    TypeError
        If ``model`` is no module.
    ValueError
        If no batch normalisation has scales.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    found = {name: m.weight for name, m in model.named_modules() if isinstance(m, _BatchNorm) and m.affine}
    if not found:
        raise ValueError("model has no batch normalisation with scales")
    return found


def threshold_ot(scores: Float[Tensor, " channels"], share: float = 1e-4) -> float:
    """Threshold of one layer's scores: the channels below it have less than ``share`` of the sum of squares.

    Midway between the two scores where the sum of squares of the smaller ones first exceeds its share; 0 if the
    smallest exceeds it alone, and 1 (nothing is kept) if no score reaches 1e-3.

    Source: the published code of arXiv:2201.06776, which calls it optimal thresholding.

    Raises
    ------
    TypeError, ValueError
        If ``scores`` is not one axis of finite real numbers, or ``share`` not in (0, 1).
    """
    if _checks.inexact("scores", scores).ndim != 1 or len(scores) == 0:
        raise ValueError(f"scores must be one axis of at least one, got shape {tuple(scores.shape)}")
    _checks.positive("share", share)
    if share >= 1:
        raise ValueError(f"share must be below 1, got {share}")
    ordered = scores.detach().abs().double().clamp(min=1e-18).sort().values
    if ordered[-1] < 1e-3:
        return 1.0
    energy = ordered.square().cumsum(0)
    first = int((energy / energy[-1] > share).nonzero()[0])
    return float((ordered[first - 1] + ordered[first]) / 2) if first else 0.0


class ScalePrior(Hook):
    """A prior on the scales of batch normalisations while a network trains.

    With ``L1(weight)`` on all of them this is network slimming (arXiv:1708.06519). With masks it acts on the channels
    that are to be removed and on no other, which keep their capacity: MaskSparsity (arXiv:2201.06776).

    Parameters
    ----------
    model
        The network that is trained.
    prior
        Of the vector of all scales that it acts on.
    masks
        By layer name, True where a channel is kept, hence left alone; the prior acts on the others. Layers that are
        not named are left alone. Without masks it acts on every scale.
    via
        ``"subgradient"``: the derivative of the prior's value (0 where it has a kink at 0) is added to the gradients
        before the optimizer uses them, so it passes through momentum, as in both papers. ``"prox"``: after each step
        of the optimizer the prox with the learning rate as its step, which gives exact zeros; without momentum's
        factor of 1 / (1 - momentum) it is as much weaker at the same weight.

    Raises
    ------
    TypeError, ValueError
        If the masks name no batch normalisation with scales, do not fit one, or keep every channel; if ``via`` is
        unknown or the prior's value cannot be differentiated.
    """

    def __init__(self, model: nn.Module, prior: Prior, masks: Mapping[str, Tensor] | None = None, *,
                 via: str = "subgradient") -> None:
        if not isinstance(prior, Prior):
            raise TypeError(f"prior must be a Prior such as L1(5e-4), got {type(prior).__name__}")
        self.prior, self.via = prior, _checks.one_of("via", via, VIA)
        every = scales(model)
        masks = {n: torch.zeros(len(s), dtype=torch.bool) for n, s in every.items()} if masks is None else masks
        self._acts: list[tuple[nn.Parameter, Tensor]] = []
        for name, mask in masks.items():
            _checks.boolean(f"the mask of {name}", mask)
            if name not in every:
                raise ValueError(f"masks names {name!r}, which is no batch normalisation with scales; the model has "
                                 f"{', '.join(every)}")
            if mask.shape != every[name].shape:
                raise ValueError(f"the mask of {name} must have one entry for each of {len(every[name])} channels, "
                                 f"got shape {tuple(mask.shape)}")
            if not mask.all():
                self._acts.append((every[name], (~mask).nonzero().flatten().to(every[name].device)))
        if not self._acts:
            raise ValueError("the masks keep every channel: the prior has nothing to act on")

    def value(self) -> float:
        """The prior's value of the scales as they are."""
        return float(self.prior.value(self._taken()))

    def after_backward(self, loop: TrainLoop) -> None:
        """Add the subgradient."""
        if self.via != "subgradient":
            return
        x = self._taken().requires_grad_()
        with torch.enable_grad():
            slope, = torch.autograd.grad(self.prior.value(x), x)
        for (scale, rows), part in self._parts(slope):
            if scale.grad is not None:
                scale.grad.index_add_(0, rows, part)

    @torch.no_grad()
    def after_step(self, loop: TrainLoop) -> None:
        """Apply the prox."""
        if self.via != "prox":
            return
        rates = {id(p): float(group["lr"]) for group in loop.optimizer.param_groups for p in group["params"]}
        steps = {rates[id(scale)] for scale, _ in self._acts if id(scale) in rates}
        if len(steps) != 1 or any(id(scale) not in rates for scale, _ in self._acts):
            raise ValueError(f"the optimizer must hold all scales with one learning rate, got rates {sorted(steps)}")
        step = steps.pop()
        if step > 0:
            for (scale, rows), part in self._parts(self.prior.prox(self._taken(), step)):
                scale[rows] = part

    def _taken(self) -> Tensor:
        return torch.cat([scale.detach()[rows] for scale, rows in self._acts])

    def _parts(self, vector: Tensor) -> list[tuple[tuple[nn.Parameter, Tensor], Tensor]]:
        return list(zip(self._acts, vector.split([len(rows) for _, rows in self._acts]), strict=True))
