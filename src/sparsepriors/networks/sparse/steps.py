"""Looking at gradients right before an optimizer uses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle


def before_step(optimizer: torch.optim.Optimizer, act: Callable[[], object]) -> RemovableHandle:
    """Call ``act`` with the fresh gradients in place: before a step, or after the closure that will compute them."""

    def around(_: torch.optim.Optimizer, args: tuple[Any, ...],
               kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            act()
            return None

        def watched() -> Any:
            loss = closure()
            act()
            return loss

        return args[:1], {**kwargs, "closure": watched}

    return optimizer.register_step_pre_hook(around)
