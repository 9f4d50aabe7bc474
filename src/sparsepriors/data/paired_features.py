"""Paired activations with a planted truth: which features two models share, and which only one of them has.

The simulator behind the comparison of crosscoders: five kinds of features, of which two look as if only the second
model had them when a sparsity penalty is asked, though both do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsepriors import _checks

_TURN = 0.15          # how far the first model's direction of a feature is turned from the second's
_RATES = (0.008, 0.06)  # firing probabilities, log-uniform
_WEAK = (0.25, 0.5)   # strength of a weak feature in the first model
_ONE_SIDED = 0.15     # share of the events of a decoupling-prone feature that only one model sees
_LEAST, _SPREAD = 0.2, 0.3   # magnitudes are max(0.2, 1 + 0.3 N)


class Kind(IntEnum):
    """How a planted feature stands in the two models."""

    SHARED = 0
    """The same magnitude in both."""
    WEAK = 1
    """In both, with a quarter to a half of the strength in the first: prone to complete shrinkage."""
    DECOUPLED = 2
    """In both, with magnitudes that agree in part and events that one model does not see: prone to decoupling."""
    SECOND_ONLY = 3
    """In the second model alone."""
    FIRST_ONLY = 4
    """In the first model alone."""


COUNTS = (72, 20, 20, 10, 10)
"""Features of each `Kind`, in its order."""


@dataclass(frozen=True, eq=False)
class PairedFeatures:
    """Features of two models, from which paired activations are drawn.

    Attributes
    ----------
    directions
        Of unit length; model 0 is the base, model 1 what was made of it.
    strength
        Factor of a feature's magnitude in each model; 0 where the model does not have it.
    kind
        A `Kind` for each feature.
    probability
        How often a feature fires.
    noise
        Standard deviation of the normal noise on every entry.
    """

    directions: Float[Tensor, "2 features d"]
    strength: Float[Tensor, "2 features"]
    kind: Int[Tensor, " features"]
    probability: Float[Tensor, " features"]
    noise: float = 0.02

    def __post_init__(self) -> None:
        _checks.inexact("directions", self.directions)
        if self.directions.ndim != 3 or len(self.directions) != 2 or not self.directions.numel():
            raise ValueError(f"directions must have shape (2, features, d), got {tuple(self.directions.shape)}")
        features = self.directions.shape[1]
        for name, shape in (("strength", (2, features)), ("kind", (features,)), ("probability", (features,))):
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(f"{name} must have shape {shape}, got {tuple(getattr(self, name).shape)}")
        _checks.nonnegative("strength", self.strength)
        _checks.nonnegative("noise", self.noise)
        _checks.positive("probability", self.probability)
        if float(self.probability.max()) > 1:
            raise ValueError(f"probability must be at most 1, got {float(self.probability.max()):g}")

    @property
    def active(self) -> float:
        """Mean number of features that fire."""
        return float(self.probability.sum())

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "count 2 d"]:
        """Draw paired activations.

        A feature that fires has magnitude ``max(0.2, 1 + 0.3 N)``, the same in both models up to `strength`. A
        decoupled feature's magnitude in the first model is the mean of that and of one of its own, and in 15 % of its
        events one of the two models, at random, does not see it.

        Raises
        ------
        ValueError
            If ``count`` is less than 1.
        """
        _checks.count("count", count, low=1)
        features = self.directions.shape[1]
        fires = torch.rand(count, features, generator=generator) < self.probability
        own = self._magnitudes(count, generator)
        other = self._magnitudes(count, generator)
        decoupled = self.kind == Kind.DECOUPLED
        first = torch.where(decoupled, 0.5 * (own + other), own)
        one_sided = (torch.rand(count, features, generator=generator) < _ONE_SIDED) & decoupled
        blind = torch.rand(count, features, generator=generator) < 0.5
        codes = torch.stack([torch.where(fires & ~(one_sided & blind), first, 0),
                             torch.where(fires & ~(one_sided & ~blind), own, 0)], dim=1) * self.strength
        clean = torch.einsum("bmf,mfd->bmd", codes, self.directions)
        return clean + self.noise * torch.randn(clean.shape, generator=generator)

    def nearest(self, decoder: Float[Tensor, "latents d"], model: int = 1,
                least: float = 0.8) -> Int[Tensor, " latents"]:
        """For each latent, the feature whose direction in a model is nearest to its decoder there; -1 for none.

        Parameters
        ----------
        decoder
            Rows of any length; a row of zeros is near to nothing. Several may be near to the same feature.
        model
            Whose directions.
        least
            Cosine that must be exceeded.

        Raises
        ------
        ValueError
            If the widths differ, or there is no such model.
        """
        _checks.count("model", model, high=1)
        _checks.inexact("decoder", decoder)
        if decoder.ndim != 2 or decoder.shape[1] != self.directions.shape[2]:
            raise ValueError(f"decoder must have shape (latents, {self.directions.shape[2]}), got "
                             f"{tuple(decoder.shape)}")
        rows = torch.nn.functional.normalize(decoder, dim=1)
        cosine, feature = (rows @ self.directions[model].mT).max(dim=1)
        return torch.where(cosine > least, feature, -1)

    def _magnitudes(self, count: int, generator: torch.Generator) -> Tensor:
        drawn = torch.randn(count, self.directions.shape[1], generator=generator)
        return (1 + _SPREAD * drawn).clamp(min=_LEAST)


def paired_features(d: int = 48, counts: tuple[int, ...] = COUNTS, *, noise: float = 0.02,
                    generator: torch.Generator) -> PairedFeatures:
    """Draw features of all kinds.

    Directions of the second model are random, those of the first the same turned a little
    (``normalise(D + 0.15 u)``, u a random unit vector); firing probabilities are log-uniform in 0.008 to 0.06, and a
    weak feature's strength in the first model uniform in 0.25 to 0.5.

    Parameters
    ----------
    d
        Width of each model's activations.
    counts
        Features of each `Kind`, in its order.
    noise
        Standard deviation of the noise on every entry.
    generator
        Draws everything.

    Raises
    ------
    ValueError
        If a size is out of range.
    """
    _checks.count("d", d, low=2)
    if len(counts) != len(Kind):
        raise ValueError(f"counts must have one entry for each of the {len(Kind)} kinds, got {len(counts)}")
    for i, n in enumerate(counts):
        _checks.count(f"counts[{i}]", n)
    features = sum(counts)
    _checks.count("sum of counts", features, low=1)
    second = torch.nn.functional.normalize(torch.randn(features, d, generator=generator), dim=1)
    aside = torch.nn.functional.normalize(torch.randn(features, d, generator=generator), dim=1)
    first = torch.nn.functional.normalize(second + _TURN * aside, dim=1)
    kind = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    low, high = map(math.log, _RATES)
    probability = (low + (high - low) * torch.rand(features, generator=generator)).exp()
    weak = _WEAK[0] + (_WEAK[1] - _WEAK[0]) * torch.rand(features, generator=generator)
    strength = torch.ones(2, features)
    strength[0] = torch.where(kind == Kind.WEAK, weak, 1.0)
    strength[0, kind == Kind.SECOND_ONLY] = 0
    strength[1, kind == Kind.FIRST_ONLY] = 0
    return PairedFeatures(torch.stack([first, second]), strength, kind, probability, noise)
