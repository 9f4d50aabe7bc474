"""Pruning a trained network in one shot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsepriors.networks.sparse.distribute import Distribution, Uniform
from sparsepriors.networks.sparse.ledger import SparsityReport, sparsity_report
from sparsepriors.networks.sparse.score import MagnitudeScore, Probe, Score, ScoreFunction, View, finite_weights
from sparsepriors.networks.sparse.select import Where, select
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


def prune(model: nn.Module, pattern: Pattern, *, score: Score | Callable[[str, Tensor], Tensor] | None = None,
          where: Where | None = None, distribution: Distribution | None = None,
          generator: torch.Generator | None = None, probe: Probe | None = None,
          example: Tensor | tuple[Any, ...] | None = None) -> Pruned:
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
        What a weight is worth; `MagnitudeScore` by default. Any function of name and weight will do.
    where
        Which weights; every linear and convolutional one by default (`Selector`).
    distribution
        How the density is spread over the layers: `Uniform` (default), `ERK` or `Global`.
    generator, probe
        For scores and distributions that draw, and for scores that try the network on data.
    example
        An input of the model (or a tuple of arguments), for counting multiply-adds.

    Raises
    ------
    TypeError, ValueError
        If nothing is selected, if a layer does not fit the pattern (named with its shape), if a weight is not finite,
        if the score lacks what it needs, or if the distribution cannot spread this pattern.
    FloatingPointError
        If a score is not finite.
    """
    if not isinstance(pattern, Pattern):
        raise TypeError(f"pattern must be a sparsity pattern such as Unstructured(0.5), got {type(pattern).__name__}")
    if not isinstance(score, Score):
        score = MagnitudeScore() if score is None else ScoreFunction(score)
    distribution = Uniform() if distribution is None else distribution
    selected = select(model, where)
    weights = finite_weights({name: s.parameter for name, s in selected.items()})
    view = View(weights, generator, model=model, density=getattr(pattern, "density", None), probe=probe)
    masks = distribution.masks(pattern, score(view), generator=generator)
    report = sparsity_report(model, masks, example=example)
    with torch.no_grad():
        for name, s in selected.items():
            s.parameter.copy_(torch.where(masks[name], s.parameter, 0))
    return Pruned(masks, report)
