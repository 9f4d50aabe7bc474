"""Which channels of a network can only be removed together: read off its traced graph.

Every channel of every tensor gets a number; what the operations do to channels becomes equations between numbers. A
residual sum equates the channels of its terms, a depthwise convolution and a batch normalisation pass them on,
flattening repeats each, concatenation joins the lists. An operation that is not known pins the channels it sees: what
is not understood stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparsepriors.networks.sparse.operations import Operations, record_operations

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# What they make of a channel of zeros is a channel of zeros.
_KEEP_ZERO = frozenset({
    "relu", "relu6", "leaky_relu", "elu", "silu", "gelu", "tanh", "hardswish", "dropout", "feature_dropout", "clone",
    "contiguous", "detach", "alias", "to", "neg", "abs"})
_MOVE_ZERO = frozenset({"sigmoid", "hardsigmoid", "exp", "softplus"})
_POOLS = frozenset(f"{kind}_pool{d}d" for kind in ("max", "avg", "adaptive_avg") for d in (1, 2, 3))


class Use(NamedTuple):
    """How a layer uses channels, and what those are there that have lost the scales of their batch normalisations.

    Attributes
    ----------
    constant
        Whether each of them is one number, in every row and place, in evaluation mode: what its shifts make of it.
    padded
        Whether the layer pads with zeros, so that the number is missing at the border.
    norm
        The batch normalisation with running statistics that alone uses the layer's output; empty if there is none.
    """

    constant: bool
    padded: bool
    norm: str


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels that live or die together: slot i is one channel in every layer named here.

    Attributes
    ----------
    size
        Number of slots.
    producers, depthwise, norms, consumers, pads
        Positions of the slots by layer name, each of shape ``(size, k)``: on the output axis of the convolutions and
        linear layers that make the channels, on the only axis of depthwise convolutions and batch normalisations, on
        the input axis of the layers that use them (k > 1 behind a flattening), among the added channels of a
        `ChannelPad`.
    uses
        How each of the consumers uses them.
    pinned
        Why these channels cannot be removed; empty if they can.
    """

    size: int
    producers: Mapping[str, Tensor]
    depthwise: Mapping[str, Tensor]
    norms: Mapping[str, Tensor]
    consumers: Mapping[str, Tensor]
    pads: Mapping[str, Tensor]
    uses: Mapping[str, Use]
    pinned: str = ""

    @property
    def layers(self) -> tuple[str, ...]:
        """Every layer in it."""
        return (*self.producers, *self.depthwise, *self.norms, *self.consumers, *self.pads)


