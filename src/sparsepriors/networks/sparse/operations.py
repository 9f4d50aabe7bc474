"""The operations of a network in the order of one forward pass, as a graph: `torch.export` without its compiler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from sparsepriors.networks.models.resnet import ChannelPad

_DECIDE = frozenset({"item", "_local_scalar_dense", "is_nonzero", "equal", "allclose"})


class Operations(NamedTuple):
    """What was done, in order.

    Attributes
    ----------
    graph
        One node for each operator called, whose ``meta`` has the ``shape`` of its result and, inside one, the name of
        the ``owner``, a `ChannelPad`; results of operators that give several are nodes of their own. Operators are the
        ones that the network's code calls (``conv2d``, ``linear``), not what they are made of.
    stored
        Names of the parameters and buffers that are used, by the name of their node.
    inputs
        Names of the nodes of the example's tensors.
    """

    graph: fx.Graph
    stored: dict[str, str]
    inputs: frozenset[str]


def record_operations(model: nn.Module, example: tuple[Any, ...]) -> Operations:
    """Run a network once, in the mode that it is in, and write down what it calls; buffers are left as they were.

    Raises
    ------
    ValueError
        If the network's code reads a value out of a tensor: what it does next may depend on the example.
    """
    recorder = _Recorder({id(v): name for name, v in (*model.named_parameters(), *model.named_buffers())})
    inputs = frozenset(recorder.place(v).name for v in tree_leaves(example) if isinstance(v, Tensor))
    pads = [(name, m) for name, m in model.named_modules() if isinstance(m, ChannelPad)]
    handles = [m.register_forward_pre_hook(lambda *_, name=name: recorder.enter(name)) for name, m in pads]
    handles += [m.register_forward_hook(lambda *_: recorder.enter(None)) for _, m in pads]
    before = [(b, b.clone()) for b in model.buffers()]
    try:
        # In inference mode an operator arrives whole; otherwise autograd has taken it apart before it gets here.
        with torch.inference_mode(), recorder:
            found = model(*example)
    finally:
        for handle in handles:
            handle.remove()
        for buffer, value in before:
            buffer.copy_(value)
    recorder.graph.output(tuple(recorder.nodes[v] for v in tree_leaves(found)
                                if isinstance(v, Tensor) and v in recorder.nodes))
    return Operations(recorder.graph, recorder.stored, inputs)


class _Recorder(TorchDispatchMode):
    """Gives every tensor the node that made it."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self.names, self.stored = names, dict[str, str]()
        self.graph, self.nodes = fx.Graph(), WeakTensorKeyDictionary()
        self.owner: str | None = None

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: nothing here is compiled, and to skip the compiler PyTorch would import it, which takes seconds."""
        return False

    def place(self, tensor: Tensor) -> fx.Node:
        """A node for a tensor that no operation has made."""
        node = self.graph.placeholder("tensor")
        node.meta["shape"] = tuple(tensor.shape)
        self.nodes[tensor] = node
        if id(tensor) in self.names:
            self.stored[node.name] = self.names[id(tensor)]
        return node

    def enter(self, owner: str | None) -> None:
        """Name the `ChannelPad` to which the next operations belong."""
        self.owner = owner

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        # Tensors that the network keeps for itself must not be inference tensors, which cannot be trained with.
        with torch.inference_mode(False), torch.no_grad():
            result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        results = [v for v in tree_leaves(result) if isinstance(v, Tensor)]
        if not results:
            if name in _DECIDE:
                raise ValueError(f"the network's code reads a value out of a tensor ({name}): what it computes may "
                                 f"depend on the example")
            return result
        node = self.graph.call_function(func, *tree_map(self._node, (args, kwargs)))
        if self.owner is not None:
            node.meta["owner"] = self.owner
        if isinstance(result, Tensor):
            node.meta["shape"] = tuple(result.shape)
            self.nodes[result] = node
        else:
            for i, part in enumerate(results):
                self.nodes[part] = self.graph.call_function(_part, (node, i))
                self.nodes[part].meta["shape"] = tuple(part.shape)
        return result

    def _node(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        node = self.nodes.get(value)
        return self.place(value) if node is None else node


def _part(results: Any, i: int) -> Tensor:
    """One of several results: it marks a node and is not called."""
    return tree_leaves(results)[i]
