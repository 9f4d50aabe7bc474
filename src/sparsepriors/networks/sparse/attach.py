"""Selected weights become parametrizations of the model, and plain parameters again."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sparsepriors.networks.sparse.plan import SparsePlan
from sparsepriors.networks.sparse.rule import MaskedWeight
from sparsepriors.networks.sparse.select import Selected, select


def fitting(model: nn.Module, plan: SparsePlan, total: int) -> tuple[dict[str, Selected], list[str]]:
    """The selected weights that fit every pattern of the plan, and notes on those that do not."""
    selected, unfit = select(model, plan.where), []
    for name, s in list(selected.items()):
        for pattern in plan.patterns(total):
            try:
                pattern._fits(s.parameter)
            except ValueError as e:
                if not plan.skip_unfit:
                    raise ValueError(f"{name} of shape {tuple(s.parameter.shape)} cannot take {pattern}: {e}; leave it "
                                     f"out with where=Selector(skip=...) or skip_unfit=True") from e
                unfit.append(f"{name} of shape {tuple(s.parameter.shape)} does not fit {pattern} and stays dense")
                del selected[name]
                break
    if not selected:
        raise ValueError(f"no selected weight fits the pattern {plan.pattern}")
    return selected, unfit


def sharing(model: nn.Module, selected: Mapping[str, Selected]) -> list[str]:
    """Notes on weights that more than one module holds."""
    holders: dict[int, list[tuple[str, str]]] = {}
    for layer, module in model.named_modules(remove_duplicate=False):
        for kind, parameter in module._parameters.items():
            holders.setdefault(id(parameter), []).append((layer, kind))
    notes = []
    for name, s in selected.items():
        if s.shared:
            notes.append(f"{name} is shared with {', '.join(s.shared)} and masked once")
        apart = [f"{layer}.{kind}" for layer, kind in holders[id(s.parameter)] if layer not in (s.layer, *s.shared)]
        if apart:
            notes.append(f"{name} is also {', '.join(apart)}, which is not selected: there it is used as it is stored, "
                         f"without the mask")
    return notes


def must_hold(optimizer: torch.optim.Optimizer, selected: Mapping[str, Selected]) -> None:
    """Raise `ValueError` unless the optimizer holds every selected weight."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    missing = [name for name, s in selected.items() if id(s.parameter) not in held]
    if missing:
        raise ValueError(f"the optimizer does not hold {', '.join(missing[:5])}"
                         f"{' and others' if len(missing) > 5 else ''}; build it on the parameters of this model")


def attach(model: nn.Module, selected: Mapping[str, Selected], cells: Mapping[str, MaskedWeight]) -> None:
    """Let the layers use their weights through the cells; the stored parameters stay the same objects.

    If one layer refuses, the others are put back.
    """
    done = []
    try:
        for name, module in _modules(model, selected):
            parametrize.register_parametrization(module, "weight", cells[name])
            done.append(module)
    except Exception:
        for module in done:
            _plain(module)
        raise


def detach(model: nn.Module, selected: Mapping[str, Selected]) -> None:
    """Leave the weights that the layers use as plain parameters, in their old place in the layers."""
    for _, module in _modules(model, selected):
        _plain(module)


def state_of(model: nn.Module, cells: Mapping[str, MaskedWeight]) -> dict[str, Tensor]:
    """Copies of all parameters and buffers but the masks."""
    masks = {id(cell.mask) for cell in cells.values()}
    everything = [*model.named_parameters(), *model.named_buffers()]
    return {name: t.detach().clone() for name, t in everything if id(t) not in masks}


def put_back(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give parameters and buffers the values that `state_of` copied."""
    here = dict([*model.named_parameters(), *model.named_buffers()])
    with torch.no_grad():
        for name, value in state.items():
            here[name].copy_(value)


def _modules(model: nn.Module, selected: Mapping[str, Selected]) -> list[tuple[str, nn.Module]]:
    """The modules that hold selected weights, each once, also where a model has one under several names."""
    named = dict(model.named_modules(remove_duplicate=False))
    found = {id(named[layer]): (name, named[layer]) for name, s in selected.items() for layer in (s.layer, *s.shared)}
    return list(found.values())


def _plain(module: nn.Module) -> None:
    names = ["weight", *(n for n in module._parameters if n != "weight")]   # as linear and convolutional layers begin
    parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    for name in names:   # optimizers and their saved states go by order
        module._parameters[name] = module._parameters.pop(name)
