"""Pruning a trained network in one shot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsepriors import _checks
from sparsepriors.networks.ledger import SparsityReport, sparsity_report
from sparsepriors.networks.sparse import Distribution, MagnitudeScore, Score, Uniform, select
from sparsepriors.networks.sparse.select import Where
from sparsepriors.priors.patterns import Pattern


@dataclass(frozen=True)
class Pruned:
    """What `prune` did.

    Attributes
    ----------
    masks
        Boolean masks by parameter name, True where a weight was kept.
    report
        Weights, bytes and multiply-adds, layer by layer.
    """

    masks: dict[str, Tensor]
    report: SparsityReport


def prune(model: nn.Module, pattern: Pattern, *, score: Score | None = None, where: Where | None = None,
          distribution: Distribution | None = None, example: Tensor | tuple[Any, ...] | None = None) -> Pruned:
    """Set the weights outside a sparsity pattern to zero, in place, once and without retraining.

    The pattern is the same object that constrains a regression or packs a kernel: with the default score and
    distribution each selected weight W becomes ``pattern.project(W)``, its nearest matrix in the pattern. Nothing is
    attached to the model, biases and normalisation are not touched, and if anything is refused no weight has changed.
    Whole channels are zeroed, not removed: shapes stay as they are.

    Magnitude pruning is the first step of Han, Pool, Tran and Dally (2015, arXiv:1506.02626); they retrain the kept
    weights afterwards, which this function does not.

    Parameters
    ----------
    model
        Changed in place; copy it first to keep the dense one.
    pattern
        What is kept, such as ``Unstructured(0.5)``, ``NM(2, 4)`` or ``Channel(0.8)``.
    score
        What a weight is worth; `MagnitudeScore` by default.
    where
        Which weights; every linear and convolutional one by default (`Selector`).
    distribution
        How the density is spread over the layers: `Uniform` (default), `ERK` or `Global`.
    example
        An input of the model (or a tuple of arguments), for counting multiply-adds.

    Raises
    ------
    TypeError, ValueError
        If nothing is selected, if a layer does not fit the pattern (named with its shape), if a weight or score is not
        finite, or if the distribution cannot spread this pattern.
    """
    if not isinstance(pattern, Pattern):
        raise TypeError(f"pattern must be a sparsity pattern such as Unstructured(0.5), got {type(pattern).__name__}")
    score = MagnitudeScore() if score is None else score
    distribution = Uniform() if distribution is None else distribution
    selected = select(model, where)
    scores = {}
    for name, s in selected.items():
        weight = _checks.inexact(name, s.parameter.detach())
        scores[name] = score(name, weight)
        if scores[name].shape != weight.shape:
            raise ValueError(f"the score of {name} must have the weight's shape {tuple(weight.shape)}, "
                             f"got {tuple(scores[name].shape)}")
    masks = distribution.masks(pattern, scores)
    report = sparsity_report(model, masks, example=example)
    with torch.no_grad():
        for name, s in selected.items():
            s.parameter.copy_(torch.where(masks[name], s.parameter, 0))
    return Pruned(masks, report)
