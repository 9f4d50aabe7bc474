"""Sets as priors: R is 0 inside and +inf outside, the prox is the Euclidean projection.

``value`` counts x as inside when no entry is further from its projection than 100 machine epsilons of the largest
modulus in the unknown.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparsepriors import _checks, kernels
from sparsepriors._norms import euclidean
from sparsepriors.priors import _shapes, _singular_values
from sparsepriors.priors.base import Prior

_SLACK = 100.0


@dataclass(frozen=True)
class ConstraintSet(Prior):
    """Base of indicator functions: subclasses give ``_project``."""

    def project(self, x: Tensor) -> Tensor:
        """The nearest point of the set; the same as `prox` with any step."""
        self._check(x)
        return self._project(x)

    @abstractmethod
    def _project(self, x: Tensor) -> Tensor: ...

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        return self._project(x)

    def _value(self, x: Tensor) -> Tensor:
        inside = self._project(x)
        scale = _largest(torch.maximum(x.abs(), inside.abs()), self.dims)
        gap = _largest((x - inside).abs(), self.dims)
        return torch.where(gap <= _SLACK * torch.finfo(x.dtype).eps * scale, 0.0, torch.inf).to(gap.dtype)


@dataclass(frozen=True)
class Box(ConstraintSet, convex=True, separable=True, accepts_complex=False):
    """low <= x_i <= high.

    Parameters
    ----------
    low, high
        Numbers (infinite ones leave a side open) or tensors that broadcast to ``x``.
    """

    low: float | Tensor = 0.0
    high: float | Tensor = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("low", "high"):
            _checks.instance(name, getattr(self, name), (int, float, Tensor))
        low, high = torch.as_tensor(self.low), torch.as_tensor(self.high)
        if low.is_complex() or high.is_complex():
            raise TypeError(f"low and high must be real, got {low.dtype} and {high.dtype}")
        if not bool((low <= high).all()):  # NaN included
            raise ValueError(f"low must not exceed high, got {self.low} and {self.high}")
        if bool((low == torch.inf).any()) or bool((high == -torch.inf).any()):
            raise ValueError(f"the box must not be empty, got low = {self.low} and high = {self.high}")

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        _shapes.must_broadcast("low", self.low, x)
        _shapes.must_broadcast("high", self.high, x)

    def _project(self, x: Tensor) -> Tensor:
        return torch.clamp(x, _shapes.tensor_like(self.low, x), _shapes.tensor_like(self.high, x))


@dataclass(frozen=True)
class NonNegative(ConstraintSet, convex=True, separable=True, accepts_complex=False):
    """x_i >= 0."""

    def _project(self, x: Tensor) -> Tensor:
        return torch.clamp(x, min=0)


@dataclass(frozen=True)
class _OfRadius(ConstraintSet):
    """Sets that a radius scales: one for each unknown, or for each entry where the set is separable."""

    radius: float | Tensor = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.positive("radius", self.radius)
        if not self.separable:
            _shapes.must_be_constant("radius", self.radius, self.dims)

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        _shapes.must_broadcast("radius", self.radius, x)


@dataclass(frozen=True)
class LinfBall(_OfRadius, convex=True, separable=True):
    """|x_i| <= radius.

    Parameters
    ----------
    radius
        Positive, a number or a tensor that broadcasts to ``x``.
    """

    def _project(self, x: Tensor) -> Tensor:
        radius = _shapes.tensor_like(self.radius, x)
        if x.is_complex():
            return x * (radius / torch.maximum(x.abs(), radius))
        return torch.clamp(x, -radius, radius)


@dataclass(frozen=True)
class L2Ball(_OfRadius, convex=True):
    """||x||_2 <= radius; with `Translated`, a ball around data.

    Parameters
    ----------
    radius
        Positive, a number or a tensor that is constant over each unknown.
    """

    def _project(self, x: Tensor) -> Tensor:
        radius = _shapes.like(self.radius, x)
        if self.dims == 0:
            norm = x.abs()
        else:
            norm = euclidean(x, tuple(range(x.ndim)) if self.dims is None else self._axes, keepdim=True)
        return x * (radius / torch.clamp(norm, min=radius))


@dataclass(frozen=True)
class Simplex(_OfRadius, convex=True, accepts_complex=False):
    """x_i >= 0 and sum_i x_i = radius.

    Parameters
    ----------
    radius
        Positive, a number or a tensor that is constant over each unknown.

    References
    ----------
    Held, Wolfe and Crowder (1974), Validation of subgradient optimization, for the threshold; `kernels.project_simplex`
    for how it is found.
    """

    def _project(self, x: Tensor) -> Tensor:
        rows = _shapes.flatten(x, self.dims)
        return kernels.project_simplex(rows, _shapes.per_row(self.radius, x, self.dims)).reshape(x.shape)


@dataclass(frozen=True)
class L1Ball(_OfRadius, convex=True):
    """||x||_1 <= radius.

    Parameters
    ----------
    radius
        Positive, a number or a tensor that is constant over each unknown.

    References
    ----------
    Duchi, Shalev-Shwartz, Singer and Chandra (2008), Efficient projections onto the l1-ball; `kernels.project_l1_ball`
    for how the threshold is found.
    """

    def _project(self, x: Tensor) -> Tensor:
        rows = _shapes.flatten(x, self.dims)
        return kernels.project_l1_ball(rows, _shapes.per_row(self.radius, x, self.dims)).reshape(x.shape)


@dataclass(frozen=True)
class Cardinality(ConstraintSet):
    """At most k nonzero entries: the projection keeps exactly the k largest moduli, ties going to the lowest index.

    Parameters
    ----------
    k
        How many entries each unknown keeps; all of them if it has no more than k.
    """

    k: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.count("k", self.k, low=0)

    def _project(self, x: Tensor) -> Tensor:
        rows = _shapes.flatten(x, self.dims)
        if self.k >= rows.shape[-1]:
            return x.clone()
        if self.k == 0:
            return torch.zeros_like(x)
        r = rows.detach().abs()
        least = torch.topk(r, self.k, dim=-1, sorted=False).values.amin(dim=-1, keepdim=True)
        above, level = r > least, r == least
        room = self.k - above.sum(dim=-1, keepdim=True)
        keep = above | (level & (level.cumsum(dim=-1) <= room))
        return torch.where(keep, rows, 0).reshape(x.shape)


@dataclass(frozen=True)
class Rank(ConstraintSet):
    """Matrices (last two axes) of rank at most k; the projection truncates the singular value decomposition.

    Parameters
    ----------
    k
        Largest rank, at least 0.

    References
    ----------
    Eckart and Young (1936), The approximation of one matrix by another of lower rank.
    """

    k: int = 1
    dims: int | None = field(default=2, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.count("k", self.k, low=0)
        _shapes.must_hold_matrices("Rank", self.dims)

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        _shapes.must_be_matrices("Rank", x)

    def _project(self, x: Tensor) -> Tensor:
        if self.k >= min(x.shape[-2:]) or x.numel() == 0:
            return x.clone()
        k = self.k
        if not (torch.is_grad_enabled() and x.requires_grad) and _singular_values.takes(x):
            return _singular_values.lower_singular_values(x, 0.0, k)
        u, s, vh = torch.linalg.svd(x, full_matrices=False)
        return (u[..., :k] * s[..., None, :k]) @ vh[..., :k, :]


def _largest(r: Tensor, dims: int | None) -> Tensor:
    rows = _shapes.flatten(r, dims)
    return rows.amax(dim=-1) if rows.shape[-1] else rows.new_zeros(rows.shape[:-1])
