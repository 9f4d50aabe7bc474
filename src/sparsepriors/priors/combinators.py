"""Priors made of priors, each with the exact prox that its parts allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.priors import _shapes
from sparsepriors.priors.base import Prior
from sparsepriors.priors.penalties import SquaredL2


@dataclass(frozen=True)
class Wrapped(Prior):
    """Base of priors made of one other prior on a tensor of the same shape.

    Parameters
    ----------
    prior
        The inner prior. ``dims`` is that of the inner prior and need not be repeated.
    """

    prior: Prior

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.prior, Prior):
            raise TypeError(f"prior must be a Prior, got {type(self.prior).__name__}")
        if self.dims is None:
            object.__setattr__(self, "dims", self.prior.dims)
        if self.dims != self.prior.dims:
            raise ValueError(f"dims of {type(self).__name__} must be that of its inner prior, {self.prior.dims}, "
                             f"got {self.dims}; set it there")

    @property
    def convex(self) -> bool:
        """As the inner prior."""
        return self.prior.convex

    @property
    def separable(self) -> bool:
        """As the inner prior."""
        return self.prior.separable

    @property
    def accepts_complex(self) -> bool:
        """As the inner prior."""
        return self.prior.accepts_complex

    def _of_dims(self, dims: int) -> Self:
        return replace(self, prior=self.prior._of_dims(dims), dims=dims)

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        self.prior._fits(x)


@dataclass(frozen=True)
class Scaled(Wrapped):
    """R(x) = factor * prior(x), with prox(x, step) = prior.prox(x, factor * step).

    Parameters
    ----------
    factor
        Positive and finite.
    """

    factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.positive("factor", self.factor)

    @property
    def lipschitz(self) -> float | None:
        """The inner prior's times the factor."""
        inner = self.prior.lipschitz
        return None if inner is None else inner * self.factor

    def _value(self, x: Tensor) -> Tensor:
        return self.factor * self.prior._value(x)

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        return self.prior._prox(x, self.factor * step)

    def _warm_prox(self, x: Tensor, step: float | Tensor, state: object) -> tuple[Tensor, object]:
        return self.prior._warm_prox(x, self.factor * step, state)

    def _grad(self, x: Tensor) -> Tensor:
        return self.factor * self.prior._grad(x)


@dataclass(frozen=True)
class PlusQuadratic(Wrapped):
    """R(x) = prior(x) + 1/2 sum_i weight_i |x_i - center_i|^2; what ``prior + SquaredL2(weight)`` builds.

    Its prox is prior.prox((x + step weight center) / (1 + step weight), step / (1 + step weight)).

    Parameters
    ----------
    weight
        Nonnegative, a number, or, when the prior is separable, a tensor that broadcasts against the unknown.
    center
        Where the quadratic part is smallest: a number or a tensor that broadcasts to ``x``.

    References
    ----------
    Parikh and Boyd (2014), Proximal algorithms, section 2.2.
    """

    weight: float | Tensor = 1.0
    center: float | Tensor = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.nonnegative("weight", self.weight)
        check_point("center", self.center)
        if not self.separable:
            _shapes.must_be_constant("weight", self.weight, self.dims)

    @property
    def convex(self) -> bool:
        """As the inner prior (a nonconvex prior may become convex; that is not claimed)."""
        return self.prior.convex

    @property
    def lipschitz(self) -> float | None:
        """The inner prior's plus the largest weight."""
        inner = self.prior.lipschitz
        return None if inner is None else inner + _shapes.largest(self.weight)

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        _shapes.must_broadcast("weight", self.weight, x)
        check_fits("center", self.center, x)

    def _value(self, x: Tensor) -> Tensor:
        off = x - _point(self.center, x)
        return self.prior._value(x) + 0.5 * self._sum(_shapes.like(self.weight, x) * off.abs().square())

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        return self.prior._prox(*self._shifted(x, step))

    def _warm_prox(self, x: Tensor, step: float | Tensor, state: object) -> tuple[Tensor, object]:
        return self.prior._warm_prox(*self._shifted(x, step), state)

    def _shifted(self, x: Tensor, step: float | Tensor) -> tuple[Tensor, float | Tensor]:
        pull = _shapes.like(self.weight, x) * step
        return (x + pull * _point(self.center, x)) / (1 + pull), step / (1 + pull)

    def _grad(self, x: Tensor) -> Tensor:
        return self.prior._grad(x) + _shapes.like(self.weight, x) * (x - _point(self.center, x))


