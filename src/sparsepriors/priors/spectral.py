"""Priors of sorted quantities: singular values and ordered moduli."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparsepriors import _checks, kernels
from sparsepriors.priors import _shapes, _singular_values
from sparsepriors.priors.base import Prior


@dataclass(frozen=True)
class NuclearNorm(Prior, convex=True):
    """R(X) = weight * sum of the singular values of the matrices in the last two axes.

    Where no gradient is asked for, the prox is taken from the eigenvectors of the smaller Gram matrix, which is faster
    than a singular value decomposition and as accurate: singular values that are lost in its rounding lie far below the
    threshold, or are taken from a Gram matrix of their own.

    Parameters
    ----------
    weight
        Nonnegative, a number or a tensor that is constant over each unknown.

    References
    ----------
    Cai, Candes and Shen (2010), A singular value thresholding algorithm for matrix completion.
    """

    weight: float | Tensor = 1.0
    dims: int | None = field(default=2, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.nonnegative("weight", self.weight)
        _shapes.must_hold_matrices("NuclearNorm", self.dims)
        _shapes.must_be_constant("weight", self.weight, self.dims)

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        _shapes.must_be_matrices("NuclearNorm", x)
        _shapes.must_broadcast("weight", self.weight, x)

    def _value(self, x: Tensor) -> Tensor:
        singular = torch.linalg.svdvals(x)[..., None]
        return self._sum(_shapes.like(self.weight, x) * singular)

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        if x.numel() == 0:
            return x.clone()
        threshold = _shapes.like(self.weight, x) * step
        if not (torch.is_grad_enabled()
                and any(isinstance(t, Tensor) and t.requires_grad for t in (x, threshold))):
            if _singular_values.takes(x):
                return _singular_values.lower_singular_values(x, threshold)
            threshold = _shapes.tensor_like(threshold, x)
            tall = x if x.shape[-2] >= x.shape[-1] else x.mH
            gram = tall.mH @ tall
            if _well_above_rounding(threshold, gram):
                squares, v = torch.linalg.eigh(gram)
                singular = squares.clamp(min=torch.finfo(squares.dtype).tiny).sqrt()
                found = (tall @ (v * torch.relu(1 - threshold / singular[..., None, :]))) @ v.mH
                return found if tall is x else found.mH.resolve_conj()
        u, s, vh = torch.linalg.svd(x, full_matrices=False)
        return (u * torch.relu(s[..., None, :] - threshold)) @ vh


def _well_above_rounding(threshold: Tensor, gram: Tensor) -> bool:
    """Whether every threshold is at least a 32nd of the largest singular value, by a bound on it from the Gram matrix.

    A singular value s has an error of about eps s_max^2 / s when it is the root of an eigenvalue. Above such thresholds
    that is a few units of rounding of s_max, as the singular value decomposition itself leaves.
    """
    bound = gram.abs().sum(dim=-1, keepdim=True).amax(dim=-2, keepdim=True)
    info = torch.finfo(bound.dtype)
    return bool(((threshold.square() >= bound / 32**2) & (bound > info.tiny / info.eps**2)).all())


@dataclass(frozen=True)
class SLOPE(Prior, convex=True):
    """R(x) = sum_i weights_i |x|_(i), with |x|_(1) >= |x|_(2) >= ...: the sorted l1 norm.

    Parameters
    ----------
    weights
        Nonnegative and nonincreasing, one for each entry of the unknown: shape ``(n,)``.

    References
    ----------
    Bogdan, van den Berg, Sabatti, Su and Candes (2015), SLOPE: adaptive variable selection via convex optimization; the
    prox by isotonic regression of the sorted, shifted moduli.
    """

    weights: Tensor = field(default_factory=lambda: torch.ones(1))

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.instance("weights", self.weights, Tensor)
        _checks.nonnegative("weights", self.weights)
        if self.weights.ndim != 1:
            raise ValueError(f"weights must have shape (n,), got {tuple(self.weights.shape)}")
        if bool((self.weights.diff() > 0).any()):
            raise ValueError("weights must be nonincreasing")

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        n = _shapes.flatten(x, self.dims).shape[-1]
        if n != self.weights.numel():
            raise ValueError(f"weights must have one entry for each of the {n} of an unknown, "
                             f"got {self.weights.numel()}")

    def _value(self, x: Tensor) -> Tensor:
        ordered = _shapes.flatten(x.abs(), self.dims).sort(dim=-1, descending=True).values
        return (ordered * _shapes.like(self.weights, x)).sum(dim=-1)

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        if x.numel() == 0:
            return x.clone()
        rows = _shapes.flatten(x, self.dims)
        moduli = kernels.sorted_l1_prox(rows.abs(), self.weights, _shapes.per_row(step, x, self.dims))
        return _shapes.rephase(rows, moduli).reshape(x.shape)
