"""Removing channels for good: a smaller network that computes what the masked one did."""

from __future__ import annotations

import copy
import difflib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparsepriors import _checks
from sparsepriors.networks.models.resnet import ChannelPad
from sparsepriors.networks.sparse.channels import ChannelGroup, trace_groups
from sparsepriors.networks.sparse.constants import fold_constants, outputs, slots, varying

VOTES = ("paper", "any", "all")
SHIFTS = ("fold", "drop")


def vote(masks: Sequence[Bool[Tensor, " channels"]], rule: str = "paper") -> Bool[Tensor, " channels"]:
    """One mask for layers whose channels are tied, from the mask that each of them would like.

    Parameters
    ----------
    masks
        True where a channel is kept; a layer votes for the removal of the others.
    rule
        ``"all"``: a channel goes if every layer wants it to; ``"any"``: if one does; ``"paper"``: as many votes are
        asked for as can be while no fewer channels go than the layer that wants to lose the fewest wants to lose
        (the conservative choice of the published code of arXiv:2201.06776).

    Raises
    ------
    TypeError, ValueError
        If the masks are none, not boolean or not of one length, or the rule is unknown.
    """
    _checks.one_of("rule", rule, VOTES)
    if not masks or len({m.shape for m in masks}) != 1:
        raise ValueError(f"masks must be at least one and of one length, got shapes {[tuple(m.shape) for m in masks]}")
    votes = sum((~_checks.boolean("masks", m)).long() for m in masks)
    assert isinstance(votes, Tensor)
    if rule != "paper":
        return votes < (1 if rule == "any" else len(masks))
    fewest = min(int((~m).sum()) for m in masks)
    needed = len(masks)
    while needed > 1 and int((votes >= needed).sum()) < fewest:
        needed -= 1
    return votes < needed


def settle_masks(model: nn.Module, groups: Sequence[ChannelGroup], masks: Mapping[str, Tensor], *,
                 rule: str = "paper", strict: bool = False) -> dict[str, Tensor]:
    """The masks that can be carried out: tied layers agree, and every layer keeps a channel.

    Parameters
    ----------
    model, groups
        The network and its `trace_groups`.
    masks
        By name of the batch normalisation, True where a channel is kept. Layers that are not named abstain.
    rule
        How tied layers agree, see `vote`.
    strict
        Whether it is an error that a layer would lose all its channels. Otherwise it keeps the one whose scale is
        largest, and a warning says so.

    Returns
    -------
    dict
        A mask for every batch normalisation of the network that was traced.

    Raises
    ------
    TypeError, ValueError
        If a name is no batch normalisation of the network, a mask is not boolean or has not one entry for each channel,
        or a channel is to go that must stay; the message says which and why.
    """
    norms = {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm)}
    for name, mask in masks.items():
        if name not in norms:
            near = difflib.get_close_matches(name, norms, n=3)
            raise ValueError(f"masks names {name!r}, which is no batch normalisation of the model"
                             + (f"; near: {', '.join(near)}" if near else ""))
        _checks.boolean(f"the mask of {name}", mask)
        if mask.shape != (norms[name].num_features,):
            raise ValueError(f"the mask of {name} must have one entry for each of {norms[name].num_features} channels, "
                             f"got shape {tuple(mask.shape)}")
    settled: dict[str, Tensor] = {}
    for group in groups:
        wishes = {n: masks[n].cpu()[at[:, 0]] for n, at in group.norms.items() if n in masks}
        if group.pinned:
            for name, wish in wishes.items():
                if not wish.all():
                    raise ValueError(f"{int((~wish).sum())} channels of {name} cannot be removed: {group.pinned}")
        keep = torch.ones(group.size, dtype=torch.bool, device="cpu")
        if wishes and not group.pinned:
            keep = vote(list(wishes.values()), rule)
        for name, at in group.norms.items():
            everything = torch.ones(norms[name].num_features, dtype=torch.bool, device="cpu")
            settled.setdefault(name, everything)[at] = keep[:, None]
    for name in settled:
        if not settled[name].any():
            if strict:
                raise ValueError(f"the masks leave {name} no channel")
            _revive(name, norms[name], groups, settled)
    return settled


def zero_channels(model: nn.Module, masks: Mapping[str, Tensor], *, shifts: bool = True) -> None:
    """Set scale and shift of the channels outside the masks to zero, in place; only the scale without ``shifts``.

    Raises
    ------
    ValueError
        If a layer has no scale or shift.
    """
    for name, mask in masks.items():
        norm = model.get_submodule(name)
        for part in ("weight", "bias") if shifts else ("weight",):
            parameter = norm._parameters.get(part)
            if parameter is None:
                raise ValueError(f"{name} has no {part} that could be set to zero")
            with torch.no_grad():
                parameter.masked_fill_(~mask.to(parameter.device), 0)


