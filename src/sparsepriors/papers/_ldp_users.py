"""Simulated users of `ldp_regression`: normal features, a planted coefficient vector, chunk by chunk."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NOISE = 0.5
Y_SCALE = math.sqrt(1 + NOISE**2)
"""Standard deviation of y, which users and server are told, as that of x is 1."""


@dataclass(frozen=True)
class Users:
    """A population: the same user has the same data whenever they are drawn."""

    d: int
    k: int
    seed: int
    chunk: int
    correlation: float = 0.0

    @property
    def theta(self) -> Tensor:
        """The coefficients: k entries of size 1/sqrt(k) and random signs."""
        g = torch.Generator().manual_seed(self.seed * 1009 + self.d)
        signs = 2.0 * torch.randint(2, (self.k,), generator=g) - 1
        support = torch.randperm(self.d, generator=g)[:self.k]
        return torch.zeros(self.d).index_copy(0, support, signs / math.sqrt(self.k))

    def draw(self, part: int, count: int | None = None) -> tuple[Tensor, Tensor]:
        """The users of a chunk: ``(count, d)`` and ``(count,)`` in float32."""
        g = torch.Generator().manual_seed((self.seed * 1009 + self.d) * 100_003 + part + 1)
        X = torch.randn(self.chunk if count is None else count, self.d, generator=g)
        if self.correlation:
            for j in range(1, self.d):
                X[:, j] = self.correlation * X[:, j - 1] + math.sqrt(1 - self.correlation**2) * X[:, j]
        return X, X @ self.theta + NOISE * torch.randn(len(X), generator=g)

    def first(self, n: int, skip: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """So many users from the chunk ``skip`` on, as arrays."""
        X, y = zip(*(self.draw(skip + part) for part in range(math.ceil(n / self.chunk))), strict=True)
        return torch.cat(X)[:n].numpy(), torch.cat(y)[:n].numpy()

    def error(self, coef: np.ndarray) -> float:
        """``||coef - theta||_2``."""
        return float(np.linalg.norm(np.asarray(coef, dtype=np.float64) - self.theta.double().numpy()))
