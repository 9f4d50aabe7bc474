"""Sources of batches for `TrainLoop`: shuffled tensors, rows of like length, and batches drawn by a function."""

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
        _same_rows(tensors)
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


class LengthGrouped:
    """Batches of rows of like length, in a new random order every epoch: little of a batch is padding.

    The rows are shuffled, those of ``pool`` batches together are sorted by length, and the batches that they are cut
    into are shuffled again.

    Parameters
    ----------
    tensors
        Tensors with the same first axis; a batch is the tuple of their rows.
    lengths
        The length of each row.
    batch_size
        Rows per batch, at most the number of rows. Rows left over at the end of an epoch wait for the next one's order.
    pool
        Batches whose rows are sorted together; with 1 the order is fully random.

    Raises
    ------
    ValueError
        If the first axes differ or the batch is larger than the data.
    """

    def __init__(self, *tensors: Tensor, lengths: Tensor, batch_size: int, pool: int = 16) -> None:
        _same_rows((*tensors, lengths))
        self.tensors, self.lengths = tensors, lengths.cpu()
        self.batch_size = _checks.count("batch_size", batch_size, low=1, high=len(lengths))
        self.pool = _checks.count("pool", pool, low=1)
        self._order, self._next = torch.empty(0, batch_size, dtype=torch.int64), 0

    def next(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The next ``batch_size`` rows of every tensor."""
        if self._next >= len(self._order):
            self._order, self._next = self._draw(generator), 0
        rows = self._order[self._next].to(self.tensors[0].device)
        self._next += 1
        return tuple(t[rows] for t in self.tensors)

    def _draw(self, generator: torch.Generator) -> Tensor:
        batches = len(self.lengths) // self.batch_size
        order = torch.randperm(len(self.lengths), generator=generator, device=generator.device).cpu()
        pools = order[:batches * self.batch_size].split(self.pool * self.batch_size)
        ordered = torch.cat([rows[self.lengths[rows].argsort(stable=True)] for rows in pools])
        return ordered.reshape(batches, self.batch_size)[
            torch.randperm(batches, generator=generator, device=generator.device).cpu()]

    def state_dict(self) -> dict[str, Any]:
        """The batches of this epoch and the place among them."""
        return {"order": self._order, "next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put them back."""
        if state["order"].shape[1:] != (self.batch_size,) or state["order"].numel() > len(self.lengths):
            raise ValueError(f"the saved batches have shape {tuple(state['order'].shape)}, those of this training "
                             f"{self.batch_size} of {len(self.lengths)} rows")
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


def _same_rows(tensors: tuple[Tensor, ...]) -> None:
    if not tensors or any(t.ndim == 0 for t in tensors) or len({len(t) for t in tensors}) != 1:
        raise ValueError(f"tensors must share their first axis, got shapes {[tuple(t.shape) for t in tensors]}")
