"""What follows each convolution when a network runs: found by watching one pass, so that any network will do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree


@dataclass
class Pass:
    """One pass of a network.

    Attributes
    ----------
    calls
        How often each module was called.
    shapes
        Shape of the first input of each module's last call.
    next
        The module that alone took the output of a module, where there is one.
    """

    calls: Counter[nn.Module] = field(default_factory=Counter)
    shapes: dict[nn.Module, tuple[int, ...]] = field(default_factory=dict)
    next: dict[nn.Module, nn.Module] = field(default_factory=dict)


def watched(model: nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Pass:
    """Run the model once and see which module takes what another one made, and nobody else does."""
    found, watch = Pass(), _Watch()
    leaves = [m for m in model.modules() if not any(m.children())]
    hooks = [hook for m in leaves for hook in (m.register_forward_pre_hook(watch.enter, with_kwargs=True),
                                               m.register_forward_hook(watch.leave))]
    try:
        with torch.inference_mode(), watch:
            result = model(*arguments, **keywords)
    finally:
        for hook in hooks:
            hook.remove()
    watch.use(None, pytree.tree_leaves(result))
    found.calls, found.shapes = watch.calls, watch.shapes
    for (maker, _), users in watch.users.items():
        if len(users) == 1 and users[0] is not None and found.calls[maker] == found.calls[users[0]] == 1:
            found.next[maker] = users[0]
    return found


class _Watch(TorchFunctionMode):
    """Notes every use of a leaf module's output: by another leaf module, or by a function outside of any (None)."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[nn.Module] = Counter()
        self.shapes: dict[nn.Module, tuple[int, ...]] = {}
        self.users: dict[tuple[nn.Module, int], list[nn.Module | None]] = {}
        self.makers: dict[int, tuple[nn.Module, int]] = {}
        self.inside: list[nn.Module] = []
        self.kept: list[Any] = []   # so that no two tensors of the pass share an id

    def enter(self, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self.inside.append(module)   # first: reading a shape is a use, too
        self.calls[module] += 1
        if inputs and isinstance(inputs[0], Tensor):
            self.shapes[module] = tuple(inputs[0].shape)
        self.use(module, pytree.tree_leaves((inputs, keywords)))

    def leave(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self.inside.pop()
        self.kept.append(output)
        if isinstance(output, Tensor):  # an activation in place hands on the tensor that it was given, as its own
            self.makers[id(output)] = key = (module, self.calls[module])
            self.users[key] = []

    def use(self, user: nn.Module | None, values: Iterable[Any]) -> None:
        for value in values:
            if isinstance(value, Tensor) and id(value) in self.makers:
                self.users[self.makers[id(value)]].append(user)

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if not self.inside:
            self.use(None, pytree.tree_leaves((args, kwargs)))
        result = func(*args, **kwargs)
        self.kept.append(result)
        return result