def add(first: Prior, second: Prior) -> PlusQuadratic:
    """The sum of a prior and a quadratic one, in either order; what ``first + second`` calls.

    Where only one of the two says how many axes an unknown has (``dims``), that holds for the sum.

    Raises
    ------
    TypeError
        If neither is a `SquaredL2`: the sum then has no prox of its own, and a splitting solver takes both.
    """
    if not isinstance(first, Prior) or not isinstance(second, Prior):
        raise TypeError(f"a prior can be added to a prior, got {type(first).__name__} + {type(second).__name__}")
    if not isinstance(second, SquaredL2):
        first, second = second, first
    if not isinstance(second, SquaredL2):
        raise TypeError(f"{type(second).__name__} + {type(first).__name__} has no closed-form prox: one of the two "
                        f"must be SquaredL2; hand both to a splitting solver (primal_dual) instead")
    if first.dims is not None and second.dims is not None and first.dims != second.dims:
        raise ValueError(f"dims of the two priors must agree, got {first.dims} and {second.dims}")
    if first.dims is None and second.dims is not None:
        first = first._of_dims(second.dims)
    return PlusQuadratic(first, second.weight)


@dataclass(frozen=True)
class Translated(Wrapped):
    """R(x) = prior(x - offset): the belief holds around ``offset`` instead of zero.

    Parameters
    ----------
    offset
        A number or a tensor that broadcasts to ``x``.
    """

    offset: float | Tensor = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_point("offset", self.offset)

    @property
    def lipschitz(self) -> float | None:
        """As the inner prior."""
        return self.prior.lipschitz

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        check_fits("offset", self.offset, x)

    def _value(self, x: Tensor) -> Tensor:
        return self.prior._value(x - _point(self.offset, x))

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        offset = _point(self.offset, x)
        return offset + self.prior._prox(x - offset, step)

    def _warm_prox(self, x: Tensor, step: float | Tensor, state: object) -> tuple[Tensor, object]:
        offset = _point(self.offset, x)
        u, state = self.prior._warm_prox(x - offset, step, state)
        return offset + u, state

    def _grad(self, x: Tensor) -> Tensor:
        return self.prior._grad(x - _point(self.offset, x))


@dataclass(frozen=True)
class Magnitude(Wrapped):
    """R(z) = prior(|z|) for complex z: a belief about magnitudes only, the phase being free.

    Its prox keeps the phase of z and applies the inner prox to |z|; where z = 0 every phase is optimal and phase 0 is
    taken. An inner result below zero (a denoiser may give one) is clamped to zero.

    Source: Oral and Oktem (2024), Plug-and-play regularization on magnitude with deep priors for 3D near-field MIMO
    imaging, proposition 1.
    """

    @property
    def convex(self) -> bool:
        """False: a convex function of magnitudes is convex in z only if it increases with each of them."""
        return False

    @property
    def accepts_complex(self) -> bool:
        """True."""
        return True

    def _fits(self, x: Tensor) -> None:
        Prior._fits(self, x)
        self.prior._fits(x.real if x.is_complex() else x)

    def _value(self, x: Tensor) -> Tensor:
        return self.prior._value(x.abs())

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        r = x.abs()
        return _with_phase(x, r, self.prior._prox(r, step))

    def _warm_prox(self, x: Tensor, step: float | Tensor, state: object) -> tuple[Tensor, object]:
        r = x.abs()
        u, state = self.prior._warm_prox(r, step, state)
        return _with_phase(x, r, u), state


