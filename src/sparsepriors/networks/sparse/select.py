"""Where sparsity goes: which weights of a model take part."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.utils import parametrize

from sparsepriors._described import Described

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""The layers whose ``weight`` is a matrix or a bank of filters."""

Where = Callable[[str, nn.Module, nn.Parameter], bool]


@dataclass(frozen=True)
class Selector(Described):
    """Every weight of a linear or convolutional layer, except the layers named.

    Biases, normalisation, embeddings and class tokens are never selected. Any predicate of the same signature,
    ``(layer name, module, weight) -> bool``, may stand in its place.

    Parameters
    ----------
    skip
        Names of layers to leave out: the full dotted name or any of its parts, with the wildcards ``*`` and ``?``.
    only
        If given, only layers that match one of these are taken.
    """

    skip: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in ("skip", "only"):
            names = getattr(self, field)
            if not isinstance(names, tuple) or not all(isinstance(n, str) and n for n in names):
                raise TypeError(f"{field} must be a tuple of layer names, got {names!r}")

    def __call__(self, name: str, module: nn.Module, parameter: nn.Parameter) -> bool:
        if any(fits_name(name, p) for p in self.skip):
            return False
        return not self.only or any(fits_name(name, p) for p in self.only)


@dataclass(frozen=True)
class Selected:
    """One selected weight.

    Attributes
    ----------
    layer
        Dotted name of the first module that holds it.
    parameter
        The weight.
    shared
        Names of further modules that hold the same weight.
    """

    layer: str
    parameter: nn.Parameter
    shared: tuple[str, ...] = ()


def select(model: nn.Module, where: Where | None = None) -> dict[str, Selected]:
    """The selected weights by parameter name (``LAYER.weight``), in the model's order; a shared one appears once.

    Raises
    ------
    ValueError
        If nothing is selected, if a name in a `Selector` fits no layer, or if a layer's weight is computed by another
        tool (a parametrization or a mask of ``torch.nn.utils.prune``).
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    where = Selector() if where is None else where
    layers = {name: module for name, module in model.named_modules(remove_duplicate=False)
              if isinstance(module, LAYERS)}
    if isinstance(where, Selector):
        check_names((*where.skip, *where.only), list(layers), "layer")
    first: dict[int, str] = {}
    found: dict[str, Selected] = {}
    for layer, module in layers.items():
        weight = module._parameters.get("weight")
        if weight is None:
            raise ValueError(f"the weight of layer {layer!r} is not a parameter of its own; make the masks or "
                             f"parametrizations of another tool permanent first")
        if not where(layer, module, weight):
            continue
        if id(weight) in first:
            name = first[id(weight)]
            found[name] = Selected(found[name].layer, weight, (*found[name].shared, layer))
        else:
            name = f"{layer}.weight" if layer else "weight"
            first[id(weight)] = name
            found[name] = Selected(layer, weight)
    if not found:
        raise ValueError(f"no layer is selected; the model's linear and convolutional layers are: "
                         f"{', '.join(layers) or 'none'}")
    return found


def stored_weight(module: nn.Module) -> nn.Parameter | None:
    """The parameter behind a layer's weight: itself, or the one that a parametrization stores."""
    if parametrize.is_parametrized(module, "weight"):
        parametrizations = module.parametrizations
        assert isinstance(parametrizations, nn.ModuleDict)
        return parametrizations["weight"]._parameters.get("original")
    return module._parameters.get("weight")


def fits_name(name: str, pattern: str) -> bool:
    """Whether a dotted name, or any of its parts, fits a pattern with the wildcards ``*`` and ``?``."""
    return fnmatchcase(name, pattern) or any(fnmatchcase(part, pattern) for part in name.split("."))


def check_names(patterns: Sequence[str], names: Sequence[str], what: str) -> None:
    """Raise `ValueError` with near names if a pattern fits none of the names, which are those of a ``what``."""
    for pattern in patterns:
        if not any(fits_name(name, pattern) for name in names):
            near = difflib.get_close_matches(pattern, {part for n in names for part in (n, *n.split("."))}, n=3)
            raise ValueError(f"no {what} is named {pattern!r}" + (f"; near: {', '.join(near)}" if near else ""))
