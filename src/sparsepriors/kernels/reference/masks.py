"""Masks of the largest scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def topk_mask(scores: Tensor, k: int) -> Tensor:
    """The ``k`` largest of the last axis by a stable sort, so that ties go to the lower index."""
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    return torch.zeros(scores.shape, dtype=torch.bool, device=scores.device).scatter_(-1, order[..., :k], True)


def topk_levels(scores: Tensor, counts: Sequence[int]) -> Tensor:
    """In how many of the ``topk_mask(scores, k)`` each entry is, by one sort."""
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    places = torch.arange(scores.shape[-1], device=scores.device)
    level = torch.zeros_like(places, dtype=torch.uint8)
    for k in counts:
        level += places < k
    levels = torch.empty(scores.shape, dtype=torch.uint8, device=scores.device)
    return levels.scatter_(-1, order, level.expand_as(order))


def nm_mask(scores: Tensor, n: int, m: int) -> Tensor:
    """The ``n`` largest of every ``m`` consecutive scores of the last axis."""
    return topk_mask(scores.reshape(*scores.shape[:-1], scores.shape[-1] // m, m), n).reshape(scores.shape)
