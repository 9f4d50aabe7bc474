"""Masks of the largest scores."""

from __future__ import annotations

import torch
from torch import Tensor


def topk_mask(scores: Tensor, k: int) -> Tensor:
    """The ``k`` largest of the last axis by a stable sort, so that ties go to the lower index."""
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    return torch.zeros(scores.shape, dtype=torch.bool, device=scores.device).scatter_(-1, order[..., :k], True)


def nm_mask(scores: Tensor, n: int, m: int) -> Tensor:
    """The ``n`` largest of every ``m`` consecutive scores of the last axis."""
    return topk_mask(scores.reshape(*scores.shape[:-1], scores.shape[-1] // m, m), n).reshape(scores.shape)
