"""How much each layer keeps when the whole model keeps a given share."""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors._described import Described
from sparsepriors.priors.patterns import Pattern, Unstructured

Shapes = Mapping[str, tuple[int, ...]]


class Distribution(Described, ABC):
    """Turns one pattern and the scores of every layer into one mask for every layer."""

    draws: ClassVar[bool] = False
    """Whether `masks` needs a generator."""

    def masks(self, pattern: Pattern, scores: Mapping[str, Tensor], *,
              generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Boolean masks by name, True where a weight is kept.

        Raises
        ------
        TypeError
            If the pattern has no density that could be distributed.
        FloatingPointError
            If a score is NaN or infinite; the message names the weight.
        ValueError
            If a shape does not suit the pattern (the message names the layer), or the distribution draws and there is
            no ``generator``.
        """
        return self._masks(pattern, scores, generator)

    def check(self, pattern: Pattern, shapes: Shapes) -> None:
        """Raise what `masks` will, as far as the pattern and the weights' names and shapes tell.

        Raises
        ------
        TypeError, ValueError, KeyError
            If the pattern has no density that could be distributed, the layers cannot keep it together, or a layer
            that the distribution names is not there.
        """

    @abstractmethod
    def _masks(self, pattern: Pattern, scores: Mapping[str, Tensor],
               generator: torch.Generator | None) -> dict[str, Tensor]: ...


class PerLayer(Distribution):
    """A density for each layer, from the layers' shapes alone."""

    def densities(self, shapes: Shapes, density: float) -> dict[str, float]:
        """Density of each layer; before rounding to whole weights they keep exactly ``density`` of the total.

        Raises
        ------
        ValueError
            If ``density`` is not in (0, 1], a shape is empty, or the layers that stay dense leave nothing to share.
        """
        check_density("density", density)
        if not shapes or any(math.prod(s) == 0 for s in shapes.values()):
            raise ValueError(f"shapes must be of at least one layer, each with at least one weight, got {dict(shapes)}")
        return self._densities(shapes, density)

    @abstractmethod
    def _densities(self, shapes: Shapes, density: float) -> dict[str, float]: ...

    def _masks(self, pattern: Pattern, scores: Mapping[str, Tensor],
               generator: torch.Generator | None) -> dict[str, Tensor]:
        each = self._each(pattern, {name: tuple(s.shape) for name, s in scores.items()})
        return {name: _mask(name, pattern.at(each[name]), score) for name, score in scores.items()}

    def check(self, pattern: Pattern, shapes: Shapes) -> None:
        for density in self._each(pattern, shapes).values():
            pattern.at(density)

    def _each(self, pattern: Pattern, shapes: Shapes) -> dict[str, float]:
        density = getattr(pattern, "density", None)
        if density is None:
            raise TypeError(f"{type(self).__name__} needs a pattern with a density, got {pattern}")
        return self.densities(shapes, density)


@dataclass(frozen=True)
class Uniform(PerLayer):
    """The same pattern, hence the same density, in every layer."""

    def _densities(self, shapes: Shapes, density: float) -> dict[str, float]:
        return dict.fromkeys(shapes, density)

    def _masks(self, pattern: Pattern, scores: Mapping[str, Tensor],
               generator: torch.Generator | None) -> dict[str, Tensor]:
        return {name: _mask(name, pattern, score) for name, score in scores.items()}

    def check(self, pattern: Pattern, shapes: Shapes) -> None:
        """Nothing to raise: any pattern will do."""


@dataclass(frozen=True)
class UniformPlus(PerLayer):
    """Uniform, but the first layer is dense and the last keeps at least ``last`` of its weights (arXiv:1902.09574).

    The others share what is left of the total. The published code of Liu et al. (2022) divides by the size of all
    layers where only the others share, and so keeps fewer weights than asked; this one keeps the number asked.

    Parameters
    ----------
    last
        Least density of the last layer.
    """

    last: float = 0.2

    def __post_init__(self) -> None:
        check_density("last", self.last)

    def _densities(self, shapes: Shapes, density: float) -> dict[str, float]:
        first, *others = shapes
        fixed = {first: 1.0}
        if density < self.last and others:
            fixed[others[-1]] = self.last
        return _share(shapes, density, fixed, lambda rest, left: dict.fromkeys(rest, left))


@dataclass(frozen=True)
class ERK(PerLayer):
    """Erdős-Rényi-Kernel densities: layers with few weights for their size of in- and output keep more of them.

    The density of a layer of shape s is eps * (sum(s) / prod(s)) ** power, cut at 1, with the eps that meets the total
    (Mocanu et al., 2018, for matrices; Evci et al., 2020, arXiv:1911.11134, appendix, for kernels).

    Parameters
    ----------
    power
        Exponent; 0 gives uniform densities.
    kernel
        Count the kernel's axes; without them only in- and output channels count ("ER").
    last
        Density of the last layer, fixed before the others are solved for ("ERK+" with 1); by default as the others.
    """

    power: float = 1.0
    kernel: bool = True
    last: float | None = None

    def __post_init__(self) -> None:
        _checks.nonnegative("power", self.power)
        if self.last is not None:
            check_density("last", self.last)

    def _densities(self, shapes: Shapes, density: float) -> dict[str, float]:
        *_, last = shapes
        return _share(shapes, density, {} if self.last is None else {last: self.last}, self._solve(shapes))

    def _solve(self, shapes: Shapes) -> Callable[[list[str], float], dict[str, float]]:
        sizes = {name: math.prod(s) for name, s in shapes.items()}
        sides = {name: s if self.kernel else s[:2] for name, s in shapes.items()}
        raw = {name: (sum(s) / math.prod(s)) ** self.power for name, s in sides.items()}

        def solve(names: list[str], density: float) -> dict[str, float]:
            dense: set[str] = set()
            while sparse := [n for n in names if n not in dense]:
                budget = density * sum(sizes[n] for n in names) - sum(sizes[n] for n in dense)
                eps = budget / sum(raw[n] * sizes[n] for n in sparse)
                largest = max(raw[n] for n in sparse)
                if eps * largest <= 1:
                    return {n: 1.0 if n in dense else eps * raw[n] for n in names}
                dense |= {n for n in sparse if raw[n] == largest}
            return dict.fromkeys(names, 1.0)

        return solve


@dataclass(frozen=True)
class Custom(PerLayer):
    """A density for each layer that is named, by parameter or layer name; the others share what is left, uniformly.

    Parameters
    ----------
    layers
        Pairs of name and density.
    """

    layers: tuple[tuple[str, float], ...] = field(default=())

    def __post_init__(self) -> None:
        for name, density in self.layers:
            check_density(f"the density of {name}", density)

    def _densities(self, shapes: Shapes, density: float) -> dict[str, float]:
        fixed: dict[str, float] = {}
        for name, value in self.layers:
            found = name if name in shapes else f"{name}.weight"
            if found not in shapes:
                near = difflib.get_close_matches(name, shapes, n=3)
                raise KeyError(f"no selected layer is named {name!r}" + (f"; near: {', '.join(near)}" if near else ""))
            fixed[found] = value
        if len(fixed) == len(shapes):
            return fixed
        return _share(shapes, density, fixed, lambda rest, left: dict.fromkeys(rest, left))


@dataclass(frozen=True)
class Global(Distribution):
    """One comparison of all scores of all layers: no layer has a density of its own, and one may lose all its weights.

    Only `Unstructured` patterns have scores that may be compared across layers.
    """

    def _masks(self, pattern: Pattern, scores: Mapping[str, Tensor],
               generator: torch.Generator | None) -> dict[str, Tensor]:
        self.check(pattern, {})
        dtype = next(iter(scores.values())).dtype
        if any(s.dtype != dtype for s in scores.values()):
            raise TypeError(f"Global needs scores of one dtype, got {sorted({str(s.dtype) for s in scores.values()})}")
        for name, score in scores.items():
            finite(name, score)
        whole = pattern.mask(torch.cat([s.flatten() for s in scores.values()]))
        parts = whole.split([s.numel() for s in scores.values()])
        return {name: part.reshape(scores[name].shape).clone() for name, part in zip(scores, parts, strict=True)}

    def check(self, pattern: Pattern, shapes: Shapes) -> None:
        if not isinstance(pattern, Unstructured):
            raise TypeError(f"Global compares single weights across layers and takes Unstructured patterns, "
                            f"got {type(pattern).__name__}; use Uniform()")


@dataclass(frozen=True)
class Shuffled(Distribution):
    """The counts per layer of another distribution, at positions that are random within the layer.

    What tells whether the positions that a score chose are worth more than the layers' densities (Su et al., 2020,
    arXiv:2009.11094); with a score made for pruning at initialisation these are the "SNIP ratio" and "GraSP ratio" of
    Liu et al. (2022, arXiv:2202.02643).

    Parameters
    ----------
    distribution
        Where the counts come from.
    """

    distribution: Distribution = Global()
    draws: ClassVar[bool] = True

    def _masks(self, pattern: Pattern, scores: Mapping[str, Tensor],
               generator: torch.Generator | None) -> dict[str, Tensor]:
        if generator is None:
            raise ValueError("Shuffled draws positions and needs a generator")
        masks = self.distribution.masks(pattern, scores, generator=generator)
        return {name: _permuted(mask, generator) for name, mask in masks.items()}

    def check(self, pattern: Pattern, shapes: Shapes) -> None:
        self.distribution.check(pattern, shapes)


@dataclass(frozen=True)
class Bernoulli(Distribution):
    """Every weight kept or not on its own, with the layers' densities of another distribution as probabilities.

    The published code of Liu et al. (2022, arXiv:2202.02643) draws its masks so; the number of kept weights then
    varies from draw to draw, and a small layer may lose all of them.

    Parameters
    ----------
    distribution
        Where the probabilities come from.
    """

    distribution: Distribution = field(default_factory=ERK)
    draws: ClassVar[bool] = True

    def _masks(self, pattern: Pattern, scores: Mapping[str, Tensor],
               generator: torch.Generator | None) -> dict[str, Tensor]:
        if generator is None:
            raise ValueError("Bernoulli draws positions and needs a generator")
        masks = self.distribution.masks(pattern, scores, generator=generator)
        return {name: (torch.rand(m.shape, generator=generator, device=generator.device)
                       < float(m.double().mean())).to(m.device) for name, m in masks.items()}

    def check(self, pattern: Pattern, shapes: Shapes) -> None:
        self.distribution.check(pattern, shapes)


def check_density(name: str, density: float) -> None:
    """Raise `ValueError` unless ``density`` is in (0, 1]."""
    _checks.positive(name, density)
    if density > 1:
        raise ValueError(f"{name} must be in (0, 1], got {density}")


def finite(name: str, score: Tensor) -> None:
    """Raise `FloatingPointError` if a score holds NaN or infinite entries."""
    if not _checks.all_finite(score):
        raise FloatingPointError(f"the score of {name} holds NaN or infinite entries")


def _share(shapes: Shapes, density: float, fixed: Mapping[str, float],
           solve: Callable[[list[str], float], dict[str, float]]) -> dict[str, float]:
    """Densities of all layers when some are fixed and ``solve(names, density)`` gives those of the rest."""
    sizes = {name: math.prod(s) for name, s in shapes.items()}
    rest = [name for name in shapes if name not in fixed]
    spent = sum(d * sizes[name] for name, d in fixed.items())
    budget = density * sum(sizes.values()) - spent
    size = sum(sizes[name] for name in rest)
    if density == 1:
        return dict.fromkeys(shapes, 1.0)
    if not rest or budget <= 0 or budget > size:
        raise ValueError(f"the layers with a density of their own ({', '.join(fixed)}) keep {spent:,.0f} weights, so "
                         f"the others cannot bring the total to {density:g} of {sum(sizes.values()):,}")
    solved = solve(rest, budget / size)
    return {name: fixed.get(name, solved.get(name, 1.0)) for name in shapes}


def _permuted(mask: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(mask.numel(), generator=generator, device=generator.device).to(mask.device)
    return mask.flatten()[order].reshape(mask.shape)


def _mask(name: str, pattern: Pattern, score: Tensor) -> Tensor:
    try:
        return pattern.mask(score)
    except ValueError as e:
        raise ValueError(f"{name} of shape {tuple(score.shape)} cannot take {pattern}: {e}") from e
    except FloatingPointError as e:
        raise FloatingPointError(f"the score of {name} holds NaN or infinite entries") from e
