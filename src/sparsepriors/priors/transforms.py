"""Priors in other coordinates: in a basis, and of the dual variable."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsepriors.operators.base import LinearOperator
from sparsepriors.priors.base import Prior
from sparsepriors.priors.combinators import Wrapped


@dataclass(frozen=True)
class InBasis(Prior):
    """R(x) = prior(W x) for an operator with W W^H = c I, such as an orthonormal wavelet transform.

    prox(x, step) = x + W^H (prior.prox(W x, c step) - W x) / c.

    Parameters
    ----------
    prior
        A belief about the coefficients; ``dims=None`` is read as all axes of the coefficients.
    basis
        W. Its property is checked once, on a random vector.

    References
    ----------
    Combettes and Pesquet (2007), A Douglas-Rachford splitting approach to nonsmooth convex variational signal recovery,
    proposition 11.
    """

    prior: Prior
    basis: LinearOperator

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.prior, Prior):
            raise TypeError(f"prior must be a Prior, got {type(self.prior).__name__}")
        if not isinstance(self.basis, LinearOperator):
            raise TypeError(f"basis must be a LinearOperator, got {type(self.basis).__name__}")
        own = len(self.basis.in_shape)
        if self.dims is None:
            object.__setattr__(self, "dims", own)
        if self.dims != own:
            raise ValueError(f"dims of InBasis must be the {own} axes of its basis, got {self.dims}")
        inner, coefficients = self.prior.dims, len(self.basis.out_shape)
        if inner is None:
            object.__setattr__(self, "prior", self.prior._of_dims(coefficients))
        elif inner != coefficients:
            raise ValueError(f"the prior must be one of unknowns with {coefficients} axes, the coefficients of the "
                             f"basis; its dims is {inner}")
        object.__setattr__(self, "_scale", _tightness(self.basis))

    @property
    def convex(self) -> bool:
        """As the inner prior."""
        return self.prior.convex

    @property
    def accepts_complex(self) -> bool:
        """Whether the basis is complex."""
        return self.basis.in_dtype.is_complex

    @property
    def lipschitz(self) -> float | None:
        """The inner prior's times c."""
        inner = self.prior.lipschitz
        return None if inner is None else inner * self._c

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        shape = self.basis.in_shape
        if x.dtype != self.basis.in_dtype or tuple(x.shape[x.ndim - len(shape):]) != shape:
            raise ValueError(f"x must be {self.basis.in_dtype} with last axes {shape}, as its basis asks; "
                             f"got {x.dtype} {tuple(x.shape)}")
        batch = x.shape[:x.ndim - len(shape)]
        coefficients = torch.zeros((1,), dtype=self.basis.out_dtype, device=x.device)
        self.prior._fits(coefficients.expand(*batch, *self.basis.out_shape))

    def _value(self, x: Tensor) -> Tensor:
        return self.prior._value(self.basis._forward(x))

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        w = self.basis._forward(x)
        if isinstance(step, Tensor):
            step = _per_item(step, x, len(self.basis.in_shape), len(self.basis.out_shape))
        return x + self.basis._adjoint(self.prior._prox(w, self._c * step) - w) * (1 / self._c)

    def _grad(self, x: Tensor) -> Tensor:
        return self.basis._adjoint(self.prior._grad(self.basis._forward(x)))

    @property
    def _c(self) -> float:
        return self.__dict__["_scale"]


@dataclass(frozen=True)
class Conjugate(Wrapped):
    """The convex conjugate R*(y) = sup_x <x, y> - R(x) of a convex prior, for primal-dual methods.

    prox(y, step) = y - step * prior.prox(y / step, 1 / step) (Moreau, 1962). Known through its prox only, so `value`
    is NaN.

    Parameters
    ----------
    prior
        Convex.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.prior.convex:
            raise ValueError(f"only a convex prior has a conjugate with a prox by Moreau's identity; "
                             f"{type(self.prior).__name__} is not convex")

    def _value(self, x: Tensor) -> Tensor:
        return self._sum(torch.full_like(x, torch.nan, dtype=x.dtype.to_real()))

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        return x - step * self.prior._prox(x / step, 1 / step)


def _tightness(basis: LinearOperator) -> float:
    """The c of W W^H = c I, or `ValueError` if there is none."""
    real = basis.out_dtype.to_real()
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(basis.out_shape, dtype=basis.out_dtype, generator=generator).to(basis.device)
    back = basis.forward(basis.adjoint(y))
    c = float((y.conj() * back).real.sum() / y.abs().square().sum())
    off = float(torch.linalg.vector_norm(back - c * y) / torch.linalg.vector_norm(y))
    relative = off / c if c > 0 else off
    if c <= 0 or relative > 1e3 * torch.finfo(real).eps:
        raise ValueError(f"basis must satisfy W W^H = c I (an orthonormal or semi-orthogonal transform); "
                         f"{type(basis).__name__} misses it by {relative:.1e}; use analysis in admm or primal_dual "
                         f"instead")
    return c


def _per_item(step: Tensor, x: Tensor, n_in: int, n_out: int) -> Tensor:
    """A step that is constant over each unknown, in a shape that broadcasts against its coefficients."""
    full = step.reshape((1,) * (x.ndim - step.ndim) + tuple(step.shape))
    return full.reshape(*full.shape[:x.ndim - n_in], *(1,) * n_out)
