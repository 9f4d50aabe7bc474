"""From a pruned network to one that is faster for it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparsepriors import _checks
from sparsepriors.kernels import SpmmCosts, pack_1x1
from sparsepriors.networks.packed_linear import PackedLinear
from sparsepriors.networks.sparse_inference.follow import Pass, watched
from sparsepriors.networks.sparse_inference.layers import (
    ClampedConv,
    SparseConv1x1,
    SparseLinear,
    bounds,
    folded,
    is_clamp,
    why_not_1x1,
)
from sparsepriors.networks.sparse_inference.report import InferenceReport, LayerChoice, timed

LinearPacker = Callable[[nn.Linear, int, SpmmCosts], "nn.Module | None"]
"""``packer(linear, rows, costs)`` gives a faster layer for an input of so many rows, or ``None`` if it has none."""


class SparseInference(nn.Module):
    """A network with packed layers, for inference; made by `sparsify_for_inference`.

    Attributes
    ----------
    network
        The converted copy.
    choices
        What became of every convolution and linear layer, and why.
    """

    def __init__(self, network: nn.Module, choices: tuple[LayerChoice, ...]) -> None:
        super().__init__()
        self.network, self.choices = network, choices
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network."""
        return self.network(*args, **kwargs)

    def report(self, *, repeats: int = 7) -> InferenceReport:
        """Every layer with its choice, and the times of packed layers beside those of their dense twins, measured now.

        Parameters
        ----------
        repeats
            Runs of each layer, of which the fastest counts.
        """
        _checks.count("repeats", repeats, low=1)
        return InferenceReport(tuple(timed(choice, self.network.get_submodule(choice.name), repeats)
                                     for choice in self.choices))


def packed_linear(linear: nn.Linear, rows: int, costs: SpmmCosts) -> nn.Module | None:
    """Unstructured weights by `spmm_chw`, where the costs say that it pays."""
    packed = pack_1x1(linear.weight, linear.bias)
    return SparseLinear(packed) if costs.pays(rows, 1, packed, linear=True) else None


def packed_nm_linear(n: int, m: int) -> LinearPacker:
    """Weights of an n:m pattern by `nm_linear`; layers without it are left to the next packer."""
    def pack(linear: nn.Linear, rows: int, costs: SpmmCosts) -> nn.Module | None:
        try:
            return PackedLinear.from_linear(linear, n, m)
        except ValueError:
            return None

    return pack


