"""Loss and accuracy of classifiers."""

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


def accuracy(model: nn.Module, inputs: Shaped[Tensor, "n ..."], labels: Int64[Tensor, " n"], *, batch: int = 1000,
             top: int = 1, prepare: Callable[[Tensor], Tensor] | None = None) -> float:
    """Share of the inputs whose label is among the ``top`` largest logits.

    Parameters
    ----------
    model
        Run in evaluation mode and without gradients; its modes are put back.
    inputs, labels
        What is classified, on any device.
    batch
        Inputs per forward pass.
    top
        How many answers count.
    prepare
        Makes what the model takes of a batch of inputs: `ImageSet.normalise` of bytes.

    Raises
    ------
    TypeError, ValueError
        If there is not one label for each input, or a number is out of range.
    """
    _checks.count("batch", batch, low=1)
    if inputs.ndim == 0 or len(inputs) == 0 or labels.shape != (len(inputs),):
        raise ValueError(f"labels must be one for each input and at least one, got shapes {tuple(inputs.shape)} "
                         f"and {tuple(labels.shape)}")
    device = next((p.device for p in model.parameters()), inputs.device)
    training = {m: m.training for m in model.modules()}
    right = 0
    try:
        model.eval()
        with torch.no_grad():
            for rows, wanted in zip(inputs.split(batch), labels.split(batch), strict=True):
                rows = rows.to(device)
                logits = model(rows if prepare is None else prepare(rows))
                _checks.count("top", top, low=1, high=logits.shape[1])
                right += int((logits.topk(top).indices == wanted.to(device)[:, None]).sum())
    finally:
        for module, mode in training.items():
            module.training = mode
    return right / len(inputs)
