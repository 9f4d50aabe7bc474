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
from sparsepriors.networks.sparse.constants import (
    fold_constants,
    look,
    losing,
    outputs,
    slots,
    stand_ins,
    users,
    varying,
)

VOTES = ("paper", "any", "all")
SHIFTS = ("fold", "drop")
ROUNDINGS = ("up", "nearest")


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
                   rule: str = "paper", strict: bool = False, shifts: str = "fold", multiple: int = 1,
                   rounding: str = "up", groups: Sequence[ChannelGroup] | None = None) -> nn.Module:
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
    multiple, rounding
        What each group keeps, channels that stand for others included, is rounded ``"up"`` to a multiple, or to the
        ``"nearest"`` one: odd widths are slow, and 8 or 16 suit most kernels. It is as if the masks had kept more of
        the channels of largest scale, or fewer of those of smallest; a group that would need more than it has is kept
        whole.
    groups
        The network's `trace_groups`, where they are known already.

    Raises
    ------
    TypeError, ValueError
        As `trace_groups` and `settle_masks`; if the network's code counts on a number of channels or decides by it; if
        constants are to be folded into parameters on the meta device, which have no values.
    """
    _checks.one_of("shifts", shifts, SHIFTS)
    _checks.count("multiple", multiple, low=1)
    _checks.one_of("rounding", rounding, ROUNDINGS)
    groups = trace_groups(model, example) if groups is None else groups
    settled = settle_masks(model, groups, masks, rule=rule, strict=strict)
    small, expected, seen = _run(model, groups, settled, shifts, example)
    if multiple > 1:
        if rounding == "nearest":
            settled = _fewer(model, groups, settled, seen, multiple)
            _, _, seen = _run(model, groups, settled, shifts, example)
        settled = _more(model, groups, settled, seen, multiple)
        small, expected, seen = _run(model, groups, settled, shifts, example)
    if shifts == "fold":
        _report_varying(model, groups, settled, strict=strict)
        settled = fold_constants(small, groups, settled, seen)
    keep: dict[tuple[str, str], list[Tensor]] = {}
    for group in groups:
        stay = slots(group, settled)
        for role in ("producers", "depthwise", "norms", "consumers", "pads"):
            for layer, at in getattr(group, role).items():
                keep.setdefault((role, layer), []).append(at[stay].flatten())
    for (role, layer), parts in keep.items():
        _cut(small.get_submodule(layer), role, torch.cat(parts).sort().values)
    _compare(small, expected, example)
    return small


def _masked(model: nn.Module, groups: Sequence[ChannelGroup], settled: Mapping[str, Tensor],
            shifts: str) -> nn.Module:
    """A copy of the network in which the channels to be removed pass on constants, or nothing."""
    masked = copy.deepcopy(model)
    zero_channels(masked, {n: m for n, m in settled.items() if isinstance(model.get_submodule(n).weight, Tensor)},
                  shifts=shifts == "drop")
    if shifts == "fold":
        for group, _ in varying(model, groups, settled):
            lost = ~slots(group, settled)
            for name, at in group.norms.items():
                norm = masked.get_submodule(name)
                if isinstance(norm.bias, Tensor):
                    with torch.no_grad():
                        norm.bias[at[lost].flatten().to(norm.bias.device)] = 0
    return masked


def _run(model: nn.Module, groups: Sequence[ChannelGroup], settled: Mapping[str, Tensor], shifts: str,
         example: Tensor | tuple[Any, ...]) -> tuple[nn.Module, list[Tensor], dict[str, Tensor]]:
    """The masked copy, its outputs, and what reaches the layers whose constants are to be folded."""
    masked = _masked(model, groups, settled, shifts)
    return masked, *look(masked, users(groups, settled) if shifts == "fold" else (), example)


def _report_varying(model: nn.Module, groups: Sequence[ChannelGroup], settled: Mapping[str, Tensor], *,
                    strict: bool) -> None:
    for group, layers in varying(model, groups, settled):
        message = (f"channels of {', '.join(group.norms)} that are to be removed pass more than a constant of their "
                   f"shift on to {', '.join(layers)}")
        if strict:
            raise ValueError(f'{message}; keep them, or drop the shift (shifts="drop")')
        warnings.warn(f"{message}: their shift is dropped", stacklevel=3)


def _more(model: nn.Module, groups: Sequence[ChannelGroup], settled: Mapping[str, Tensor],
          seen: Mapping[str, Tensor], multiple: int) -> dict[str, Tensor]:
    """Masks that keep more, those of largest scale, until what each group keeps in the end is a multiple."""
    masks = {name: mask.clone() for name, mask in settled.items()}
    for group in losing(groups, settled):
        lost = ~slots(group, settled)
        standing = _standing(group, lost, seen)
        missing = -(group.size - int(lost.sum()) + len(standing)) % multiple
        if missing > int(lost.sum()) - len(standing):
            missing = int(lost.sum())
        size = _sizes(model, group)
        # Those that stay already come last; those that stand for others, only when the group is kept whole.
        size[~lost] = -2
        size[standing] = -1
        more = size.argsort(descending=True, stable=True)[:missing]
        for name, at in group.norms.items():
            masks[name][at[more].flatten()] = True
    return masks


def _fewer(model: nn.Module, groups: Sequence[ChannelGroup], settled: Mapping[str, Tensor],
           seen: Mapping[str, Tensor], multiple: int) -> dict[str, Tensor]:
    """Masks that keep fewer, without those of smallest scale, where the multiple below is nearer than the one above."""
    masks = {name: mask.clone() for name, mask in settled.items()}
    for group in losing(groups, settled):
        kept = slots(group, settled)
        over = (int(kept.sum()) + len(_standing(group, ~kept, seen))) % multiple
        if 2 * over < multiple and over < int(kept.sum()):
            fewer = torch.where(kept, _sizes(model, group), torch.inf).argsort(stable=True)[:over]
            for name, at in group.norms.items():
                masks[name][at[fewer].flatten()] = False
    return masks


def _standing(group: ChannelGroup, lost: Tensor, seen: Mapping[str, Tensor]) -> list[int]:
    """The lost channels that stay to stand for others; none where constants are not folded."""
    return sorted(set(stand_ins(group, lost, seen).values())) if seen else []


def _sizes(model: nn.Module, group: ChannelGroup) -> Tensor:
    """The sum of the scales of each channel of a group."""
    size = torch.zeros(group.size, dtype=torch.float64, device="cpu")
    for name, at in group.norms.items():
        scale = model.get_submodule(name).weight
        if isinstance(scale, Tensor):
            size += scale.detach().cpu().double().abs()[at].sum(1)
    return size


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


def _compare(small: nn.Module, expected: Sequence[Tensor], example: Tensor | tuple[Any, ...]) -> None:
    """Meet code that counts on channels, or decides by their number, before anyone uses the result."""
    try:
        ours = outputs(small, example)
    except RuntimeError as e:
        raise ValueError(f"the network does not run without the removed channels, its code counts on them: {e}") from e
    for a, b in zip(ours, expected, strict=True):
        if b.is_meta or not b.is_floating_point() or not b.numel():
            continue
        allowed = max(1e-3, 16 * torch.finfo(b.dtype).eps) * max(1.0, float(b.abs().max()))
        if a.shape != b.shape or not torch.allclose(a, b, atol=allowed, rtol=0, equal_nan=True):
            raise ValueError("the smaller network computes something else than the masked one: its code decides by the "
                             "number of channels")
