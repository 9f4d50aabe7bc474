"""Loss, logits and accuracy of classifiers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional

from sparsepriors import _checks


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> Float[Tensor, ""]:
    """Mean cross entropy of a batch of inputs and labels: a loss for `TrainLoop`, which draws nothing."""
    inputs, labels = batch
    return functional.cross_entropy(model(inputs), labels)


def predict(model: nn.Module, inputs: Shaped[Tensor, "n ..."], *, batch: int = 1000,
            prepare: Callable[[Tensor], Tensor] | None = None) -> Float[Tensor, "n classes"]:
    """Logits of the inputs, on the model's device.

    Parameters
    ----------
    model
        Run in evaluation mode and without gradients; its modes are put back.
    inputs
        What is classified, on any device.
    batch
        Inputs per forward pass.
    prepare
        Makes what the model takes of a batch of inputs: `ImageSet.normalise` of bytes.

    Raises
    ------
    TypeError, ValueError
        If there is no input, or ``batch`` is no positive integer.
    """
    _checks.count("batch", batch, low=1)
    if inputs.ndim == 0 or len(inputs) == 0:
        raise ValueError(f"inputs must be at least one, got shape {tuple(inputs.shape)}")
    device = next((p.device for p in model.parameters()), inputs.device)
    training = {m: m.training for m in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            rows = (part.to(device) for part in inputs.split(batch))
            return torch.cat([model(part if prepare is None else prepare(part)) for part in rows])
    finally:
        for module, mode in training.items():
            module.training = mode


def accuracy(model: nn.Module, inputs: Shaped[Tensor, "n ..."], labels: Int64[Tensor, " n"], *, batch: int = 1000,
             top: int = 1, prepare: Callable[[Tensor], Tensor] | None = None) -> float:
    """Share of the inputs whose label is among the ``top`` largest logits; see `predict` for the other parameters.

    Raises
    ------
    TypeError, ValueError
        If there is not one label for each input, or a number is out of range.
    """
    if inputs.ndim == 0 or len(inputs) == 0 or labels.shape != (len(inputs),):
        raise ValueError(f"labels must be one for each input and at least one, got shapes {tuple(inputs.shape)} "
                         f"and {tuple(labels.shape)}")
    logits = predict(model, inputs, batch=batch, prepare=prepare)
    _checks.count("top", top, low=1, high=logits.shape[1])
    return int((logits.topk(top).indices == labels.to(logits.device)[:, None]).sum()) / len(inputs)
