"""What trainers of other libraries need of a sparsifier: a plain form for their checkpoints, and a way to continue."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparsepriors.networks.sparse.plan import SparsePlan
from sparsepriors.networks.sparse.score import Probe
from sparsepriors.networks.sparse.sparsifier import Sparsifier

_STORED, _MASK = ".parametrizations.weight.original", ".parametrizations.weight.0.mask"


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a model with masks under the names of the plain model; masks are left out.

    Weights are those that are stored. Under straight-through rules those outside the masks are not zero: the network
    that such a state describes is sparse once its sparsifier is finalized.
    """
    return {k.replace(_STORED, ".weight"): v for k, v in state.items() if not k.endswith(_MASK)}


def continued(model: nn.Module, plan: SparsePlan, optimizer: torch.optim.Optimizer, *, total_steps: int,
              generator: torch.Generator, probe: Probe | None, state: Mapping[str, Any] | None) -> Sparsifier:
    """A sparsifier that begins, or that goes on from ``state`` with the model and the optimizer as they are."""
    if state is None:
        return Sparsifier(model, plan, optimizer, total_steps=total_steps, generator=generator, probe=probe)
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    memory = copy.deepcopy(optimizer.state_dict())
    sparsifier = Sparsifier(model, plan, optimizer, total_steps=total_steps, generator=generator, probe=probe)
    sparsifier.load_state_dict(state)
    with torch.no_grad():   # drawing the first masks has changed both
        for name, p in model.named_parameters():
            p.copy_(weights[name.replace(_STORED, ".weight")])
    optimizer.load_state_dict(memory)
    return sparsifier
