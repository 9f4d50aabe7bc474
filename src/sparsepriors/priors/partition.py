"""Groups of any size and place along one axis, where `Groups` takes whole axes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from sparsepriors.priors.base import Prior


@dataclass(frozen=True)
class Partition(Prior):
    """R(x) = prior(norms of the groups), the groups being a partition of the last axis by labels.

    ``Partition(L1(weights), labels)`` is the group lasso, ``Partition(MCP(0.1), labels)`` group MCP. The inner prior
    sees the tensor of norms, a group to an entry of the last axis. The prox scales each group to the norm that the
    inner prox gives (clamped to zero from below); a zero group that must grow gets equal entries.

    Parameters
    ----------
    prior
        A prior of nonnegative tensors. ``dims`` is that of the inner prior.
    labels
        ``(p,)`` int64: the group of every entry of the last axis, from 0, no number left out.

    References
    ----------
    Yuan and Lin (2006), Model selection and estimation in regression with grouped variables.
    """

    prior: Prior
    labels: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.prior, Prior):
            raise TypeError(f"prior must be a Prior, got {type(self.prior).__name__}")
        if self.dims is None:
            object.__setattr__(self, "dims", self.prior.dims)
        if self.dims != self.prior.dims:
            raise ValueError(f"dims of Partition must be that of its inner prior, {self.prior.dims}, got {self.dims}")
        if self.dims == 0:
            raise ValueError("dims of Partition must be at least 1: its groups lie within one unknown")
        labels = self.labels
        if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
            raise TypeError(f"labels must be an int64 tensor, got {getattr(labels, 'dtype', type(labels).__name__)}")
        if labels.ndim != 1 or bool((labels < 0).any()):
            raise ValueError(f"labels must be a vector of group numbers from 0, got shape {tuple(labels.shape)}")
        if labels.numel() and bool((labels.bincount() == 0).any()):
            raise ValueError("labels must leave out no number below the largest, "
                             f"got {int((labels.bincount() > 0).sum())} groups and {int(labels.max())} as the largest")

    def _of_dims(self, dims: int) -> Self:
        return replace(self, prior=self.prior._of_dims(dims), dims=dims)

    @property
    def sizes(self) -> Tensor:
        """``(groups,)`` int64."""
        return self.labels.bincount()

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        if not x.ndim or x.shape[-1] != self.labels.numel():
            raise ValueError(f"x must have a last axis of {self.labels.numel()} entries, as many as labels, got shape "
                             f"{tuple(x.shape)}")
        self.prior._fits(self.norms(x.detach()))

    def norms(self, x: Tensor) -> Tensor:
        """Euclidean norms of the groups: ``(..., p)`` to ``(..., groups)``, without overflow of their squares."""
        modulus, labels = x.abs(), self.labels.to(x.device)
        groups = int(labels.max()) + 1 if labels.numel() else 0
        largest = modulus.amax(-1, keepdim=True) if labels.numel() else modulus.new_zeros((*x.shape[:-1], 1))
        scale = torch.where(largest > 0, largest, 1.0)
        squares = modulus.new_zeros((*x.shape[:-1], groups)).index_add(-1, labels, (modulus / scale).square())
        return scale * squares.sqrt()

    def _value(self, x: Tensor) -> Tensor:
        return self.prior._value(self.norms(x))

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        old, labels = self.norms(x), self.labels.to(x.device)
        new = self.prior._prox(old, step).clamp(min=0)
        some = old > 0
        ratio = torch.where(some, new / torch.where(some, old, 1), 0)[..., labels]
        even = (new / self.sizes.to(x.device).to(new.dtype).sqrt())[..., labels]
        return torch.where(some[..., labels], x * ratio, even.to(x.dtype))
