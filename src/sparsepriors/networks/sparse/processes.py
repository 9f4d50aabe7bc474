"""Data-parallel training: what the processes must agree on."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def count() -> int:
    """Processes that train together, 1 without a process group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def average(x: Tensor) -> None:
    """Put the mean over the processes into ``x``."""
    if count() > 1:
        distributed.all_reduce(x)
        x /= count()


def share(mask: Tensor) -> None:
    """Give every process the mask of process 0, in place."""
    if count() > 1:
        bits = mask.to(torch.uint8)
        distributed.broadcast(bits, 0)
        mask.copy_(bits.bool())
