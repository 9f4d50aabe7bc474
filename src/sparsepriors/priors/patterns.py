"""Sparsity patterns: sets of allowed supports, which project like any other set and also give masks.

A mask is boolean, has the shape of the tensor, and is True where an entry may differ from zero. Counts are exact:
a density d of n entries keeps max(1, round(n d)) of them, halves rounded to even, and equal scores are kept in the
order of their index.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from sparsepriors import _checks, kernels
from sparsepriors.priors import _shapes
from sparsepriors.priors.sets import ConstraintSet


@dataclass(frozen=True)
class Pattern(ConstraintSet):
    """Base of sparsity patterns: subclasses give ``_mask`` for real scores."""

    def mask(self, scores: Tensor) -> Tensor:
        """The allowed support of largest total score.

        Parameters
        ----------
        scores
            Shape of the tensor to be masked; of complex scores the moduli count.

        Returns
        -------
        Tensor
            Boolean, same shape and device, contiguous.

        Raises
        ------
        FloatingPointError
            If a score is NaN or infinite.
        TypeError, ValueError
            If the scores are not floating or complex, or the pattern does not fit their shape.
        """
        if not isinstance(scores, Tensor) or not (scores.is_floating_point() or scores.is_complex()):
            got = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
            raise TypeError(f"scores must be a floating point or complex tensor, got {got}")
        scores = scores.detach() if scores.requires_grad else scores
        scores = scores.abs() if scores.is_complex() else scores
        if not _checks.all_finite(scores):
            raise FloatingPointError("scores hold NaN or infinite entries")
        self._fits(scores)
        return self._mask(scores).contiguous()

    def at(self, density: float) -> Self:
        """The same pattern at another density.

        Raises
        ------
        TypeError
            If the pattern itself fixes the density, as N:M does.
        """
        if "density" not in self.__dataclass_fields__:
            raise TypeError(f"{type(self).__name__} fixes its own density")
        return replace(self, **{"density": density})

    @abstractmethod
    def _mask(self, scores: Tensor) -> Tensor: ...

    def _project(self, x: Tensor) -> Tensor:
        # Not x * mask: that would store -0.0 for negative entries.
        return torch.where(self._mask(x.detach().abs()), x, 0)

    def _event(self, x: Tensor) -> int:
        """Axes of one unknown."""
        return x.ndim if self.dims is None else self.dims


def kept(count: int, density: float, *, allow_empty: bool = False) -> int:
    """How many of ``count`` entries a density keeps: ``round(count * density)``, halves to even, at least one."""
    return min(count, max(0 if allow_empty else 1, round(count * density)))


@dataclass(frozen=True)
class Unstructured(Pattern):
    """The largest entries, wherever they are.

    Parameters
    ----------
    density
        Share of entries kept, in [0, 1].
    allow_empty
        Whether a density that rounds to no entry keeps none instead of one.
    """

    density: float = 0.5
    allow_empty: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.share("density", self.density)

    def _mask(self, scores: Tensor) -> Tensor:
        rows = _shapes.flatten(scores, self.dims)
        k = kept(rows.shape[-1], self.density, allow_empty=self.allow_empty)
        return kernels.topk_mask(rows, k).reshape(scores.shape)


@dataclass(frozen=True)
class NM(Pattern):
    """At most n of every m consecutive entries of a row.

    Parameters
    ----------
    n, m
        1 <= n <= m.
    dim
        Axis of the rows, counted in one unknown. By default a row is all that a layer sums into one output: the
        vector itself, a row of linear weights ``(out, in)``, and of convolutions ``(out, in, *kernel)`` the entries
        of one output, input channels first and then kernel positions. Where m divides ``in``, groups hold channels
        of one kernel position; where it divides only ``in`` times the kernel's size, some reach into the next.
    pad
        ``"strict"`` refuses rows that m does not divide; ``"tail"`` leaves their last, incomplete group dense.
    layout
        ``"rows"``: every row is cut on its own; ``"flat"``: rows follow each other in one line that is cut, as the
        code of Zhou et al. (2021, arXiv:2102.04010) does, so that m need only divide the number of entries. Where m
        divides the rows both are the same; where it does not, groups reach over two outputs, and no hardware uses them.

    References
    ----------
    Mishra et al. (2021), Accelerating sparse deep neural networks, for 2:4 and for the order of the entries of a
    convolution; the projection keeps the n largest moduli of each group.
    """

    n: int = 2
    m: int = 4
    dim: int | None = None
    pad: str = "strict"
    layout: str = "rows"

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.count("m", self.m, low=1)
        _checks.count("n", self.n, low=1, high=self.m)
        _checks.one_of("pad", self.pad, ("strict", "tail"))
        _checks.one_of("layout", self.layout, ("rows", "flat"))
        if self.dim is not None and (not isinstance(self.dim, int) or isinstance(self.dim, bool)):
            raise TypeError(f"dim must be an integer or None, got {type(self.dim).__name__}")

    @property
    def density(self) -> float:
        """The share n / m."""
        return self.n / self.m

    def at(self, density: float) -> Self:
        """Refused: n and m fix the density."""
        raise TypeError(f"NM({self.n}, {self.m}) fixes its own density, {self.density:g}")

    def towards(self, density: float) -> AtLeastNM:
        """The pattern of this density on the way from no pattern to this one."""
        return AtLeastNM(self.n, self.m, density, self.dim, self.pad, self.layout, dims=self.dims)

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        axis = self._axis(x)
        if self.layout == "flat":
            axis = x.ndim - self._event(x)
        whole = self.dim is None or self.layout == "flat"
        length = math.prod(x.shape[axis:]) if whole else x.shape[axis]
        if self.pad == "strict" and length % self.m:
            raise ValueError(f"rows of {length} entries cannot be cut into groups of m = {self.m} "
                             f"(shape {tuple(x.shape)}); pad='tail' leaves the rest dense")

    def _axis(self, x: Tensor) -> int:
        event = self._event(x)
        if event == 0:
            raise ValueError("an N:M pattern needs at least one axis")
        dim = min(1, event - 1) if self.dim is None else self.dim
        if not -event <= dim < event:
            raise ValueError(f"dim = {dim} is not an axis of an unknown with {event} axes")
        return x.ndim - event + dim % event

    def _mask(self, scores: Tensor) -> Tensor:
        axis = self._axis(scores)
        moved = axis < scores.ndim - 1
        fibres = scores.movedim(axis, -1) if moved else scores
        rows = fibres
        if self.layout == "flat":
            rows = fibres.flatten(scores.ndim - self._event(scores))
        elif moved and self.dim is None:
            rows = fibres.flatten(axis)
        whole = rows.shape[-1] // self.m * self.m
        if whole == rows.shape[-1]:
            mask = kernels.nm_mask(rows, self.n, self.m)
        else:
            mask = kernels.nm_mask(rows[..., :whole], self.n, self.m)
            mask = torch.nn.functional.pad(mask, (0, rows.shape[-1] - whole), value=True)
        mask = mask if rows is fibres else mask.view(fibres.shape)
        return mask.movedim(-1, axis) if moved else mask


@dataclass(frozen=True)
class AtLeastNM(Pattern):
    """At least n of every m consecutive entries, and so many more, wherever they are, that a density is met.

    What lies between no pattern (density 1) and N:M (density n / m): gradual pruning towards N:M goes through these.

    Parameters
    ----------
    n, m, dim, pad, layout
        Of `NM`.
    density
        Share of entries kept, from n / m to 1; never fewer than the groups ask for.
    """

    n: int = 2
    m: int = 4
    density: float = 0.75
    dim: int | None = None
    pad: str = "strict"
    layout: str = "rows"

    def __post_init__(self) -> None:
        super().__post_init__()
        least = self._groups().density
        if not least <= _checks.number("density", self.density) <= 1:
            raise ValueError(f"density must be in [{least:g}, 1], for {self.n} of every {self.m} entries at least, "
                             f"got {self.density}")

    def _groups(self) -> NM:
        return NM(self.n, self.m, self.dim, self.pad, self.layout, dims=self.dims)

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        self._groups()._fits(x)

    def _mask(self, scores: Tensor) -> Tensor:
        first = self._groups()._mask(scores)
        rows = _shapes.flatten(torch.where(first, torch.inf, scores), self.dims)
        least = int(_shapes.flatten(first, self.dims).sum(-1).flatten()[:1].sum())   # the same in every unknown
        return kernels.topk_mask(rows, max(least, kept(rows.shape[-1], self.density))).reshape(scores.shape)


@dataclass(frozen=True)
class Block(Pattern):
    """Whole rectangles of the last two axes.

    Parameters
    ----------
    density
        Share of blocks kept, in [0, 1].
    shape
        Height and width of a block; they must divide the last two axes.
    pool
        Score of a block: ``"l2"`` (the exact Euclidean projection), ``"l1"`` or ``"max"`` (heuristics).
    """

    density: float = 0.5
    shape: tuple[int, int] = (4, 4)
    pool: str = "l2"

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.share("density", self.density)
        if not isinstance(self.shape, tuple) or len(self.shape) != 2:
            raise ValueError(f"shape must be the height and width of a block, got {self.shape!r}")
        for length in self.shape:
            _checks.count("shape", length, low=1)
        _checks.one_of("pool", self.pool, ("l1", "l2", "max"))

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        if self._event(x) < 2:
            raise ValueError(f"a block pattern needs at least two axes, got shape {tuple(x.shape)}, dims {self.dims}")
        if x.shape[-2] % self.shape[0] or x.shape[-1] % self.shape[1]:
            raise ValueError(f"the last two axes must be multiples of the block {self.shape}, got {tuple(x.shape)}")

    def _mask(self, scores: Tensor) -> Tensor:
        h, w = self.shape
        blocks = scores.unflatten(-2, (-1, h)).unflatten(-1, (-1, w))
        pooled = _pool(blocks, (-3, -1), self.pool)
        rows = _shapes.flatten(pooled, self.dims)
        mask = kernels.topk_mask(rows, kept(rows.shape[-1], self.density)).reshape(pooled.shape)
        return mask.repeat_interleave(h, dim=-2).repeat_interleave(w, dim=-1)


@dataclass(frozen=True)
class OutputBlocks(Pattern):
    """Neighbours along the first axis share their support, such as output channels of a 1 x 1 convolution.

    `kernels.pack_1x1` packs blocks of 2 and 4 output channels, which load each pixel once for all of them.

    Parameters
    ----------
    density
        Share of entries kept, in [0, 1].
    size
        Entries that share; it must divide the first axis of one unknown.
    least
        Unknowns with a shorter first axis are unstructured: in the published networks only late layers, which are wide,
        have blocks (Elsen et al., 2020, arXiv:1911.09723).
    pool
        Score of a block: ``"l2"`` (the exact Euclidean projection), ``"l1"`` or ``"max"`` (heuristics).
    """

    density: float = 0.5
    size: int = 4
    least: int = 0
    pool: str = "l2"

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.share("density", self.density)
        _checks.count("size", self.size, low=1)
        _checks.count("least", self.least)
        _checks.one_of("pool", self.pool, ("l1", "l2", "max"))

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        if not self._event(x):
            raise ValueError("a pattern of blocks along the first axis needs at least one axis")
        length = x.shape[x.ndim - self._event(x)]
        if length >= self.least and length % self.size:
            raise ValueError(f"the first axis must be a multiple of size = {self.size}, got {length}")

    def _mask(self, scores: Tensor) -> Tensor:
        axis = -self._event(scores)
        size = self.size if scores.shape[axis] >= self.least else 1
        pooled = scores
        if size > 1:
            pooled = _pool(scores.unflatten(axis, (scores.shape[axis] // size, size)), (axis,), self.pool)
        rows = _shapes.flatten(pooled, self.dims)
        mask = kernels.topk_mask(rows, kept(rows.shape[-1], self.density)).reshape(pooled.shape)
        return mask.repeat_interleave(size, dim=axis)


@dataclass(frozen=True)
class Channel(Pattern):
    """Whole slices along one axis, such as the output channels of a convolution.

    Parameters
    ----------
    density
        Share of slices kept, in [0, 1].
    dim
        Axis of the slices, counted in one unknown.
    pool
        Score of a slice: ``"l2"`` (the exact Euclidean projection), ``"l1"`` or ``"max"`` (heuristics).
    """

    density: float = 0.5
    dim: int = 0
    pool: str = "l2"

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.share("density", self.density)
        _checks.one_of("pool", self.pool, ("l1", "l2", "max"))

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        event = self._event(x)
        if not -event <= self.dim < event:
            raise ValueError(f"dim = {self.dim} is not an axis of an unknown with {event} axes")

    def _mask(self, scores: Tensor) -> Tensor:
        event = self._event(scores)
        axis = self.dim % event - event
        others = tuple(a for a in range(-event, 0) if a != axis)
        pooled = _pool(scores, others, self.pool) if others else scores
        keep = kernels.topk_mask(pooled, kept(pooled.shape[-1], self.density))
        aligned = keep.reshape(*keep.shape[:-1], *(1,) * (event + axis), keep.shape[-1], *(1,) * (-1 - axis))
        return aligned.expand(scores.shape)


@dataclass(frozen=True)
class Balanced(Pattern):
    """The same number of entries in every row along one axis.

    Parameters
    ----------
    density
        Share of entries kept in each row, in [0, 1].
    dim
        Axis along which a row runs, counted in one unknown.
    """

    density: float = 0.5
    dim: int = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.share("density", self.density)

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        event = self._event(x)
        if not -event <= self.dim < event:
            raise ValueError(f"dim = {self.dim} is not an axis of an unknown with {event} axes")

    def _mask(self, scores: Tensor) -> Tensor:
        axis = self.dim % self._event(scores) - self._event(scores)
        rows = scores.movedim(axis, -1)
        return kernels.topk_mask(rows, kept(rows.shape[-1], self.density)).movedim(-1, axis)


def pack_mask(mask: Tensor) -> Tensor:
    """A boolean mask as bits: uint8 of ``ceil(numel / 8)`` entries, the first entry in the highest bit.

    Raises
    ------
    TypeError
        If the mask is not boolean.
    """
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(f"mask must be a boolean tensor, got {getattr(mask, 'dtype', type(mask).__name__)}")
    return torch.from_numpy(np.packbits(mask.cpu().reshape(-1).numpy()))


def unpack_mask(bits: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The boolean mask of this shape that `pack_mask` packed.

    Raises
    ------
    TypeError, ValueError
        If the bits are not those of a mask of this shape.
    """
    _checks.instance("bits", bits, Tensor)
    count = math.prod(_checks.shape("shape", shape))
    if bits.dtype != torch.uint8 or bits.ndim != 1 or bits.numel() != -(-count // 8):
        raise ValueError(f"bits of a mask of shape {tuple(shape)} must be {-(-count // 8)} bytes, got {bits.dtype} "
                         f"{tuple(bits.shape)}")
    flat = np.unpackbits(bits.cpu().numpy(), count=count) if count else np.zeros(0, np.uint8)
    return torch.from_numpy(flat).to(torch.bool).reshape(shape)


def _pool(scores: Tensor, axes: tuple[int, ...], pool: str) -> Tensor:
    if pool == "max":
        return scores.amax(dim=axes)
    return (scores.square() if pool == "l2" else scores.abs()).sum(dim=axes)