@dataclass(frozen=True)
class Groups(Prior):
    """R(x) = prior(norms of the groups along ``axis``), e.g. ``Groups(L0(0.1), axis=-1)`` for group sparsity.

    The inner prior sees the tensor of norms, ``axis`` kept with length 1. The prox scales each group to the norm that
    the inner prox gives (clamped to zero from below); a zero group that must grow gets equal entries.

    Parameters
    ----------
    prior
        A prior of nonnegative tensors. ``dims`` is that of the inner prior.
    axis
        One axis or several. Negative counts from the end; a nonnegative axis needs ``dims=None``.
    """

    prior: Prior
    axis: int | tuple[int, ...] = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.prior, Prior):
            raise TypeError(f"prior must be a Prior, got {type(self.prior).__name__}")
        if self.dims is None:
            object.__setattr__(self, "dims", self.prior.dims)
        if self.dims != self.prior.dims:
            raise ValueError(f"dims of Groups must be that of its inner prior, {self.prior.dims}, got {self.dims}")
        _shapes.check_axis(self.axis, self.dims)

    def _of_dims(self, dims: int) -> Self:
        return replace(self, prior=self.prior._of_dims(dims), dims=dims)

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        self.prior._fits(_shapes.norms(x.detach(), _shapes.group_axes(self.axis, x)))

    def _value(self, x: Tensor) -> Tensor:
        return self.prior._value(_shapes.norms(x, _shapes.group_axes(self.axis, x)))

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        axes = _shapes.group_axes(self.axis, x)
        old = _shapes.norms(x, axes)
        new = self.prior._prox(old, step).clamp(min=0)
        size = 1
        for a in axes:
            size *= x.shape[a]
        some = old > 0
        scaled = x * torch.where(some, new / torch.where(some, old, 1), 0)
        return torch.where(some, scaled, (new / max(size, 1) ** 0.5).to(x.dtype))


@dataclass(frozen=True)
class PlugAndPlay(Prior):
    """The prior that a denoiser implies: prox(x, step) = denoiser(x, sqrt(step)).

    R itself is known only through its prox, so `value` is NaN.

    Parameters
    ----------
    denoiser
        ``denoiser(x, std)`` returns a tensor of the shape, dtype and device of ``x`` from which white Gaussian noise of
        standard deviation ``std`` (a number, or a tensor with as many axes as ``x``, of size 1 along those of one
        unknown) has been removed. Real tensors, unless it has a true attribute ``accepts_complex``. ``dims`` is the
        denoiser's, where it has that attribute. To be written as JSON it must be a described object, as the library's
        own denoisers are.

    References
    ----------
    Venkatakrishnan, Bouman and Wohlberg (2013), Plug-and-play priors for model based reconstruction.
    """

    denoiser: Callable[[Tensor, float | Tensor], Tensor]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.denoiser):
            raise TypeError(f"denoiser must be callable as denoiser(x, std), got {type(self.denoiser).__name__}")
        own = getattr(self.denoiser, "dims", None)
        if self.dims is None:
            object.__setattr__(self, "dims", own)
        if own is not None and self.dims != own:
            raise ValueError(f"dims of PlugAndPlay must be that of its denoiser, {own}, got {self.dims}")

    @property
    def accepts_complex(self) -> bool:
        """Whether the denoiser says so."""
        return bool(getattr(self.denoiser, "accepts_complex", False))

    def _value(self, x: Tensor) -> Tensor:
        return self._sum(torch.full_like(x, torch.nan, dtype=x.dtype.to_real()))

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        if isinstance(step, Tensor):
            step = step.reshape((1,) * (x.ndim - step.ndim) + tuple(step.shape))
        out = self.denoiser(x, step ** 0.5)
        if not isinstance(out, Tensor) or out.shape != x.shape or out.dtype != x.dtype:
            got = f"{out.dtype} {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(f"the denoiser must return {x.dtype} {tuple(x.shape)}, got {got}")
        return out


def check_point(name: str, value: float | complex | Tensor) -> None:
    """Raise unless ``value`` is a finite number or a finite floating or complex tensor."""
    if isinstance(value, Tensor):
        _checks.inexact(name, value)
    elif not isinstance(value, (int, float, complex)) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number or a tensor, got {type(value).__name__}")
    else:
        _checks.inexact(name, torch.as_tensor(complex(value)))


def check_fits(name: str, value: float | complex | Tensor, x: Tensor) -> None:
    """Raise unless the point ``value`` broadcasts to ``x`` and is real where ``x`` is."""
    _shapes.must_broadcast(name, value, x)
    if not x.is_complex() and (value.is_complex() if isinstance(value, Tensor) else isinstance(value, complex)):
        raise TypeError(f"{name} is complex, so x must be complex, got {x.dtype}")


def _point(value: float | Tensor, x: Tensor) -> float | Tensor:
    return value.to(dtype=x.dtype, device=x.device) if isinstance(value, Tensor) else value


def _with_phase(x: Tensor, r: Tensor, modulus: Tensor) -> Tensor:
    modulus = modulus.clamp(min=0)
    some = r > 0
    return torch.where(some, x * (modulus / torch.where(some, r, 1)), modulus.to(x.dtype))