def sparsify_for_inference(model: nn.Module, example: Tensor | tuple[Any, ...] | Mapping[str, Any], *,
                           min_sparsity: float = 0.5, costs: SpmmCosts | None = None,
                           linear: Sequence[LinearPacker] = (packed_linear,)) -> SparseInference:
    """A copy of a pruned network whose sparse 1 x 1 convolutions and linear layers run on packed weights.

    The network is run once on the example to see which batch normalisation and which clamp (ReLU, ReLU6, Hardtanh, as
    modules) alone follow each convolution; they are folded into it, in dense convolutions, too. A layer is packed when
    enough of its weights are exactly zero and the costs say that this is faster at the example's size; all others stay
    dense. A network that takes another path through its layers for other inputs must not be folded by one example.

    Parameters
    ----------
    model
        In evaluation mode, on the CPU; not changed.
    example
        An input, a tuple of positional arguments, or a mapping of keyword arguments, of the size that will be used.
    min_sparsity
        Share of zeros from which on a layer may be packed.
    costs
        What work costs on this machine, from `kernels.calibrate`; measured numbers of one machine by default.
    linear
        Tried in order on every linear layer that is sparse enough; the first that gives a layer decides. Put
        ``packed_nm_linear(2, 4)`` first where weights have that pattern.

    Returns
    -------
    SparseInference
        The network, with ``report()``.

    Raises
    ------
    TypeError, ValueError
        If the model is in training mode, not on the CPU, or has a sparse layer with NaN or infinite weights.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if any(m.training for m in model.modules()):
        raise ValueError("model must be in evaluation mode: call model.eval() first")
    if elsewhere := {str(p.device) for p in model.parameters()} - {"cpu"}:
        raise ValueError(f"model must be on the CPU, got parameters on {', '.join(sorted(elsewhere))}")
    if not isinstance(min_sparsity, int | float) or not 0 <= min_sparsity <= 1:
        raise ValueError(f"min_sparsity must be from 0 to 1, got {min_sparsity!r}")
    arguments, keywords = ((), example) if isinstance(example, Mapping) else (
        example if isinstance(example, tuple) else (example,), {})
    network = copy.deepcopy(model)
    work = _Conversion(watched(network, arguments, keywords), min_sparsity, costs or SpmmCosts(), tuple(linear))
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            work.convolution(name, module)
        elif isinstance(module, nn.Linear):
            work.linear_layer(name, module)
    return SparseInference(_replaced(network, work.replacements), tuple(work.choices))


class _Conversion:
    """What replaces which module, and why."""

    def __init__(self, seen: Pass, min_sparsity: float, costs: SpmmCosts, packers: tuple[LinearPacker, ...]) -> None:
        self.seen, self.min_sparsity, self.costs, self.packers = seen, min_sparsity, costs, packers
        self.replacements: dict[nn.Module, nn.Module] = {}
        self.choices: list[LayerChoice] = []

    def convolution(self, name: str, conv: nn.Conv2d) -> None:
        norm, act = self._followers(conv)
        whole = folded(conv, norm)
        shape = self.seen.shapes.get(conv)
        sparsity, why = self._sparsity(whole, shape)
        why = why_not_1x1(conv) or why
        made: nn.Module | None = None
        if not why and shape is not None:
            with _naming(name):
                packed = pack_1x1(whole.weight, whole.bias)
            if self.costs.pays(shape[0], shape[2] * shape[3], packed):
                made = SparseConv1x1(packed, *bounds(act))
            else:
                why = "dense is expected to be faster"
        if made is None and (norm is not None or act is not None):
            made = whole if act is None else ClampedConv(whole, *bounds(act))
        if made is not None:
            self.replacements[conv] = made.eval()
            self.replacements.update({m: nn.Identity().eval() for m in (norm, act) if m is not None})
        folds = tuple(type(m).__name__ for m in (norm, act) if m is not None)
        self.choices.append(LayerChoice(name, "conv", shape or (), sparsity, why, folds))

    def linear_layer(self, name: str, linear: nn.Linear) -> None:
        shape = self.seen.shapes.get(linear)
        sparsity, why = self._sparsity(linear, shape)
        if not why and shape is not None:
            rows = torch.Size(shape[:-1]).numel()
            with _naming(name):
                made = next((m for p in self.packers if (m := p(linear, rows, self.costs)) is not None), None)
            if made is None:
                why = "dense is expected to be faster"
            else:
                self.replacements[linear] = made.eval()
        self.choices.append(LayerChoice(name, "linear", shape or (), sparsity, why, ()))

    def _followers(self, conv: nn.Conv2d) -> tuple[nn.BatchNorm2d | None, nn.Module | None]:
        follower = self.seen.next.get(conv)
        norm = follower if type(follower) is nn.BatchNorm2d and follower.running_mean is not None else None
        act = follower if norm is None else self.seen.next.get(norm)
        return norm, act if act is not None and is_clamp(act) else None

    def _sparsity(self, layer: nn.Conv2d | nn.Linear, shape: tuple[int, ...] | None) -> tuple[float, str]:
        """Share of zeros, and why the layer cannot be packed."""
        weight = layer.weight.detach()
        sparsity = 1 - int(torch.count_nonzero(weight)) / max(1, weight.numel())
        if shape is None:
            return sparsity, "the example does not reach it"
        if weight.dtype != torch.float32:
            return sparsity, f"its weights are {weight.dtype}"
        if sparsity < self.min_sparsity:
            return sparsity, f"fewer than {self.min_sparsity:.0%} of its weights are zero"
        return sparsity, ""


@contextlib.contextmanager
def _naming(layer: str) -> Iterator[None]:
    """Errors about a layer's weights say which layer."""
    try:
        yield
    except ValueError as e:
        raise ValueError(f"layer {layer!r}: {e}") from e


def _replaced(network: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> nn.Module:
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):   # named_children leaves out second places
            if child is not None and child in replacements:
                setattr(parent, name, replacements[child])
    return replacements.get(network, network)
