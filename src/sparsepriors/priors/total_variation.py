"""Total variation in one to three dimensions, its prox computed to a stated duality gap."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.priors import _shapes
from sparsepriors.priors.base import Prior

_CHECK_EVERY = 10


@dataclass(frozen=True)
class TV(Prior):
    """R(x) = weight * sum_i ||(D x)_i||, D the forward differences along the last ``dims`` axes.

    The norm is the Euclidean one over the directions (isotropic) or the l1 norm (anisotropic); the last difference of
    each axis is zero (Neumann boundary). For complex tensors differences are complex and the norm takes moduli.

    The prox solves the dual problem min ||x - D^T p||^2 / 2 over |p_i| <= step * weight by the accelerated projected
    gradient method with restarts. It stops, for every unknown by itself, when the duality gap is at most ``tol`` times
    the primal objective, which bounds the distance to the exact prox u* by ||u - u*||^2 <= 2 gap.

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

    Source: Rudin, Osher and Fatemi (1992); Chambolle (2004) for the dual; Beck and Teboulle (2009), Fast gradient-based
    algorithms for constrained total variation image denoising, for the method; O'Donoghue and Candes (2015) for the
    restarts.
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

    @property
    def convex(self) -> bool:
        """True."""
        return True

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        _shapes.must_broadcast("weight", self.weight, x)
        least = 100 * torch.finfo(x.dtype).eps
        if self.tol < least:
            raise ValueError(f"tol = {self.tol} cannot be reached in {x.dtype}; it must be at least {least:.1e}")

    def _value(self, x: Tensor) -> Tensor:
        norms = self._norms(_gradient(x, self._d))
        return self._sum(_shapes.like(self.weight, x) * norms)

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        return self._warm_prox(x, step, None)[0]

    def _warm_prox(self, x: Tensor, step: float | Tensor, state: object) -> tuple[Tensor, object]:
        d = self._d
        spatial = x.shape[x.ndim - d:]
        rows = x.reshape(-1, *spatial)
        t = _shapes.tensor_like(self.weight, x) * step
        t = t.expand(*x.shape[:x.ndim - d], *(1,) * d).reshape(-1, *(1,) * d)
        shape = (rows.shape[0], d, *spatial)
        if state is None:
            p = x.new_zeros(shape)
        elif isinstance(state, Tensor) and state.shape == shape and state.dtype == x.dtype:
            p = self._project(state, t)
        else:
            raise ValueError(f"state must be what an earlier call on a tensor of shape {tuple(x.shape)} returned")
        if x.numel() == 0:
            return x.clone(), p
        p, gaps = self._solve(rows, t, p)
        if not self.inexact and float(gaps.max()) > self.tol:
            warnings.warn(f"the prox of TV stopped after max_iter = {self.max_iter} iterations at a relative duality "
                          f"gap of {float(gaps.max()):.1e} > tol = {self.tol:.1e}", RuntimeWarning, stacklevel=4)
        return (rows - _gradient_adjoint(p, d)).reshape(x.shape), p.detach()

    def _solve(self, x: Tensor, t: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """Dual solutions and relative gaps of a batch ``(n, *spatial)``; items that are done are set aside."""
        d, step = self._d, 1 / (4 * self._d)
        # Restarts compare objectives, so gradients flow through the iterates only when somebody asks for them.
        done_p, gaps = p.clone(), torch.full((x.shape[0],), torch.inf, device=x.device, dtype=torch.float64)
        active = torch.arange(x.shape[0], device=x.device)
        q, momentum = p, 1.0
        for iteration in range(1, self.max_iter + 1):
            u = x - _gradient_adjoint(q, d)
            new = self._project(q + step * _gradient(u, d), t)
            move = new - p
            if _inner(q - new, move) > 0:
                momentum = 1.0
            after = (1 + math.sqrt(1 + 4 * momentum * momentum)) / 2
            q, p, momentum = new + ((momentum - 1) / after) * move, new, after
            if iteration % _CHECK_EVERY and iteration < self.max_iter:
                continue
            gap = self._relative_gap(x, t, p)
            finished = gap <= self.tol if iteration < self.max_iter else torch.ones_like(gap, dtype=torch.bool)
            if bool(finished.any()):
                done_p = done_p.index_copy(0, active[finished], p[finished])
                gaps[active[finished]] = gap[finished]
                if bool(finished.all()):
                    break
                left = ~finished
                active, x, t, p, q = active[left], x[left], t[left], p[left], q[left]
        return done_p, gaps

    @torch.no_grad()
    def _relative_gap(self, x: Tensor, t: Tensor, p: Tensor) -> Tensor:
        d = self._d
        u = x - _gradient_adjoint(p, d)
        du = _gradient(u, d)
        axes = tuple(range(1, 1 + d))
        tv = (t * self._norms(du)).sum(dim=axes, dtype=torch.float64)
        pairing = (du.conj() * p).real.sum(dim=(1, *(a + 1 for a in axes)), dtype=torch.float64)
        primal = 0.5 * (u - x).abs().square().sum(dim=axes, dtype=torch.float64) + tv
        # Differences smaller than the rounding of x itself carry no information.
        floor = torch.finfo(x.dtype).eps ** 2 * x.abs().square().sum(dim=axes, dtype=torch.float64)
        gap = (tv - pairing).clamp(min=0)
        return torch.where(gap <= floor, 0.0, gap / primal.clamp(min=torch.finfo(torch.float64).tiny))

    def _project(self, p: Tensor, t: Tensor) -> Tensor:
        if not self.isotropic and not p.is_complex():
            bound = t[:, None]
            return torch.clamp(p, -bound, bound)
        size = torch.linalg.vector_norm(p, dim=1, keepdim=True) if self.isotropic else p.abs()
        bound = t[:, None]
        return p * torch.where(size > bound, bound / size.clamp(min=torch.finfo(size.dtype).tiny), 1.0)

    def _norms(self, g: Tensor) -> Tensor:
        axis = g.ndim - self._d - 1
        return torch.linalg.vector_norm(g, dim=axis) if self.isotropic else g.abs().sum(dim=axis)

    @property
    def _d(self) -> int:
        assert self.dims is not None
        return self.dims


def _gradient(x: Tensor, d: int) -> Tensor:
    """Forward differences, ``(..., *spatial)`` to ``(..., d, *spatial)``."""
    parts = []
    for axis in range(-d, 0):
        zero = torch.zeros_like(x.narrow(axis, 0, 1))
        parts.append(torch.cat((x.diff(dim=axis), zero), dim=axis))
    return torch.stack(parts, dim=-d - 1)


def _gradient_adjoint(p: Tensor, d: int) -> Tensor:
    """The adjoint of `_gradient`."""
    total: Tensor | None = None
    for i, axis in enumerate(range(-d, 0)):
        inner = p.select(-d - 1, i).narrow(axis, 0, p.shape[axis] - 1)
        zero = torch.zeros_like(p.select(-d - 1, i).narrow(axis, 0, 1))
        part = torch.cat((zero, inner), dim=axis) - torch.cat((inner, zero), dim=axis)
        total = part if total is None else total + part
    assert total is not None
    return total


@torch.no_grad()
def _inner(a: Tensor, b: Tensor) -> float:
    return float((a.conj() * b).real.sum())
