"""What a weight is worth: scores of the shape of the weight, larger is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sparsepriors._described import Described


class Score(Protocol):
    """A function of a weight's name and value that gives real scores of the same shape."""

    def __call__(self, name: str, weight: Tensor) -> Tensor:
        """Score one weight."""
        ...


@dataclass(frozen=True)
class MagnitudeScore(Described):
    """Absolute values (Han, Pool, Tran and Dally, 2015)."""

    def __call__(self, name: str, weight: Tensor) -> Tensor:
        return weight.detach().abs()


@dataclass(frozen=True)
class RandomScore:
    """Independent uniform numbers: the baseline that any other score must beat.

    Parameters
    ----------
    generator
        The only source of randomness; each call draws from it, on its device.
    """

    generator: torch.Generator

    def __call__(self, name: str, weight: Tensor) -> Tensor:
        draw = torch.rand(weight.shape, generator=self.generator, device=self.generator.device)
        return draw.to(weight.device)
