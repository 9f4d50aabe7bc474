"""How much each layer keeps when the whole model keeps a given share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors._described import Described
from sparsepriors.priors.patterns import Pattern, Unstructured


class Distribution(Described, ABC):
    """Turns one pattern and the scores of every layer into one mask for every layer."""

    def masks(self, pattern: Pattern, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Boolean masks by name, True where a weight is kept.

        Raises
        ------
        TypeError
            If the pattern has no density that could be distributed.
        ValueError
            If a score is NaN or infinite, or a shape does not suit the pattern; the message names the layer.
        """
        for name, score in scores.items():
            _checks.inexact(f"the score of {name}", score)
        return self._masks(pattern, scores)

    @abstractmethod
    def _masks(self, pattern: Pattern, scores: Mapping[str, Tensor]) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Uniform(Distribution):
    """The same pattern, hence the same density, in every layer."""

    def _masks(self, pattern: Pattern, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: _mask(name, pattern, score) for name, score in scores.items()}


@dataclass(frozen=True)
class ERK(Distribution):
    """Erdős-Rényi-Kernel densities: layers with few weights for their size of in- and output keep more of them.

    The density of a layer of shape s is eps * (sum(s) / prod(s)) ** power, cut at 1, with the eps that meets the total
    (Mocanu et al., 2018, for matrices; Evci et al., 2020, arXiv:1911.11134, appendix, for kernels).

    Parameters
    ----------
    power
        Exponent; 0 gives uniform densities.
    """

    power: float = 1.0

    def __post_init__(self) -> None:
        _checks.nonnegative("power", self.power)

    def densities(self, shapes: Mapping[str, tuple[int, ...]], density: float) -> dict[str, float]:
        """Density of each layer; before rounding to whole weights they keep exactly ``density`` of the total.

        Raises
        ------
        ValueError
            If ``density`` is not in (0, 1], or a shape is empty.
        """
        check_density("density", density)
        if not shapes or any(math.prod(s) == 0 for s in shapes.values()):
            raise ValueError(f"shapes must be of at least one layer, each with at least one weight, got {dict(shapes)}")
        sizes = {name: math.prod(s) for name, s in shapes.items()}
        raw = {name: (sum(s) / sizes[name]) ** self.power for name, s in shapes.items()}
        dense: set[str] = set()
        while True:
            sparse = [name for name in shapes if name not in dense]
            if not sparse:
                return dict.fromkeys(shapes, 1.0)
            budget = density * sum(sizes.values()) - sum(sizes[n] for n in dense)
            eps = budget / sum(raw[n] * sizes[n] for n in sparse)
            largest = max(raw[n] for n in sparse)
            if eps * largest <= 1:
                return {n: 1.0 if n in dense else eps * raw[n] for n in shapes}
            dense |= {n for n in sparse if raw[n] == largest}

    def _masks(self, pattern: Pattern, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        density = getattr(pattern, "density", None)
        if density is None:
            raise TypeError(f"ERK needs a pattern with a density, got {pattern}")
        each = self.densities({name: tuple(s.shape) for name, s in scores.items()}, density)
        return {name: _mask(name, pattern.at(each[name]), score) for name, score in scores.items()}


@dataclass(frozen=True)
class Global(Distribution):
    """One comparison of all scores of all layers: no layer has a density of its own, and one may lose all its weights.

    Only `Unstructured` patterns have scores that may be compared across layers.
    """

    def _masks(self, pattern: Pattern, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if not isinstance(pattern, Unstructured):
            raise TypeError(f"Global compares single weights across layers and takes Unstructured patterns, "
                            f"got {type(pattern).__name__}; use Uniform()")
        dtype = next(iter(scores.values())).dtype
        if any(s.dtype != dtype for s in scores.values()):
            raise TypeError(f"Global needs scores of one dtype, got {sorted({str(s.dtype) for s in scores.values()})}")
        whole = pattern.mask(torch.cat([s.flatten() for s in scores.values()]))
        parts = whole.split([s.numel() for s in scores.values()])
        return {name: part.reshape(scores[name].shape).clone() for name, part in zip(scores, parts, strict=True)}


def check_density(name: str, density: float) -> None:
    """Raise `ValueError` unless ``density`` is in (0, 1]."""
    _checks.positive(name, density)
    if density > 1:
        raise ValueError(f"{name} must be in (0, 1], got {density}")


def _mask(name: str, pattern: Pattern, score: Tensor) -> Tensor:
    try:
        return pattern.mask(score)
    except ValueError as e:
        raise ValueError(f"{name} of shape {tuple(score.shape)} cannot take {pattern}: {e}") from e
