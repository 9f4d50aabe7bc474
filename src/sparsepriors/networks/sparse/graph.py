"""A mask as a graph from inputs to outputs, and how well it spreads what goes in."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparsepriors import _checks


def ramanujan_gap(mask: Tensor) -> float:
    """sqrt(d - 1) + sqrt(e - 1) - sigma_2, with d and e the mean degrees of outputs and inputs.

    A bipartite graph of these degrees is Ramanujan, the best expander that is possible, if its second singular value
    does not exceed the sum of roots (Hoory, 2006); masks are not regular, so mean degrees over units that keep any
    weight stand in. Thangarasa et al. (2024, arXiv:2303.11525) watch the gap grow in dynamic sparse training.

    Parameters
    ----------
    mask
        Boolean, ``(out, in)``, or ``(out, in, *kernel)``, whose kernel positions count as inputs of their own.

    Raises
    ------
    TypeError, ValueError
        If the mask is not boolean, has less than two axes, or keeps nothing.
    """
    m = _matrix("mask", _checks.boolean("mask", mask)).double()
    count = float(m.sum())
    if count == 0:
        raise ValueError("mask must keep at least one weight, got none")
    out, into = (count / float((m.sum(axis) > 0).sum()) for axis in (1, 0))
    return math.sqrt(out - 1) + math.sqrt(into - 1) - _singular(m)[1]


def spectral_gap(weight: Tensor, mask: Tensor) -> float:
    """1 - sigma_2 / sigma_1 of the kept weights' moduli: 0 if the graph falls apart evenly, 1 if it is of rank one.

    Raises
    ------
    TypeError, ValueError
        If the mask is not boolean or of another shape, a weight is not finite, or all kept weights are zero.
    """
    _checks.boolean("mask", mask)
    _checks.inexact("weight", weight)
    if weight.shape != mask.shape:
        raise ValueError(f"mask must have the weight's shape {tuple(weight.shape)}, got {tuple(mask.shape)}")
    first, second = _singular(_matrix("weight", torch.where(mask, weight.detach().abs(), 0)).double())
    if first == 0:
        raise ValueError("weight must have a kept entry that is not zero, got none")
    return 1 - second / first


def _matrix(name: str, x: Tensor) -> Tensor:
    if x.ndim < 2:
        raise ValueError(f"{name} must have shape (out, in, ...), got {tuple(x.shape)}")
    return x.flatten(1)


def _singular(m: Tensor) -> tuple[float, float]:
    """The two largest singular values; the second of a single row or column is 0."""
    values = torch.linalg.svdvals(m)
    return float(values[0]), float(values[1]) if len(values) > 1 else 0.0
