"""Training a part of the weights alone, the others at the values they have, inside anybody's loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparsepriors import _checks
from sparsepriors.networks.sparse.rule import zero_outside
from sparsepriors.networks.sparse.steps import before_step


class FreezeOutside:
    """Keeps weights outside masks as they are while an optimizer trains those inside.

    Gradients outside become zero right before every step, after whatever the loop does to them (clipping sees whole
    gradients), and what momentum, weight decay or an older state of the optimizer would move is put back after it.
    Moments of a fresh optimizer stay zero there.

    Unlike a `Sparsifier` nothing is pruned: weights outside keep their values and take part in the forward pass.

    Parameters
    ----------
    model
        The model.
    optimizer
        Holds every parameter that has a mask.
    masks
        By parameter name, True where the weight is trained. Parameters without a mask are trained as before.

    Raises
    ------
    TypeError, ValueError
        If a mask is not boolean, fits no parameter, or the optimizer lacks its parameter.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, masks: Mapping[str, Tensor]) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
        parameters = dict(model.named_parameters())
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self._cells: list[tuple[nn.Parameter, Tensor, Tensor]] = []
        for name, mask in masks.items():
            _checks.boolean(f"masks[{name!r}]", mask)
            parameter = parameters.get(name)
            if parameter is None or parameter.shape != mask.shape:
                found = "no such parameter" if parameter is None else f"shape {tuple(parameter.shape)}"
                raise ValueError(f"masks[{name!r}] of shape {tuple(mask.shape)} does not fit the model: {found}")
            if id(parameter) not in held:
                raise ValueError(f"the optimizer does not hold {name}; build it on the parameters of this model")
            self._cells.append((parameter, mask.to(parameter.device), parameter.detach().clone()))
        self._handles = [before_step(optimizer, self._mask_gradients),
                         optimizer.register_step_post_hook(lambda *_: self._put_back())]

    def remove(self) -> None:
        """Let the optimizer train everything again."""
        for handle in self._handles:
            handle.remove()

    def _mask_gradients(self) -> None:
        for parameter, mask, _ in self._cells:
            if parameter.grad is not None:
                zero_outside(parameter.grad, mask)

    @torch.no_grad()
    def _put_back(self) -> None:
        for parameter, mask, kept in self._cells:
            parameter.copy_(torch.where(mask, parameter, kept))

    def __enter__(self) -> FreezeOutside:
        return self

    def __exit__(self, *_: Any) -> None:
        self.remove()