def trace_groups(model: nn.Module, example: Tensor | tuple[Any, ...]) -> list[ChannelGroup]:
    """The groups of channels of a network, in the order in which the network computes them.

    The network runs once, in evaluation mode; it is not changed. A group is pinned if it holds
    channels of the input or the output, if an operation in it mixes channels or is not known (group normalisation,
    grouped convolutions, attention), or if a layer uses the channels before a batch normalisation has had a chance to
    set them to zero.

    Parameters
    ----------
    model
        Convolutions, linear layers and batch normalisations in any arrangement whose shapes do not depend on data.
    example
        An input with two rows or more, or a tuple of arguments.

    Raises
    ------
    TypeError
        If ``model`` is no module.
    ValueError
        If the network has no batch normalisation, if a layer is used twice or its weight shared, or if a weight is
        computed by a parametrization or the mask of another tool.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not any(isinstance(m, _BatchNorm) for m in model.modules()):
        raise ValueError("model has no batch normalisation, whose scales say which channels can go")
    modes = {m: m.training for m in model.modules()}
    try:
        done = record_operations(model.eval(), example if isinstance(example, tuple) else (example,))
    finally:
        for module, mode in modes.items():
            module.training = mode
    trace = _Trace(model, done)
    with torch.device("cpu"):   # numbers of channels stay here, whatever the default device
        for node in done.graph.nodes:
            trace.read(node)
        return trace.groups()


class _Value(NamedTuple):
    """The channels of a tensor.

    ``clean`` says that a channel is zero here once scale and shift of its batch normalisations are, ``flat`` that it is
    one number in every row and place once the scales are.
    """

    axis: int
    ids: Tensor
    clean: bool
    flat: bool


class _Record(NamedTuple):
    role: str
    layer: str
    ids: Tensor


class _Trace:
    """One pass over the graph: numbers, equations between them, and who uses which."""

    def __init__(self, model: nn.Module, done: Operations) -> None:
        self.model, self.stored, self.inputs = model, done.stored, done.inputs
        self.values: dict[fx.Node, _Value | None] = {}
        self.records: list[_Record] = []
        self.uses: dict[str, Use] = {}
        self.count = 0
        self.equal: list[tuple[Tensor, Tensor]] = []
        self.pins: list[tuple[Tensor, str]] = []

    def read(self, node: fx.Node) -> None:
        """Take one node into account."""
        if node.op == "placeholder":
            self.values[node] = self._input(node)
        elif node.op == "output":
            for arg in node.all_input_nodes:
                self._pin(self.values.get(arg), "they are the output of the network")
        else:
            self.values[node] = self._call(node)

    def groups(self) -> list[ChannelGroup]:
        """The classes of equal channels, gathered by the layers that they are in."""
        label = self._labels()
        classes = int(label.max()) + 1 if len(label) else 0
        reasons = [reason for _, reason in self.pins]
        why = torch.zeros(classes, dtype=torch.int64)
        for i in reversed(range(len(self.pins))):   # the first reason stays
            why[label[self.pins[i][0]]] = i + 1
        counts = [torch.bincount(label[r.ids], minlength=classes) for r in self.records]
        rows = torch.stack([*counts, why], dim=1).int()
        numbers: dict[bytes, int] = {}   # `unique` of rows sorts them, which takes longer than all the rest
        kind = torch.tensor([numbers.setdefault(row.tobytes(), len(numbers)) for row in rows.numpy()])
        found = []
        for number in range(len(numbers)):
            members: dict[str, dict[str, Tensor]] = {
                role: {} for role in ("producers", "depthwise", "norms", "consumers", "pads")}
            inside = kind == number
            size, row = int(inside.sum()), rows[int(inside.int().argmax())]
            for i in row[:-1].nonzero().flatten().tolist():
                role, layer, ids = self.records[i]
                of = label[ids]
                order = of.argsort(stable=True)
                members[role][layer] = order[inside[of[order]]].reshape(size, -1)
            if any(members.values()):
                reason = int(row[-1])
                uses = {layer: self.uses[layer] for layer in members["consumers"]}
                found.append(ChannelGroup(size, **members, uses=uses, pinned=reasons[reason - 1] if reason else ""))
        return found

    def _labels(self) -> Tensor:
        """A number for each channel, the same for equal ones, rising with the first of them."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if self.equal:
            a, b = (torch.cat(side).numpy() for side in zip(*self.equal, strict=True))
            links = coo_array((torch.ones(len(a)).numpy(), (a, b)), shape=(self.count, self.count))
            parts = torch.from_numpy(connected_components(links, directed=False)[1]).long()
        else:
            parts = torch.arange(self.count)
        first = torch.full((self.count,), self.count).scatter_reduce(0, parts, torch.arange(self.count), "amin")
        return first[parts].unique(return_inverse=True)[1]

    def _fresh(self, count: int) -> Tensor:
        self.count += count
        return torch.arange(self.count - count, self.count)

    def _pin(self, value: _Value | None, reason: str) -> None:
        if value is not None:
            self.pins.append((value.ids, reason))

    def _input(self, node: fx.Node) -> _Value | None:
        shape = _shape(node)
        if node.name not in self.inputs or len(shape) < 2:
            return None
        value = _Value(1, self._fresh(shape[1]), True, False)
        self._pin(value, "they are the input of the network")
        return value

    def _call(self, node: fx.Node) -> _Value | None:
        target = node.target
        if not isinstance(target, torch._ops.OpOverload):
            return None   # taking one of several results, of which none is followed
        name = target.overloadpacket.__name__.removesuffix("_")
        bound = {a.name: a.default_value for a in target._schema.arguments}
        bound |= {a.name: v for a, v in zip(target._schema.arguments, node.args, strict=False)} | node.kwargs
        rule = _RULES.get(name)
        known = rule(self, node, name, bound) if rule is not None else NotImplemented
        if known is not NotImplemented:
            return known
        for arg in node.all_input_nodes:
            self._pin(self.values.get(arg), f"{name} ({node.name}) may mix them")
        return None

    def _see(self, role: str, layer: str, ids: Tensor) -> None:
        if any((r.role, r.layer) == (role, layer) for r in self.records):
            raise ValueError(f"layer {layer!r} is used twice, or shares its weight: its channels cannot be removed for "
                             f"one use alone")
        self.records.append(_Record(role, layer, ids))

    def _layer(self, weight: object, kinds: tuple[type[nn.Module], ...]) -> str | None:
        """The layer that holds a parameter or buffer."""
        if not isinstance(weight, fx.Node):
            return None
        if weight.op != "placeholder":
            raise ValueError(f"a weight is computed ({weight.name}); make the masks or parametrizations of another "
                             f"tool permanent first")
        layer, _, _ = self.stored.get(weight.name, "").rpartition(".")
        return layer if isinstance(self.model.get_submodule(layer), kinds) else None

    # What operations do to channels. NotImplemented: not known in this form.

    def _convolution(self, node: fx.Node, name: str, bound: dict[str, Any]) -> Any:
        x, layer = self.values.get(bound["input"]), self._layer(bound["weight"], _CONVOLUTIONS)
        if layer is None:
            return NotImplemented
        inputs, outputs, groups = _shape(bound["input"])[1], _shape(node)[1], bound["groups"]
        padded = bound["padding"] != "valid" and bound["padding"] != [0] * len(bound["padding"])
        if groups == inputs == outputs and x is not None and x.axis == 1:
            self._see("depthwise", layer, x.ids)
            return x._replace(clean=x.clean and bound["bias"] is None, flat=x.flat and not padded)
        out = _Value(1, self._fresh(outputs), False, False)
        self._see("producers", layer, out.ids)
        if groups > 1:
            for value in (x, out):
                self._pin(value, f"{layer} is a convolution in {groups} groups")
        else:
            self._use(layer, x, 1, Use(x is not None and x.flat, padded, self._norm_after(node)))
        return out

    def _linear(self, node: fx.Node, name: str, bound: dict[str, Any]) -> Any:
        x, layer = self.values.get(bound["input"]), self._layer(bound["weight"], (nn.Linear,))
        if layer is None:
            return NotImplemented
        shape = _shape(node)
        self._use(layer, x, len(shape) - 1, Use(x is not None and x.flat, False, self._norm_after(node)))
        out = _Value(len(shape) - 1, self._fresh(shape[-1]), False, False)
        self._see("producers", layer, out.ids)
        return out

    def _norm_after(self, node: fx.Node) -> str:
        """The batch normalisation that alone uses a result, if it has running statistics."""
        after = list(node.users)
        if len(after) != 1 or getattr(after[0].target, "overloadpacket", None) is not torch.ops.aten.batch_norm:
            return ""
        return self._layer(after[0].args[3], (_BatchNorm,)) or ""

    def _use(self, layer: str, x: _Value | None, axis: int, use: Use) -> None:
        if x is None:
            return
        if x.axis != axis:
            self._pin(x, f"{layer} works along another axis")
            return
        if not x.clean:
            self._pin(x, f"{layer} uses them and no batch normalisation can set them to zero before")
        self._see("consumers", layer, x.ids)
        self.uses[layer] = use

    def _norm(self, node: fx.Node, name: str, bound: dict[str, Any]) -> Any:
        x = self.values.get(bound["input"])
        layer = self._layer(bound["weight"] or bound["running_mean"], (_BatchNorm,))
        if layer is None or x is None or x.axis != 1:
            return NotImplemented
        self._see("norms", layer, x.ids)
        return x._replace(clean=bound["weight"] is not None, flat=bound["weight"] is not None)

    def _same(self, node: fx.Node, name: str, bound: dict[str, Any]) -> Any:
        x = self.values.get(node.all_input_nodes[0])
        if name in _POOLS and x is not None and x.axis != len(_shape(node)) - 1 - int(name[-2]):
            return NotImplemented
        # A mean over places that lie outside, or by another count than theirs, is not the number everywhere.
        whole = not name.startswith("avg_pool") or not (any(bound["padding"]) or bound.get("divisor_override"))
        return x and x._replace(clean=x.clean and name not in _MOVE_ZERO, flat=x.flat and whole)

    def _clamped(self, node: fx.Node, name: str, bound: dict[str, Any]) -> Any:
        x = self.values.get(bound["self"])
        return x and x._replace(clean=x.clean and bound["min_val"] <= 0 <= bound["max_val"])

    def _two(self, node: fx.Node, name: str, bound: dict[str, Any]) -> Any:
        x, y = (self.values.get(v) if isinstance(v, fx.Node) else v for v in (bound["self"], bound["other"]))
        if isinstance(x, _Value) and isinstance(y, int | float):
            return x._replace(clean=x.clean and name in ("mul", "div"))
        if not (isinstance(x, _Value) and isinstance(y, _Value)) or name == "div":
            return NotImplemented
        ranks = len(_shape(bound["self"])), len(_shape(bound["other"]))
        if x.axis != y.axis or ranks[0] != ranks[1] or len(x.ids) != len(y.ids):
            return NotImplemented
        self.equal.append((x.ids, y.ids))
        return x._replace(clean=x.clean or y.clean if name == "mul" else x.clean and y.clean, flat=x.flat and y.flat)

    def _joined(self, node: fx.Node, name: str, bound: dict[str, Any]) -> Any:
        parts = [self.values.get(v) for v in bound["tensors"]]
        values = [p for p in parts if p is not None]
        if len(values) < len(parts) or len({v.axis for v in values}) != 1:
            return NotImplemented
        axis, clean = values[0].axis, all(v.clean for v in values)
        if bound["dim"] % len(_shape(node)) == axis:
            return _Value(axis, torch.cat([v.ids for v in values]), clean, all(v.flat for v in values))
        self.equal += [(values[0].ids, v.ids) for v in values[1:]]
        return _Value(axis, values[0].ids, clean, False)

    def _padded(self, node: fx.Node, name: str, bound: dict[str, Any]) -> Any:
        x = self.values.get(bound["self"])
        if x is None:
            return None
        amounts, place = list(bound["pad"]), 2 * (len(_shape(node)) - 1 - x.axis)
        before, after = amounts[place:place + 2] if len(amounts) > place else (0, 0)
        repeated = bound.get("mode", "constant") != "constant"
        zero = repeated or not bound["value"]
        x = x._replace(flat=x.flat and (repeated or not any(a for i, a in enumerate(amounts) if i // 2 != place // 2)))
        if (before, after) == (0, 0):
            return x._replace(clean=x.clean and zero)
        owner = node.meta.get("owner")
        if before or after < 0 or not zero or owner is None:
            return NotImplemented
        new = self._fresh(after)
        self._see("pads", owner, new)
        return x._replace(ids=torch.cat([x.ids, new]))

    def _sliced(self, node: fx.Node, name: str, bound: dict[str, Any]) -> Any:
        x = self.values.get(bound["self"])
        if x is not None and bound["dim"] % len(_shape(node)) == x.axis and len(x.ids) != _shape(node)[x.axis]:
            return NotImplemented
        return x

    def _reduced(self, node: fx.Node, name: str, bound: dict[str, Any]) -> Any:
        x, rank = self.values.get(bound["self"]), len(_shape(bound["self"]))
        axes = {d % rank for d in bound.get("dim") or ()}
        if x is None or not axes or x.axis in axes:
            return NotImplemented
        x = x._replace(flat=x.flat and name != "sum")   # a sum counts places, of which the next input may have more
        return x if bound["keepdim"] else x._replace(axis=x.axis - sum(d < x.axis for d in axes))

    def _reshaped(self, node: fx.Node, name: str, bound: dict[str, Any]) -> Any:
        x, old, new = self.values.get(bound["self"]), _shape(bound["self"]), _shape(node)
        if x is None or x.axis != 1 or len(new) < 2 or old[0] != new[0]:
            return NotImplemented
        if old[1] == new[1]:
            return x
        if len(new) == 2:   # each channel becomes a run of neighbours
            return x._replace(ids=x.ids.repeat_interleave(math.prod(old[2:])))
        return NotImplemented

    def _permuted(self, node: fx.Node, name: str, bound: dict[str, Any]) -> Any:
        x, rank = self.values.get(bound["self"]), len(_shape(node))
        return x and x._replace(axis=[d % rank for d in bound["dims"]].index(x.axis))


_Rule = Callable[[_Trace, fx.Node, str, dict[str, Any]], Any]
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _Trace._convolution),
    **dict.fromkeys(_KEEP_ZERO | _MOVE_ZERO | _POOLS, _Trace._same),
    **dict.fromkeys(("add", "sub", "mul", "div"), _Trace._two),
    **dict.fromkeys(("mean", "sum", "amax"), _Trace._reduced),
    **dict.fromkeys(("flatten", "view", "reshape", "squeeze", "unsqueeze"), _Trace._reshaped),
    **dict.fromkeys(("pad", "constant_pad_nd"), _Trace._padded),
    "linear": _Trace._linear, "batch_norm": _Trace._norm, "hardtanh": _Trace._clamped, "cat": _Trace._joined,
    "slice": _Trace._sliced, "permute": _Trace._permuted}


def _shape(node: fx.Node) -> Sequence[int]:
    return node.meta.get("shape", ())
