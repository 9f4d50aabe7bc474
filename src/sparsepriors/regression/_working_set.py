"""The columns that coordinate descent works on, with their Gram matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsepriors.regression._design import Design
from sparsepriors.regression.forms import Form

_FIRST = 10          # columns of room at least
_ROOM = 1.5          # growth of the Gram matrix's room


@dataclass(frozen=True)
class Judgement:
    """Of a point: r, X^T r, for each unit its violation and whether it may be nonzero; an unknown gap is infinite."""

    certificate: float
    objective: float
    residual: Tensor
    correlation: Tensor
    violation: Tensor
    active: Tensor
    gap: float


def choose(violation: Tensor, inside: Tensor, most: int) -> Tensor:
    """The units outside that violate optimality most, at most so many."""
    outside = torch.where(inside, 0.0, violation)
    found = torch.topk(outside, min(most, outside.numel()))
    return found.indices[found.values > 0]


class Columns:
    """Some columns of a design.

    Attributes
    ----------
    index
        Their numbers, in the order in which they were taken in.
    inside
        ``(p,)`` booleans: which.
    """

    def __init__(self, count: int) -> None:
        self.index = torch.zeros(0, dtype=torch.long)
        self.inside = torch.zeros(count, dtype=torch.bool)

    @property
    def size(self) -> int:
        """How many."""
        return self.index.numel()

    def start(self, x: Tensor) -> int:
        """Take in the columns that x is not zero on; how many they are."""
        support = x.nonzero()[:, 0]
        self.add(support)
        return support.numel()

    def grow(self, violation: Tensor, most: int) -> bool:
        """Take in the columns outside that violate optimality most; whether there was any."""
        new = choose(violation, self.inside, most)
        self.add(new)
        return new.numel() > 0

    def add(self, columns: Tensor) -> None:
        """Take these columns in; those inside stay where they are."""
        new = columns[~self.inside[columns]]
        self.index = torch.cat([self.index, new])
        self.inside[new] = True


class WorkingSet(Columns):
    """Columns that are descended on, with their Gram matrix in a square that has room to grow."""

    def __init__(self, design: Design) -> None:
        super().__init__(design.columns)
        self._design = design
        self._gram = torch.zeros(0, 0, dtype=torch.float64)

    @property
    def gram(self) -> Tensor:
        """Their Gram matrix, in the first rows and columns of a square."""
        return self._gram

    def add(self, columns: Tensor) -> None:
        """Take these columns in; those inside stay where they are."""
        k = self.size
        super().add(columns)
        if self.size == k:
            return
        size, new = self.size, self.index[k:]
        if size > self._gram.shape[0]:
            room = min(int(_ROOM * size) + _FIRST, self._design.columns)
            larger = torch.zeros(room, room, dtype=torch.float64)
            larger[:k, :k] = self._gram[:k, :k]
            self._gram = larger
        block = self._design.gram(self.index, new)
        self._gram[:size, k:size] = block
        self._gram[k:size, :k] = block[:k].mT

    def descend(self, penalty: Form, x: Tensor, found: Judgement, tol: float) -> Tensor:
        """Minimise over these columns until no coordinate violates optimality by more than ``tol``."""
        k, inner = self.size, penalty.of(self.index)
        u, q = x[self.index], found.correlation[self.index]
        linear = q + self._gram[:k, :k] @ u
        u = inner.minimise(self._gram, linear, u, q, tol)
        return x.index_copy(0, self.index, u)
