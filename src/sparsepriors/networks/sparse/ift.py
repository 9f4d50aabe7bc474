"""Sparse iso-FLOP transformations: larger sparse layers at the multiply-adds of the dense ones they replace.

Thangarasa, Saxena, Gupta and Lie (2024, arXiv:2303.11525). With s the sparsity of what is masked, a layer from D to E
numbers (of a convolution D counts the kernel's positions) becomes

    wide          k D to k E, k = sqrt(1 / (1 - s));
    parallel      the sum of 1 / (1 - s) branches, each followed by its own non-linearity;
    factorized    D to d to E with a non-linearity between, d = D E / ((D + E) (1 - s));
    doped         itself, sparse, plus a dense product of rank d = s D E / (D + E).

Widths are whole numbers and the first and last layer may stay dense, so that s does not give exactly the dense
network's multiply-adds: the density of what is masked is then solved for.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsepriors import _checks
from sparsepriors.networks.models.images import start_convolutions
from sparsepriors.networks.models.resnet import ChannelPad
from sparsepriors.networks.sparse.distribute import PerLayer, Uniform
from sparsepriors.networks.sparse.ledger import sparsity_report
from sparsepriors.networks.sparse.plan import SparsePlan
from sparsepriors.networks.sparse.presets import preset
from sparsepriors.networks.sparse.select import LAYERS, Selector, select
from sparsepriors.priors.patterns import kept

FAMILIES = ("wide", "parallel", "factorized", "doped")
ENDS = ("stem", "head")

_Layer = nn.Linear | nn.Conv2d
_Norm = nn.BatchNorm1d | nn.BatchNorm2d


@dataclass(frozen=True)
class IsoFLOP:
    """A transformed network and what must be sparse in it.

    Attributes
    ----------
    model
        With fresh weights, all of them present; `plan` takes out what is too much.
    where
        The layers that are masked.
    distribution, density
        How much of them is kept.
    macs, budget
        Multiply-adds of one input with the kept weights, and of the network that was transformed.
    """

    model: nn.Module
    where: Selector
    distribution: PerLayer
    density: float
    macs: int
    budget: int

    def plan(self, name: str = "sift-rigl", **options: Any) -> SparsePlan:
        """A preset with these layers and this density: the published one, or ``"set"``, ``"random"`` (masks stay)."""
        return preset(name, density=self.density, distribution=self.distribution, where=self.where, **options)


def sparse_ift(model: nn.Module, family: str, sparsity: float, *, example: Tensor, generator: torch.Generator,
               keep_dense: tuple[str, ...] = ENDS, mask_uv: bool = False, distribution: PerLayer | None = None,
               tol: float = 1e-3) -> IsoFLOP:
    """Make a network larger and sparse, at the multiply-adds that it has.

    Layers are drawn anew, linear ones as PyTorch does and convolutions as `start_convolutions`; nothing makes up for
    the weights that are taken out, as nothing does in the paper.

    Parameters
    ----------
    model
        Linear layers, 2-D convolutions and batch normalisation, in any modules; it is not changed.
    family
        One of `FAMILIES`.
    sparsity
        s, in [0, 1); 0 gives a copy.
    example
        A batch of one input.
    generator
        The source of the new weights.
    keep_dense
        Which ends are not masked: ``"stem"``, the first layer that an input meets, and ``"head"``, the last. The wide
        family widens their inner sides nevertheless; the others leave them as they are.
    mask_uv
        Mask the low-rank part of the doped family, too, as the published code does.
    distribution
        How the density is spread over what is masked, `Uniform` by default.
    tol
        How far the multiply-adds may be from those of ``model``, relatively.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, a layer cannot be transformed (it is named), the transformed network does not
        run, or no density meets the multiply-adds.
    """
    _checks.one_of("family", family, FAMILIES)
    _checks.nonnegative("sparsity", sparsity)
    if sparsity >= 1:
        raise ValueError(f"sparsity must be in [0, 1), got {sparsity}")
    for end in keep_dense:
        _checks.one_of("keep_dense", end, ENDS)
    budget = sparsity_report(model, example=example).macs_dense
    assert budget is not None
    order, padded = _traced(model, example)
    skipped = {order[0]} if "stem" in keep_dense else set()
    skipped |= {order[-1]} if "head" in keep_dense else set()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
        if sparsity == 0:
            larger, masked = copy.deepcopy(model), [n for n in order if n not in skipped]
        elif family == "wide":
            larger = _widened(model, math.sqrt(1 / (1 - sparsity)), order, padded)
            masked = [n for n in order if n not in skipped]
        else:
            larger, masked = _replaced(model, family, sparsity, [n for n in order if n not in skipped], mask_uv)
    _must_run(larger, example, family)
    where = Selector(only=tuple(masked))
    if wrong := {s.layer for s in select(larger, where).values()} ^ set(masked):
        raise ValueError(f"layers cannot be told apart by name: {', '.join(sorted(wrong))} matches that of another")
    distribution = Uniform() if distribution is None else distribution
    density = solve_budget(larger, budget, where=where, example=example, distribution=distribution, tol=tol)
    return IsoFLOP(larger, where, distribution, density,
                   round(_costs(larger, where, example, distribution)(density)), budget)


def solve_budget(model: nn.Module, budget: float, *, where: Selector, example: Tensor,
                 distribution: PerLayer | None = None, tol: float = 1e-3) -> float:
    """The density at which the selected weights and all other layers together do ``budget`` multiply-adds.

    Counts are those of the masks that the distribution gives, in whole weights; normalisation and activation are not
    counted (the published budgets count them).

    Raises
    ------
    ValueError
        If what is not selected costs more alone, if all weights together cost less, or if no density comes within
        ``tol`` of the budget; the message has both numbers.
    """
    _checks.positive("budget", budget)
    cost = _costs(model, where, example, Uniform() if distribution is None else distribution)
    low, high = 1e-9, 1.0
    if (least := cost(low)) > budget * (1 + tol):
        raise ValueError(f"the layers that are not masked, and one weight of each that is, take {least:,.0f} "
                         f"multiply-adds, more than the budget of {budget:,.0f}")
    if (most := cost(high)) < budget * (1 - tol):
        raise ValueError(f"all weights together take {most:,.0f} multiply-adds, less than the budget of {budget:,.0f}")
    if most <= budget:
        return high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) <= budget else (low, middle)
    density = min((low, high), key=lambda d: abs(cost(d) - budget))
    if abs(cost(density) - budget) > tol * budget:
        raise ValueError(f"no density comes within {tol:g} of the budget of {budget:,.0f} multiply-adds: the nearest "
                         f"takes {cost(density):,.0f}")
    return density


class Parallel(nn.Module):
    """The sum of branches, each a layer of its own with a ReLU (linear) or batch normalisation (convolutions)."""

    def __init__(self, layer: _Layer, branches: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_like(layer) for _ in range(branches))
        self.after = nn.ModuleList(nn.BatchNorm2d(layer.out_channels) if isinstance(layer, nn.Conv2d) else nn.ReLU()
                                   for _ in range(branches))

    def forward(self, x: Tensor) -> Tensor:
        """Add the branches up."""
        return torch.stack([after(branch(x)) for branch, after in zip(self.branches, self.after, strict=True)]).sum(0)


class Factorized(nn.Module):
    """Two layers with a ReLU, and of convolutions batch normalisation, between: the kernel is in the first."""

    def __init__(self, layer: _Layer, rank: int) -> None:
        super().__init__()
        self.down, self.up = _like(layer, rank, bias=False), _pointwise(layer, rank, bias=layer.bias is not None)
        self.between = nn.BatchNorm2d(rank) if isinstance(layer, nn.Conv2d) else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Down to the rank and up again."""
        return self.up(nn.functional.relu(self.between(self.down(x))))


