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


class WorkingSet:
    """Columns that are descended on, with their Gram matrix in a square that has room to grow."""

    def __init__(self, design: Design) -> None:
        self._design = design
        self._index = torch.zeros(0, dtype=torch.long)
        self._inside = torch.zeros(design.columns, dtype=torch.bool)
        self._gram = torch.zeros(0, 0, dtype=torch.float64)

    @property
    def index(self) -> Tensor:
        """Their numbers, in the order of the Gram matrix."""
        return self._index

    @property
    def gram(self) -> Tensor:
        """Their Gram matrix, in the first rows and columns of a square."""
        return self._gram

    @property
    def inside(self) -> Tensor:
        """``(p,)`` booleans: which columns."""
        return self._inside

    @property
    def size(self) -> int:
        """How many columns."""
        return self._index.numel()

    def start(self, x: Tensor) -> int:
        """Take in the columns that x is not zero on; how many they are."""
        support = x.nonzero()[:, 0]
        self.add(support)
        return support.numel()

    def grow(self, violation: Tensor, most: int) -> bool:
        """Take in the columns outside that violate optimality most; whether there was any."""
        new = choose(violation, self._inside, most)
        self.add(new)
        return new.numel() > 0

    def add(self, columns: Tensor) -> None:
        """Take these columns in; those inside stay where they are."""
        new = columns[~self._inside[columns]]
        if not new.numel():
            return
        k, size = self.size, self.size + new.numel()
        if size > self._gram.shape[0]:
            room = min(int(_ROOM * size) + _FIRST, self._design.columns)
            larger = torch.zeros(room, room, dtype=torch.float64)
            larger[:k, :k] = self._gram[:k, :k]
            self._gram = larger
        self._index = torch.cat([self._index, new])
        self._inside[new] = True
        block = self._design.gram(self._index, new)
        self._gram[:size, k:size] = block
        self._gram[k:size, :k] = block[:k].mT

    def descend(self, penalty: Form, x: Tensor, found: Judgement, tol: float) -> Tensor:
        """Minimise over these columns until no coordinate violates optimality by more than ``tol``."""
        k, inner = self.size, penalty.of(self._index)
        u, q = x[self._index], found.correlation[self._index]
        linear = q + self._gram[:k, :k] @ u
        u = inner.minimise(self._gram, linear, u, q, tol)
        return x.index_copy(0, self._index, u)
