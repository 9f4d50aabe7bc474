"""What channels without scale still pass on, a constant of their shift, as part of the layers that use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from sparsepriors.networks.sparse.channels import ChannelGroup


def slots(group: ChannelGroup, settled: Mapping[str, Tensor]) -> Tensor:
    """Which channels of a group stay under settled masks."""
    stay = torch.ones(group.size, dtype=torch.bool, device="cpu")
    for name, at in group.norms.items():
        stay &= settled[name][at[:, 0]]
    return stay


def varying(masked: nn.Module, groups: Sequence[ChannelGroup],
            settled: Mapping[str, Tensor]) -> list[tuple[ChannelGroup, list[str]]]:
    """Groups that lose channels with a shift, and the layers, if any, at which what these pass on is no constant."""
    found = []
    for group in groups:
        lost = ~slots(group, settled)
        shifts = [norm.bias[at[lost].flatten().to(norm.bias.device)] for norm, at in (
            (masked.get_submodule(n), at) for n, at in group.norms.items()) if isinstance(norm.bias, Tensor)]
        layers = [layer for layer, use in group.uses.items() if not use.constant]
        if layers and any(s.is_meta or bool(s.any()) for s in shifts):
            found.append((group, layers))
    return found


def stand_ins(group: ChannelGroup, lost: Tensor, seen: Mapping[str, Tensor]) -> dict[str, int]:
    """The channel that stands for all lost ones of a group, at each layer that pads their constants with zeros."""
    found = {layer: _largest(seen[layer][group.consumers[layer][:, 0].to(seen[layer].device)], lost)
             for layer, use in group.uses.items() if use.constant and use.padded}
    return {layer: slot for layer, slot in found.items() if slot is not None}


@torch.no_grad()
def fold_constants(network: nn.Module, groups: Sequence[ChannelGroup], settled: Mapping[str, Tensor],
                   seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Move the constants of the channels outside the masks to where they survive the cut, in place.

    Parameters
    ----------
    network
        The scales of those channels are zero.
    groups, settled
        Its groups and settled masks.
    seen
        One row and place of the input of each layer that `users` names.

    Returns
    -------
    dict
        The masks with those channels added that stand for others at convolutions that pad with zeros.
    """
    masks = {name: mask.clone() for name, mask in settled.items()}
    for group in losing(groups, settled):
        lost = ~slots(group, settled)
        standing = stand_ins(group, lost, seen)
        kept = sorted(set(standing.values()))
        lost[kept] = False
        for name, at in group.norms.items():
            masks[name][at[kept].flatten()] = True
        for layer, use in group.uses.items():
            if not use.constant:
                continue
            module, at = network.get_submodule(layer), group.consumers[layer]
            values = seen[layer][at.to(seen[layer].device)]
            if not use.padded:
                _bias(network, module, use.norm, at[lost].flatten(), values[lost.to(values.device)])
            elif (slot := standing.get(layer)) is not None:
                weight = module.get_parameter("weight")
                share = values[lost.to(values.device), 0] / values[slot, 0]
                taken = weight[:, at[lost, 0].to(weight.device)]
                weight[:, int(at[slot, 0])] += torch.einsum("oi...,i->o...", taken, share)
    return masks


def losing(groups: Sequence[ChannelGroup], settled: Mapping[str, Tensor]) -> list[ChannelGroup]:
    """The groups that lose channels under settled masks."""
    return [g for g in groups if not slots(g, settled).all()]


def users(groups: Sequence[ChannelGroup], settled: Mapping[str, Tensor]) -> list[str]:
    """The layers that use lost channels which are constant there."""
    return [layer for g in losing(groups, settled) for layer, use in g.uses.items() if use.constant]


def look(network: nn.Module, layers: Sequence[str],
         example: Tensor | tuple[Any, ...]) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The outputs of a network, and one row and place of the input of each of these layers, ``(in_channels,)``.

    Raises
    ------
    ValueError
        If parameters are on the meta device, or the network's code takes the weight of a layer without calling it.
    """
    if layers and any(p.is_meta for p in network.parameters()):
        raise ValueError('parameters on the meta device have no values that could be folded: give shifts="drop"')
    seen: dict[str, Tensor] = {}

    def watch(layer: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            x = args[0] if isinstance(module, nn.Linear) else args[0].movedim(1, -1)
            seen[layer] = x.detach().flatten(0, -2)[0].clone()

        return hook

    handles = [network.get_submodule(layer).register_forward_pre_hook(watch(layer)) for layer in layers]
    try:
        found = outputs(network, example)
    finally:
        for handle in handles:
            handle.remove()
    for layer in layers:
        if layer not in seen:
            raise ValueError(f'{layer} is not called, its weight is used by other code, so that what reaches it cannot '
                             f'be seen and folded: give shifts="drop"')
    return found, seen


def outputs(model: nn.Module, example: Tensor | tuple[Any, ...]) -> list[Tensor]:
    """What the model returns in evaluation mode, as a list of tensors."""
    modes = {m: m.training for m in model.modules()}
    try:
        with torch.no_grad():
            found = model.eval()(*(example if isinstance(example, tuple) else (example,)))
    finally:
        for module, mode in modes.items():
            module.training = mode
    return [v for v in tree_leaves(found) if isinstance(v, Tensor)]


def _largest(values: Tensor, lost: Tensor) -> int | None:
    """The lost channel whose constant is largest in size, to divide the others by; ``None`` if all are 0."""
    sizes = torch.where(lost.to(values.device), values.abs(), -1)
    best = int(sizes.argmax())
    return best if float(sizes[best]) > 0 else None


def _bias(network: nn.Module, module: nn.Module, norm: str, at: Tensor, values: Tensor) -> None:
    """Add to a layer's outputs what these inputs, constant everywhere, contribute."""
    weight = module.get_parameter("weight")
    total = weight.flatten(2).sum(2) if weight.ndim > 2 else weight
    amount = total[:, at.to(weight.device)] @ values.flatten().to(weight.dtype)
    bias = module._parameters.get("bias")
    if bias is not None:
        bias += amount
    elif norm:
        follower = network.get_submodule(norm)
        assert isinstance(follower, _BatchNorm)
        assert follower.running_mean is not None
        follower.running_mean -= amount
    else:
        module.register_parameter("bias", nn.Parameter(amount, requires_grad=weight.requires_grad))
