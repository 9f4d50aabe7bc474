"""What the networks of this package share: the check of their input and the start of their weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEMS = ("imagenet", "cifar")
"""How a network begins: for photographs, or for small images."""


def check_images(x: Tensor, channels: int, *, low: int = 1) -> None:
    """Raise `ValueError` unless ``x`` is a batch of images with these channels and sides of at least ``low``."""
    if x.ndim != 4 or x.shape[1] != channels or min(x.shape[2:]) < low:
        raise ValueError(f"x must have shape (batch, {channels}, height, width) with sides of at least {low}, "
                         f"got {tuple(x.shape)}")


def start_convolutions(model: nn.Module) -> None:
    """Draw the weights of the convolutions as He et al. (2015, arXiv:1502.01852) do, by the size of the output."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def start_by_inputs(model: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw the weights of convolutions and linear layers as He et al. (2015) do, by the size of the input."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, generator=generator)
