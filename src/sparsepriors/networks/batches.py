"""Sources of batches for `TrainLoop`: shuffled tensors, and batches drawn by a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sparsepriors import _checks


class Shuffled:
    """Batches of aligned tensors, in a new random order every epoch.

    Parameters
    ----------
    tensors
        Tensors with the same first axis; a batch is the tuple of their rows.
    batch_size
        Rows per batch, at most the number of rows. Rows left over at the end of an epoch wait for the next one's order.

    Raises
    ------
    ValueError
        If the first axes differ or the batch is larger than the data.
    """

    def __init__(self, *tensors: Tensor, batch_size: int) -> None:
        if not tensors or any(t.ndim == 0 for t in tensors) or len({len(t) for t in tensors}) != 1:
            raise ValueError("tensors must share their first axis, got shapes "
                             f"{[tuple(t.shape) for t in tensors]}")
        self.tensors = tensors
        self.batch_size = _checks.count("batch_size", batch_size, low=1, high=len(tensors[0]))
        self._order, self._next = torch.empty(0, dtype=torch.int64), 0

    def next(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The next ``batch_size`` rows of every tensor."""
        if self._next + self.batch_size > len(self._order):
            self._order, self._next = torch.randperm(len(self.tensors[0]), generator=generator,
                                                     device=generator.device), 0
        rows = self._order[self._next:self._next + self.batch_size].to(self.tensors[0].device)
        self._next += self.batch_size
        return tuple(t[rows] for t in self.tensors)

    def state_dict(self) -> dict[str, Any]:
        """The order of this epoch and the place in it."""
        return {"order": self._order, "next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put them back."""
        if len(state["order"]) not in (0, len(self.tensors[0])):
            raise ValueError(f"the saved order has {len(state['order'])} rows, the data {len(self.tensors[0])}")
        self._order, self._next = state["order"], state["next"]


class Drawn:
    """Batches that a function draws afresh from the generator every step."""

    def __init__(self, draw: Callable[[torch.Generator], Any]) -> None:
        self._draw = draw

    def next(self, generator: torch.Generator) -> Any:
        """A new batch."""
        return self._draw(generator)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: all is in the generator."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to put back."""