class Doped(nn.Module):
    """The layer itself plus a linear product of low rank."""

    def __init__(self, layer: _Layer, rank: int) -> None:
        super().__init__()
        self.whole, self.down = _like(layer), _like(layer, rank, bias=False)
        self.up = _pointwise(layer, rank, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add both."""
        return self.whole(x) + self.up(self.down(x))


def _traced(model: nn.Module, example: Tensor) -> tuple[list[str], dict[str, int]]:
    """Layers in the order in which an input meets them, and the channels that reach each padded shortcut."""
    order: list[str] = []
    padded: dict[str, int] = {}
    training = {m: m.training for m in model.modules()}

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            if isinstance(module, ChannelPad):
                padded[name] = args[0].shape[1]
            elif name not in order:
                order.append(name)

        return hook

    handles = [m.register_forward_pre_hook(note(n)) for n, m in model.named_modules()
               if isinstance(m, (*LAYERS, ChannelPad))]
    try:
        model.eval()
        with torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    if not order:
        raise ValueError("model has no linear or convolutional layer that the example reaches")
    return order, padded


def _widened(model: nn.Module, factor: float, order: list[str], padded: dict[str, int]) -> nn.Module:
    """Every inner width times ``factor``; equal widths stay equal, so that what is added still fits."""
    def wide(width: int) -> int:
        return round(factor * width)

    larger = copy.deepcopy(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            inputs, outputs = _sides(module)
            new = _like(module, outputs if name == order[-1] else wide(outputs),
                        inputs if name == order[0] else wide(inputs), name=name)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            new = _norm(module, wide(module.num_features))
        elif isinstance(module, ChannelPad):
            before = padded[name]
            new = ChannelPad(wide(before + module.channels) - wide(before), module.stride)
        elif any(p is not None for p in module._parameters.values()):
            raise ValueError(f"{name or 'the model'} of type {type(module).__name__} has parameters whose widths are "
                             f"not known; the wide family takes linear layers, 2-D convolutions and batch "
                             f"normalisation")
        else:
            continue
        _put(larger, name, new)
    return larger


def _replaced(model: nn.Module, family: str, sparsity: float, names: list[str],
              mask_uv: bool) -> tuple[nn.Module, list[str]]:
    """Every named layer by its larger form, and the names of the layers that are masked."""
    larger = copy.deepcopy(model)
    masked: list[str] = []
    for name in names:
        layer = model.get_submodule(name)
        if not isinstance(layer, nn.Linear | nn.Conv2d) or (isinstance(layer, nn.Conv2d) and layer.groups > 1):
            raise ValueError(f"{name} of type {type(layer).__name__} cannot be transformed: linear layers and 2-D "
                             f"convolutions without groups can")
        inputs, outputs = layer.weight[0].numel(), len(layer.weight)
        if family == "parallel":
            new, parts = Parallel(layer, branches := round(1 / (1 - sparsity))), [
                f"branches.{i}" for i in range(branches)]
        elif family == "factorized":
            new = Factorized(layer, math.ceil(inputs * outputs / ((inputs + outputs) * (1 - sparsity))))
            parts = ["down", "up"]
        else:
            rank = math.floor(sparsity * inputs * outputs / (inputs + outputs))
            if rank == 0:
                raise ValueError(f"{name} of shape {tuple(layer.weight.shape)} leaves no rank for a dense part at "
                                 f"sparsity {sparsity:g}")
            new, parts = Doped(layer, rank), ["whole", *(("down", "up") if mask_uv else ())]
        _put(larger, name, new)
        masked += [f"{name}.{part}" if name else part for part in parts]
    return larger, masked


def _must_run(model: nn.Module, example: Tensor, family: str) -> None:
    training = {m: m.training for m in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            model(example)
    except RuntimeError as e:
        raise ValueError(f"the {family} network does not run, so a width is written into its code or a layer flattens "
                         f"an image: {e}") from e
    finally:
        for module, mode in training.items():
            module.training = mode


def _costs(model: nn.Module, where: Selector, example: Tensor, distribution: PerLayer) -> Callable[[float], float]:
    """Multiply-adds of one input as a function of the density."""
    selected = select(model, where)
    layers = {r.name: r for r in sparsity_report(model, example=example).layers}
    shapes = {n: layers[n].shape for n in selected}
    other = sum(r.macs_dense or 0 for n, r in layers.items() if n not in selected)

    def cost(density: float) -> float:
        each = distribution.densities(shapes, density)
        return other + sum((layers[n].macs_dense or 0) / layers[n].weights * kept(layers[n].weights, d)
                           for n, d in each.items())

    return cost


def _sides(layer: _Layer) -> tuple[int, int]:
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels


def _like(layer: _Layer, outputs: int | None = None, inputs: int | None = None, *, bias: bool | None = None,
          name: str = "") -> _Layer:
    """A fresh layer of the same kind with other sides."""
    old = _sides(layer)
    inputs, outputs = old[0] if inputs is None else inputs, old[1] if outputs is None else outputs
    bias = layer.bias is not None if bias is None else bias
    options: dict[str, Any] = {"bias": bias, "device": layer.weight.device, "dtype": layer.weight.dtype}
    if isinstance(layer, nn.Linear):
        return nn.Linear(inputs, outputs, **options)
    groups = layer.groups
    if groups == old[0] and old[0] == old[1]:
        groups = inputs   # depthwise
    elif groups > 1:
        raise ValueError(f"{name} has {groups} groups; convolutions are widened whole or depthwise")
    for option in ("kernel_size", "stride", "padding", "dilation", "padding_mode"):
        options[option] = getattr(layer, option)
    new = nn.Conv2d(inputs, outputs, groups=groups, **options)
    start_convolutions(new)
    return new


def _pointwise(layer: _Layer, inputs: int, *, bias: bool) -> _Layer:
    """From ``inputs`` to the layer's outputs, without a kernel."""
    options: dict[str, Any] = {"bias": bias, "device": layer.weight.device, "dtype": layer.weight.dtype}
    if isinstance(layer, nn.Linear):
        return nn.Linear(inputs, layer.out_features, **options)
    new = nn.Conv2d(inputs, layer.out_channels, 1, **options)
    start_convolutions(new)
    return new


def _norm(norm: _Norm, features: int) -> _Norm:
    new = type(norm)(features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    return new if norm.weight is None else new.to(norm.weight.device, norm.weight.dtype)


def _put(model: nn.Module, name: str, new: nn.Module) -> None:
    if not name:
        raise ValueError(f"model must hold its layers in a module, got a bare {type(model).__name__}")
    parent, _, child = name.rpartition(".")
    model.get_submodule(parent).register_module(child, new)
