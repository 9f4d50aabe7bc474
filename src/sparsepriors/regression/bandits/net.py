"""Candidate parameters that live on few coordinates each: nets of the sparse ball, estimates on supports."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparsepriors import _checks

MAX_CANDIDATES = 50_000_000
_CHUNK = 2**18   # predictions computed at once: they stay in the cache until their maximum is taken


@dataclass(frozen=True, eq=False)
class SparseCandidates:
    """Parameters by support: candidate (n, p) has the entries ``points[n, p]`` on the coordinates ``supports[n]``.

    Attributes
    ----------
    supports
        Coordinates of each support.
    points
        Entries; with a first axis of length 1 every support has the same.
    """

    supports: Int[Tensor, "supports sparsity"]
    points: Float[Tensor, "shared points sparsity"]

    def __post_init__(self) -> None:
        _checks.instance("supports", self.supports, Tensor)
        if self.supports.ndim != 2 or self.supports.is_floating_point() or self.supports.is_complex():
            raise ValueError(f"supports must be integers of shape (supports, sparsity), got {self.supports.dtype} of "
                             f"shape {tuple(self.supports.shape)}")
        _checks.inexact("points", self.points)
        count, sparsity = self.supports.shape
        if self.points.ndim != 3 or self.points.shape[0] not in (1, count) or self.points.shape[2] != sparsity:
            raise ValueError(f"points must have shape ({count} or 1, points, {sparsity}), got "
                             f"{tuple(self.points.shape)}")

    def __len__(self) -> int:
        return len(self.supports) * self.points.shape[1]

    def predict(self, feature: Float[Tensor, " dim"]) -> Float[Tensor, "supports points"]:
        """The reward that each candidate predicts for one action."""
        return (self.points @ feature[self.supports][..., None])[..., 0]

    def values(self, features: Float[Tensor, "actions dim"]) -> Float[Tensor, "supports points"]:
        """The largest reward that each candidate predicts."""
        return torch.cat([predicted.amax(1) for predicted in self._chunks(features)])

    def maximisers(self, features: Float[Tensor, "actions dim"]) -> Int[Tensor, "supports points"]:
        """The action for which each candidate predicts it."""
        return torch.cat([predicted.argmax(1) for predicted in self._chunks(features)])

    def maximiser(self, candidate: int, features: Float[Tensor, "actions dim"]) -> int:
        """The same of one candidate, counted support by support."""
        n, p = divmod(candidate, self.points.shape[1])
        point = self.points[n if len(self.points) > 1 else 0, p]
        return int((features[:, self.supports[n]] @ point).argmax())

    def dense(self, candidate: int, dim: int) -> Float[Tensor, " dim"]:
        """One candidate as a vector."""
        n, p = divmod(candidate, self.points.shape[1])
        return torch.zeros(dim, dtype=self.points.dtype, device=self.points.device).index_put(
            (self.supports[n],), self.points[n if len(self.points) > 1 else 0, p])

    def _chunks(self, features: Tensor) -> Iterator[Tensor]:
        """Predictions ``(supports, actions, points)`` of some supports at a time."""
        step = max(1, _CHUNK // (len(features) * self.points.shape[1]))
        for i in range(0, len(self.supports), step):
            restricted = features[:, self.supports[i:i + step]].movedim(1, 0)
            points = self.points if len(self.points) == 1 else self.points[i:i + step]
            yield restricted @ points.mT


def sparse_supports(dim: int, sparsity: int) -> Int[Tensor, "supports sparsity"]:
    """All sets of ``sparsity`` coordinates out of ``dim``, in lexicographic order.

    Raises
    ------
    ValueError
        If ``sparsity`` is not between 1 and ``dim``.
    """
    _checks.count("dim", dim, low=1)
    _checks.count("sparsity", sparsity, low=1, high=dim)
    return torch.tensor(list(combinations(range(dim), sparsity)))


def sparse_net(dim: int, sparsity: int, resolution: float, *, radius: float = 1.0,
               max_candidates: int = MAX_CANDIDATES) -> SparseCandidates:
    """Candidates such that every sparse parameter of norm at most ``radius`` has one within ``resolution``.

    On every support a grid of spacing ``2 resolution / sqrt(sparsity)`` inside the ball of radius
    ``radius + resolution``; in all ``O((dim / resolution)^sparsity)`` for fixed sparsity and radius.

    Parameters
    ----------
    dim, sparsity
        Length of the parameters and number of their nonzero entries, 1 to ``dim``.
    resolution, radius
        Positive.
    max_candidates
        Most that are made.

    Raises
    ------
    ValueError
        If an argument is out of range, or the net would be larger than ``max_candidates``.
    """
    _checks.count("dim", dim, low=1)
    _checks.count("sparsity", sparsity, low=1, high=dim)
    _checks.positive("resolution", resolution)
    _checks.positive("radius", radius)
    _checks.count("max_candidates", max_candidates, low=1)
    spacing, reach = 2 * resolution / math.sqrt(sparsity), radius + resolution
    side = math.floor(reach / spacing)
    supports = math.comb(dim, sparsity)
    _fits(supports * (2 * side + 1), max_candidates)   # every support has at least one axis of points
    axis = spacing * torch.arange(-side, side + 1, dtype=torch.float64)
    points = axis[:, None]
    for _ in range(sparsity - 1):
        _fits(supports * len(points), max_candidates)  # dropping the last coordinate of a grid point leaves one
        points = torch.cat([points.repeat_interleave(len(axis), 0), axis.repeat(len(points))[:, None]], dim=1)
        points = points[torch.linalg.vector_norm(points, dim=1) <= reach]
    _fits(supports * len(points), max_candidates)
    return SparseCandidates(sparse_supports(dim, sparsity), points[None])


def _fits(candidates: int, most: int) -> None:
    if candidates > most:
        raise ValueError(f"max_candidates must not be less than the size of the net, which is {candidates} or more, "
                         f"got {most}; a larger resolution makes it smaller, and SpannerBandit needs none")
