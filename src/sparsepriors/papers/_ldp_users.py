"""The users of `ldp_regression`: normal features, chunk by chunk, or pictures; coefficients are planted in both."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sparsepriors.data import image_set

NOISE = 0.5
Y_SCALE = math.sqrt(1 + NOISE**2)
"""Standard deviation of y, which users and server are told, as that of x is 1."""
_FLAT = 1e-6
"""Variances below this share of the largest are not blown up: such pixels hardly vary."""


@dataclass(frozen=True)
class Crowd:
    """Users whose responses follow k of d features; the coefficients are those of the seed."""

    d: int
    k: int
    seed: int

    @property
    def theta(self) -> Tensor:
        """The coefficients: k entries of size 1/sqrt(k) and random signs."""
        g = torch.Generator().manual_seed(self.seed * 1009 + self.d)
        signs = 2.0 * torch.randint(2, (self.k,), generator=g) - 1
        support = torch.randperm(self.d, generator=g)[:self.k]
        return torch.zeros(self.d).index_copy(0, support, signs / math.sqrt(self.k))

    def error(self, coef: np.ndarray) -> float:
        """``||coef - theta||_2``."""
        return float(np.linalg.norm(np.asarray(coef, dtype=np.float64) - self.theta.double().numpy()))


@dataclass(frozen=True)
class Users(Crowd):
    """A population: the same user has the same data whenever they are drawn."""

    chunk: int
    correlation: float = 0.0

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


@dataclass(frozen=True, eq=False)
class Pictures(Crowd):
    """Each user holds a picture, as pixels that public pictures whiten: ``(n, d)``, with the whitened public ones."""

    X: Tensor
    public: Tensor

    @classmethod
    def of(cls, name: str, pool: int, k: int, seed: int) -> Pictures:
        """The training pictures of a set as users, its test pictures as public; means of ``pool x pool`` pixels."""
        images = image_set(name)
        users, public = (functional.avg_pool2d(part.images.double(), pool).flatten(1)
                         for part in (images.train, images.test))
        mean = public.mean(dim=0)
        values, vectors = torch.linalg.eigh((public - mean).mT @ (public - mean) / len(public))
        whiten = vectors / values.clamp(min=_FLAT * values[-1]).sqrt() @ vectors.mT
        users, public = ((part - mean) @ whiten for part in (users, public))
        return cls(users.shape[1], k, seed, users.float(), public.float())

    def responses(self) -> Tensor:
        """``(n,)``, the noise of the seed."""
        g = torch.Generator().manual_seed(self.seed)
        return self.X @ self.theta + NOISE * torch.randn(len(self.X), generator=g)
