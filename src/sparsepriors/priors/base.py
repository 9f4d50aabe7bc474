"""What a prior is: a belief about a tensor, with a value and a proximal operator.

A prior is a function R with values in (-inf, inf], the negative logarithm of a density up to a constant. What a
solver asks of it is the proximal operator (Moreau, 1962)

    prox(x, step) = argmin_u  step * R(u) + 1/2 ||u - x||^2,

a projection when R is the indicator of a set, a denoiser when R is only known through one. For complex tensors the
norm is the complex one and R a function of the moduli unless the prior says otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from jaxtyping import Inexact
from torch import Tensor

from sparsepriors import _checks
from sparsepriors._described import Described

if TYPE_CHECKING:
    from sparsepriors.priors.combinators import PlusQuadratic, Scaled


@dataclass(frozen=True)
class Prior(Described, ABC):
    """Base of every prior: subclasses give ``_value`` and ``_prox``; the public calls validate and dispatch.

    What holds for every instance is said where the class is defined, ``class L1(Prior, convex=True, separable=True)``,
    and inherited: `convex` and `separable` are False and `accepts_complex` is True unless said otherwise. A class whose
    answer depends on its parameters overrides the property.

    Parameters
    ----------
    dims
        How many trailing axes make up one unknown; the axes before them are a batch. ``None``: the whole tensor is
        one unknown. A separable prior's prox does not depend on it, its value does.
    """

    dims: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.dims is not None:
            _checks.count("dims", self.dims, low=0)

    _convex: ClassVar[bool] = False
    _separable: ClassVar[bool] = False
    _accepts_complex: ClassVar[bool] = True

    def __init_subclass__(cls, *, convex: bool | None = None, separable: bool | None = None,
                          accepts_complex: bool | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, value in (("_convex", convex), ("_separable", separable), ("_accepts_complex", accepts_complex)):
            if value is not None:
                setattr(cls, name, value)

    @property
    def convex(self) -> bool:
        """Whether R is convex, so that the prox is single-valued and firmly nonexpansive."""
        return self._convex

    @property
    def separable(self) -> bool:
        """Whether R is a sum over entries, so that the prox takes a step per entry."""
        return self._separable

    @property
    def accepts_complex(self) -> bool:
        """Whether complex tensors are in the domain."""
        return self._accepts_complex

    @property
    def lipschitz(self) -> float | None:
        """Lipschitz constant of the gradient where R is differentiable everywhere, else ``None``."""
        return None

    def value(self, x: Inexact[Tensor, "..."]) -> Inexact[Tensor, "..."]:
        """R(x), one real number per unknown: shape ``x.shape[:-dims]``, or a scalar when ``dims`` is ``None``.

        NaN where R is known only through its prox (`PlugAndPlay` and what is made of it).

        Raises
        ------
        TypeError, ValueError
            If ``x`` is not floating or complex, not finite, or not in the prior's shape.
        """
        self._check(x)
        return self._value(x)

    def prox(self, x: Inexact[Tensor, "*shape"], step: float | Tensor = 1.0) -> Inexact[Tensor, "*shape"]:
        """The minimiser u of ``step * R(u) + 1/2 ||u - x||^2``; shape, dtype and device of ``x``.

        Parameters
        ----------
        x
            Any shape with at least ``dims`` axes.
        step
            Positive, a number or a tensor that broadcasts against ``x``: one step per unknown, or per entry when
            the prior is `separable`.

        Raises
        ------
        TypeError, ValueError
            If ``x`` is not floating or complex, not finite, or not in the prior's shape; if ``step`` is not positive.
        """
        self._check(x)
        _checks.positive("step", step)
        if isinstance(step, Tensor):
            step = self._check_step(x, step)
        return self._prox(x, step)

    def warm_prox(self, x: Inexact[Tensor, "*shape"], step: float | Tensor = 1.0,
                  state: object = None) -> tuple[Inexact[Tensor, "*shape"], object]:
        """`prox`, started from what an earlier call on a similar tensor of the same shape returned.

        A prior whose prox is iterative (`TV`) saves iterations this way; the accuracy it states stays the same. For
        every other prior the state is ``None`` and the result is that of `prox`. The caller keeps the state, the
        prior does not.

        Returns
        -------
        tuple
            The prox, and the state to hand to the next call.

        Raises
        ------
        TypeError, ValueError
            As `prox`, and if ``state`` is not one that this prior returned for this shape.
        """
        self._check(x)
        _checks.positive("step", step)
        if isinstance(step, Tensor):
            step = self._check_step(x, step)
        return self._warm_prox(x, step, state)

    def grad(self, x: Inexact[Tensor, "*shape"]) -> Inexact[Tensor, "*shape"]:
        """Gradient of R at ``x``, for priors whose `lipschitz` is not ``None``.

        Raises
        ------
        TypeError
            If the prior is not differentiable.
        """
        if self.lipschitz is None:
            raise TypeError(f"{type(self).__name__} has no gradient; use its prox")
        self._check(x)
        return self._grad(x)

    @abstractmethod
    def _value(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor: ...

    def _warm_prox(self, x: Tensor, step: float | Tensor, state: object) -> tuple[Tensor, object]:
        if state is not None:
            raise ValueError(f"{type(self).__name__} keeps no state between calls, got a {type(state).__name__}")
        return self._prox(x, step), None

    def _grad(self, x: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} states a Lipschitz constant but has no _grad")

    def _check(self, x: object) -> None:
        self._fits(_checks.inexact("x", x))

    def _fits(self, x: Tensor) -> None:
        """Raise unless dtype and shape of ``x`` suit the prior; subclasses add what they need."""
        if x.is_complex() and not self.accepts_complex:
            raise TypeError(f"{type(self).__name__} is a prior of real tensors, got {x.dtype}; "
                            f"wrap it in Magnitude for complex unknowns")
        if self.dims is not None and x.ndim < self.dims:
            raise ValueError(f"x must have at least dims = {self.dims} axes, got shape {tuple(x.shape)}")

    def _check_step(self, x: Tensor, step: Tensor) -> Tensor:
        real = x.dtype.to_real() if x.is_complex() else x.dtype
        try:
            torch.broadcast_shapes(x.shape, step.shape)
        except RuntimeError as e:
            raise ValueError(f"step of shape {tuple(step.shape)} does not broadcast against x of shape "
                             f"{tuple(x.shape)}") from e
        if step.ndim > x.ndim:
            raise ValueError(f"step must not have more axes than x, got {tuple(step.shape)} and {tuple(x.shape)}")
        if not self.separable:
            event = step.shape[-self.dims:] if self.dims else (step.shape if self.dims is None else ())
            if any(n != 1 for n in event):
                raise ValueError(f"{type(self).__name__} is not separable: step must be constant over each unknown, "
                                 f"got shape {tuple(step.shape)} for x of shape {tuple(x.shape)}, dims = {self.dims}")
        return step.to(dtype=real, device=x.device)

    def _of_dims(self, dims: int) -> Self:
        """The same prior, whose ``dims`` is ``None``, of unknowns of so many axes; wrappers ask the prior inside."""
        return replace(self, dims=dims)

    def _sum(self, per_entry: Tensor) -> Tensor:
        """Sum over the axes of one unknown."""
        if self.dims is None:
            return per_entry.sum()
        return per_entry.sum(dim=self._axes) if self.dims else per_entry

    @property
    def _axes(self) -> tuple[int, ...]:
        """The axes of one unknown, counted from the end (only when ``dims`` is a number)."""
        return tuple(range(-(self.dims or 0), 0))

    def __mul__(self, factor: float) -> Scaled:
        from sparsepriors.priors.combinators import Scaled

        return Scaled(self, factor)

    __rmul__ = __mul__

    def __add__(self, other: Prior) -> PlusQuadratic:
        from sparsepriors.priors.combinators import add

        return add(self, other)
