"""Which kept weights lie on a path from the input to the output, and which layers are cut off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase

from sparsepriors import _checks

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_INPUT = 1e-3   # small, so that no bounded activation saturates


@dataclass(frozen=True)
class Connectivity:
    """How much of a masked network takes part.

    Attributes
    ----------
    kept, live
        Weights that the masks keep, and those of them through which an input reaches an output, by name.
    weights
        All weights of the masked layers.
    """

    kept: Mapping[str, int]
    live: Mapping[str, int]
    weights: int

    @property
    def collapsed(self) -> tuple[str, ...]:
        """Layers through which no input reaches an output."""
        return tuple(name for name, count in self.live.items() if count == 0)

    @property
    def density(self) -> float:
        """Effective density: live weights over all weights of the masked layers (Vysogorets and Kempe, 2023)."""
        return sum(self.live.values()) / self.weights


def connectivity(model: nn.Module, masks: Mapping[str, Tensor], example: Tensor) -> Connectivity:
    """Follow a positive input through the masks in place of the weights, and its gradient back.

    Biases are left out (they are not the input) and normalisation is passed over. Every unit averages the inputs that
    its mask keeps, so that nothing overflows in deep networks. A weight whose effect passes only through a softmax or
    another function that is flat for equal inputs is not seen as live.

    Parameters
    ----------
    model
        Not changed.
    masks
        Boolean masks by parameter name, as a report or `prune` gives them.
    example
        One input; only its shape is used.

    Raises
    ------
    TypeError, ValueError
        If a mask is not boolean, or is of no weight of the model or of another shape.
    """
    _checks.instance("masks", masks, Mapping)
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        _checks.boolean(f"the mask of {name}", mask)
        if name not in parameters or parameters[name].shape != mask.shape:
            found = tuple(parameters[name].shape) if name in parameters else "no such parameter"
            raise ValueError(f"masks must be of the model's weights: {name} has a mask of shape {tuple(mask.shape)}, "
                             f"the model has {found}")
    state: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        mask = masks.get(name)
        passed = torch.zeros_like(parameter) if parameter.ndim < 2 else torch.ones_like(parameter)
        passed = (passed if mask is None else mask.to(parameter.device)).double()
        if passed.ndim >= 2:
            passed = passed / passed.flatten(1).sum(1).clamp(min=1).reshape(-1, *[1] * (passed.ndim - 1))
        state[name] = passed
    leaves = {name: state[name].requires_grad_() for name in masks}
    state |= {n: b.double() if b.is_floating_point() else b for n, b in model.named_buffers()}
    training = {m: m.training for m in model.modules()}
    handles = [m.register_forward_hook(lambda _, args, out: args[0]) for m in model.modules() if isinstance(m, _NORMS)]
    try:
        model.eval()
        flow = functional_call(model, {**state, **leaves}, (torch.full_like(example, _INPUT, dtype=torch.float64),))
        gradients = torch.autograd.grad(flow.sum(), list(leaves.values()), allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    live = {name: 0 if g is None else int(((g != 0) & masks[name].to(g.device)).sum())
            for name, g in zip(leaves, gradients, strict=True)}
    return Connectivity({n: int(m.sum()) for n, m in masks.items()}, live, sum(m.numel() for m in masks.values()))
