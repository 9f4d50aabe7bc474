"""Whether two trainings changed the same entries, beside what chance alone makes common."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.data.shards import Weights, open_weights
from sparsepriors.language.analysis.update_masks import UpdateMask

_LAYOUT = {torch.bfloat16: (7, torch.int16), torch.float16: (10, torch.int16), torch.float32: (23, torch.int32),
           torch.float64: (52, torch.int64)}   # bits of the mantissa, and integers of the same size


@dataclass(frozen=True)
class Overlap:
    """Entries that two trainings changed.

    Attributes
    ----------
    first, second, shared
        Entries that the first, the second, and both changed.
    numel
        Entries in all.
    matched
        Entries that both would be expected to change if each had its own number in every tensor and binade of the
        weights, at random places; ``None`` where no weights were given.
    """

    first: int
    second: int
    shared: int
    numel: int
    matched: float | None = None

    @property
    def of_first(self) -> float:
        """Share of the first training's entries that the second changed, too."""
        return self.shared / self.first

    @property
    def of_second(self) -> float:
        """Share of the second training's entries that the first changed, too."""
        return self.shared / self.second

    @property
    def jaccard(self) -> float:
        """Entries of both over entries of either."""
        return self.shared / (self.first + self.second - self.shared)

    @property
    def chance_of_first(self) -> float:
        """``of_first`` if the second had changed entries anywhere: its density."""
        return self.second / self.numel

    @property
    def chance_of_second(self) -> float:
        """``of_second`` if the first had changed entries anywhere."""
        return self.first / self.numel

    @property
    def matched_of_first(self) -> float | None:
        """``of_first`` by tensor and size of the weights alone."""
        return None if self.matched is None else self.matched / self.first

    @property
    def matched_of_second(self) -> float | None:
        """``of_second`` by tensor and size of the weights alone."""
        return None if self.matched is None else self.matched / self.second


def overlap(first: UpdateMask, second: UpdateMask, before: Weights | None = None) -> Overlap:
    """Compare the changed entries of two trainings from one start.

    Chance that is uniform over all entries, as in arXiv:2505.11711, table 3, is too low a bar in bfloat16: the distance
    to the next representable number grows with a weight, so that small weights change in any training. With the weights
    of the start, the expectation is taken in each tensor and binade, ``[2^e, 2^(e+1))``, apart: see `matched_null`.

    Parameters
    ----------
    first, second
        What changed, see `update_mask`.
    before
        The checkpoint from which both began.

    Raises
    ------
    ValueError
        If the masks are of different tensors, one is empty, or the checkpoint does not fit them.
    """
    _same(first, second)
    shared = sum(int(torch.count_nonzero(first[name] & second[name])) for name in first)
    matched = None if before is None else matched_null(before, first, second)
    return Overlap(first.count, second.count, shared, first.numel, matched)


def matched_null(before: Weights, first: UpdateMask, second: UpdateMask) -> float:
    """Entries that both would change if each chose its own number at random in every tensor and binade.

    The sum over tensors and binades of ``n d1 d2`` for n entries of which the shares d1 and d2 changed.

    Raises
    ------
    ValueError
        As `overlap`.
    """
    _same(first, second)
    weights, expected = open_weights(before), 0.0
    for name in first:
        if name not in weights or weights.shape(name) != first.shapes[name] or weights.dtype(name) not in _LAYOUT:
            raise ValueError(f"before does not fit the masks: it has no {name} of shape {first.shapes[name]}")
        # Rows: neither, the first alone, the second alone, both; columns: binades.
        binade = binades(weights[name]).flatten().to(torch.int16)
        size = int(binade.max()) + 1
        place = binade.add_(first[name].flatten(), alpha=size).add_(second[name].flatten(), alpha=2 * size)
        count = torch.bincount(place, minlength=4 * size).view(4, size).double()
        ones, twos = count[1] + count[3], count[2] + count[3]
        expected += float((ones * twos / count.sum(0).clamp(min=1)).sum())
    return expected


def binades(weights: Tensor) -> Tensor:
    """The binade of each weight, ``[2^e, 2^(e+1))``, by the bits of its exponent; zeros and subnormals have 0."""
    mantissa, bits = _LAYOUT[weights.dtype]
    integers = weights.detach().cpu().contiguous().view(bits)
    return (integers >> mantissa) & ((1 << (8 * bits.itemsize - 1 - mantissa)) - 1)


def _same(first: UpdateMask, second: UpdateMask) -> None:
    _checks.instance("first", first, UpdateMask)
    _checks.instance("second", second, UpdateMask)
    if first.shapes != second.shapes:
        odd = sorted(set(first.shapes.items()) ^ set(second.shapes.items()))
        raise ValueError(f"first and second are masks of different models: {odd[0][0]} is in one of them, or has "
                         f"another shape")
    for name, mask in (("first", first), ("second", second)):
        if not mask.count:
            raise ValueError(f"{name} is empty: its training changed nothing")
