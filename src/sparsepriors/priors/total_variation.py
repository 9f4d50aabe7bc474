"""Total variation in one to three dimensions, its prox computed to a stated duality gap."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparsepriors import _checks, kernels
from sparsepriors._norms import euclidean
from sparsepriors.kernels.differences import differences, onto_bound
from sparsepriors.priors import _shapes
from sparsepriors.priors.base import Prior


@dataclass(frozen=True)
class TV(Prior, convex=True):
    """R(x) = weight * sum_i ||(D x)_i||, D the forward differences along the last ``dims`` axes.

    The norm is the Euclidean one over the directions (isotropic) or the l1 norm (anisotropic); the last difference of
    each axis is zero (Neumann boundary). For complex tensors differences are complex and the norm takes moduli.

    The prox solves the dual problem min ||x - D^T p||^2 / 2 over |p_i| <= step * weight by the accelerated projected
    gradient method with restarts. It stops, for every unknown by itself, when the duality gap is at most ``tol`` times
    the primal objective, which bounds the distance to the exact prox u* by ||u - u*||^2 <= 2 gap. Real sequences
    (``dims=1``) are solved exactly, in linear time, where the compiled kernels are there.

    Gradients flow through the iterates: when one is asked for, the uncompiled iteration runs.

    Parameters
    ----------
    weight
        Nonnegative, a number or a tensor that is constant over each unknown.
    isotropic
        Whether the directions are joined by the Euclidean norm.
    tol
        Relative duality gap of the prox; at least 100 machine epsilons of the tensor's dtype.
    max_iter
        Bound on the iterations of one prox; when it is met first, the result is returned with a `RuntimeWarning` that
        states the gap. ``inexact=True`` says that a fixed number of iterations is intended and silences it.
    dims
        Number of spatial axes, 1 to 3; the axes before them are a batch.

    References
    ----------
    Rudin, Osher and Fatemi (1992); Chambolle (2004) for the dual; Beck and Teboulle (2009), Fast gradient-based
    algorithms for constrained total variation image denoising, for the method; Chambolle and Dossal (2015) for its
    momentum; O'Donoghue and Candes (2015) for the restarts; Johnson (2013), A dynamic programming algorithm for the
    fused lasso and l0-segmentation, for sequences.
    """

    weight: float | Tensor = 1.0
    isotropic: bool = True
    tol: float = 1e-4
    max_iter: int = 5000
    inexact: bool = False
    dims: int | None = field(default=2, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.nonnegative("weight", self.weight)
        _checks.positive("tol", self.tol)
        _checks.count("max_iter", self.max_iter, low=1)
        if self.dims not in (1, 2, 3):
            raise ValueError(f"dims of TV must be 1, 2 or 3, the number of spatial axes, got {self.dims}")
        _shapes.must_be_constant("weight", self.weight, self.dims)

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        _shapes.must_broadcast("weight", self.weight, x)
        least = 100 * torch.finfo(x.dtype).eps
        if self.tol < least:
            raise ValueError(f"tol = {self.tol} cannot be reached in {x.dtype}; it must be at least {least:.1e}")

    def _value(self, x: Tensor) -> Tensor:
        norms = self._norms(differences(x, self._d))
        return self._sum(_shapes.like(self.weight, x) * norms)

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        return self._warm_prox(x, step, None)[0]

    def _warm_prox(self, x: Tensor, step: float | Tensor, state: object) -> tuple[Tensor, object]:
        d = self._d
        batch, spatial = x.shape[:x.ndim - d], x.shape[x.ndim - d:]
        bound = _shapes.like(self.weight, x) * step
        if batch or isinstance(bound, Tensor):
            bound = _shapes.tensor_like(bound, x).expand(*batch, *(1,) * d).reshape(batch)
        if state is None:
            p = None
        elif isinstance(state, Tensor) and state.shape == (*batch, d, *spatial) and state.dtype == x.dtype:
            p = onto_bound(state, _shapes.tensor_like(bound, x).reshape(*batch, *(1,) * (d + 1)), d, self.isotropic)
        else:
            raise ValueError(f"state must be what an earlier call on a tensor of shape {tuple(x.shape)} returned")
        u, p, gap = kernels.tv_prox(x, bound, p, self.isotropic, self.tol, self.max_iter)
        if gap > self.tol and not self.inexact:
            warnings.warn(f"the prox of TV stopped after max_iter = {self.max_iter} iterations at a relative duality "
                          f"gap of {gap:.1e} > tol = {self.tol:.1e}", RuntimeWarning, stacklevel=4)
        return u, p.detach() if p.requires_grad else p

    def _norms(self, g: Tensor) -> Tensor:
        axis = g.ndim - self._d - 1
        return euclidean(g, (axis,)) if self.isotropic else g.abs().sum(dim=axis)

    @property
    def _d(self) -> int:
        assert self.dims is not None
        return self.dims