def prune_channels(model: nn.Module, masks: Mapping[str, Tensor], example: Tensor | tuple[Any, ...], *,
                   rule: str = "paper", strict: bool = False, shifts: str = "fold",
                   groups: Sequence[ChannelGroup] | None = None) -> nn.Module:
    """A new network without the channels outside the masks, of the same class and with the same names.

    It computes what the old one does, in evaluation mode and to rounding, once the scales of those channels are zero
    (``zero_channels(model, masks, shifts=False)``). Such a channel still passes on a constant, what the layers behind
    make of its shift; the constant becomes part of the layers that use it:

    - a linear layer, or a convolution that does not pad with zeros, gets a bias; where a batch normalisation follows,
      its running mean takes it in place of a bias that is not there;
    - at a convolution that pads with zeros a bias would be wrong at the border: the group keeps one of the channels,
      with scale zero, whose weights stand for all of them.

    Everything is copied: build a new optimizer for it.

    Parameters
    ----------
    model
        Not changed.
    masks
        By name of the batch normalisation, True where a channel is kept; layers that are not named abstain.
    example
        An input with two rows or more, or a tuple of arguments; the new network is compared with the masked one on it.
    rule
        See `settle_masks`.
    strict
        As in `settle_masks`; and whether it is an error that a channel passes on something that is no constant, because
        it is multiplied by a gate or padded with zeros without a convolution. Otherwise its shift is dropped, and a
        warning says so.
    shifts
        ``"fold"``, or ``"drop"`` as the published code of arXiv:2201.06776 does: the new network computes what the old
        one does once scales and shifts are zero (``zero_channels(model, masks)``), and every channel outside the masks
        is removed.
    groups
        The network's `trace_groups`, where they are known already.

    Raises
    ------
    TypeError, ValueError
        As `trace_groups` and `settle_masks`; if the network's code counts on a number of channels or decides by it; if
        constants are to be folded into parameters on the meta device, which have no values.
    """
    _checks.one_of("shifts", shifts, SHIFTS)
    groups = trace_groups(model, example) if groups is None else groups
    settled = settle_masks(model, groups, masks, rule=rule, strict=strict)
    masked = _masked(model, groups, settled, shifts, strict=strict)
    small = copy.deepcopy(masked)
    if shifts == "fold":
        settled = fold_constants(small, groups, settled, example)
    keep: dict[tuple[str, str], list[Tensor]] = {}
    for group in groups:
        stay = slots(group, settled)
        for role in ("producers", "depthwise", "norms", "consumers", "pads"):
            for layer, at in getattr(group, role).items():
                keep.setdefault((role, layer), []).append(at[stay].flatten())
    for (role, layer), parts in keep.items():
        _cut(small.get_submodule(layer), role, torch.cat(parts).sort().values)
    _compare(small, masked, example)
    return small


def _masked(model: nn.Module, groups: Sequence[ChannelGroup], settled: Mapping[str, Tensor], shifts: str, *,
            strict: bool) -> nn.Module:
    """A copy of the network in which the channels to be removed pass on constants, or nothing."""
    masked = copy.deepcopy(model)
    settled = {n: m for n, m in settled.items() if isinstance(masked.get_submodule(n).weight, Tensor)}
    if shifts == "drop":
        zero_channels(masked, settled)
        return masked
    zero_channels(masked, settled, shifts=False)
    for group, layers in varying(masked, groups, settled):
        message = (f"channels of {', '.join(group.norms)} that are to be removed pass more than a constant of their "
                   f"shift on to {', '.join(layers)}")
        if strict:
            raise ValueError(f'{message}; keep them, or drop the shift (shifts="drop")')
        warnings.warn(f"{message}: their shift is dropped", stacklevel=3)
        lost = ~slots(group, settled)
        for name, at in group.norms.items():
            norm = masked.get_submodule(name)
            if isinstance(norm.bias, Tensor):
                with torch.no_grad():
                    norm.bias[at[lost].flatten().to(norm.bias.device)] = 0
    return masked


def _revive(name: str, norm: _BatchNorm, groups: Sequence[ChannelGroup], settled: dict[str, Tensor]) -> None:
    """Keep the channel of the largest scale, in every layer that has it."""
    best = 0 if norm.weight is None else int(norm.weight.detach().abs().argmax())
    warnings.warn(f"the masks leave {name} no channel; channel {best}, of the largest scale, is kept", stacklevel=3)
    for group in groups:
        if name in group.norms:
            slot = (group.norms[name] == best).any(dim=1)
            for other, at in group.norms.items():
                settled[other][at[slot]] = True


def _cut(module: nn.Module, role: str, rows: Tensor) -> None:
    """Keep these positions of the axis that the role says."""
    if isinstance(module, ChannelPad):
        module.channels = len(rows)
        return
    axis = 1 if role == "consumers" else 0
    for name, parameter in list(module._parameters.items()):
        if parameter is not None and (axis == 0 or name == "weight"):
            kept = parameter.detach().index_select(axis, rows.to(parameter.device))
            module.register_parameter(name, nn.Parameter(kept, requires_grad=parameter.requires_grad))
    for name, buffer in list(module._buffers.items()):
        if buffer is not None and buffer.ndim:
            module._buffers[name] = buffer.index_select(0, rows.to(buffer.device))
    for attribute in _WIDTHS[role]:
        if hasattr(module, attribute):
            setattr(module, attribute, len(rows))


_WIDTHS = {"producers": ("out_channels", "out_features"), "consumers": ("in_channels", "in_features"),
           "depthwise": ("in_channels", "out_channels", "groups"), "norms": ("num_features",)}


def _compare(small: nn.Module, masked: nn.Module, example: Tensor | tuple[Any, ...]) -> None:
    """Meet code that counts on channels, or decides by their number, before anyone uses the result."""
    try:
        ours, expected = (outputs(network, example) for network in (small, masked))
    except RuntimeError as e:
        raise ValueError(f"the network does not run without the removed channels, its code counts on them: {e}") from e
    for a, b in zip(ours, expected, strict=True):
        if b.is_meta or not b.is_floating_point() or not b.numel():
            continue
        allowed = max(1e-3, 16 * torch.finfo(b.dtype).eps) * max(1.0, float(b.abs().max()))
        if a.shape != b.shape or not torch.allclose(a, b, atol=allowed, rtol=0, equal_nan=True):
            raise ValueError("the smaller network computes something else than the masked one: its code decides by the "
                             "number of channels")
