"""What a linear operator is: two spaces, a forward map and its exact adjoint; and the algebra that composes them.

Inner products: <u, v> = sum conj(u) v between complex spaces. As soon as one of the two spaces is real, both carry the
real inner product Re <u, v>, so that the adjoint of an operator from real to complex tensors returns real tensors.
Every operator satisfies <A x, y> = <x, A^H y> to rounding.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from numbers import Complex, Real
from typing import Any, NamedTuple, Self, overload

import torch
from jaxtyping import Inexact
from torch import Tensor

from sparsepriors import _checks
from sparsepriors._described import Described

_DENSE_ENTRIES = 2**24
_LEAST_STEPS = 20


class Space(NamedTuple):
    """The tensors of one shape and dtype; what an operator maps from and to."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class LinearOperator(Described, ABC):
    """y = A x between tensor spaces; batch axes lead.

    Subclasses are frozen dataclasses (``eq=False, repr=False``). They state their ``domain``, and their ``codomain``
    where it differs, and give ``_forward`` and ``_adjoint``, which see checked tensors. `norm`, `gram`, ``H`` and
    `unitary` are overridden where a closed form is known.
    """

    @property
    @abstractmethod
    def domain(self) -> Space:
        """Where x lives."""

    @property
    def codomain(self) -> Space:
        """Where y lives; with x unless the operator says otherwise."""
        return self.domain

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one x."""
        return self.domain.shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of one y."""
        return self.codomain.shape

    @property
    def in_dtype(self) -> torch.dtype:
        """Dtype of x."""
        return self.domain.dtype

    @property
    def out_dtype(self) -> torch.dtype:
        """Dtype of y."""
        return self.codomain.dtype

    @abstractmethod
    def _forward(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _adjoint(self, y: Tensor) -> Tensor: ...

    @property
    def unitary(self) -> bool:
        """Whether A^H A = A A^H = I is known to hold."""
        return False

    @property
    def complex_linear(self) -> bool:
        """Whether A (c x) = c A x for complex c; operators that touch a real space are linear over the reals only."""
        return self.in_dtype.is_complex and self.out_dtype.is_complex

    @property
    def device(self) -> torch.device | None:
        """Where the operator's own tensors live; ``None`` when it has none and works on any device."""
        for value in self._parts():
            found = value.device
            if found is not None:
                return found
        return None

    def forward(self, x: Inexact[Tensor, "..."]) -> Inexact[Tensor, "..."]:
        """A x: ``(..., *in_shape)`` to ``(..., *out_shape)``.

        Raises
        ------
        TypeError, ValueError
            If ``x`` has another shape or dtype, lives on another device, or holds NaN or infinite entries.
        """
        self._check("x", x, self.in_shape, self.in_dtype)
        return self._forward(x)

    def adjoint(self, y: Inexact[Tensor, "..."]) -> Inexact[Tensor, "..."]:
        """A^H y: ``(..., *out_shape)`` to ``(..., *in_shape)``.

        Raises
        ------
        TypeError, ValueError
            If ``y`` has another shape or dtype, lives on another device, or holds NaN or infinite entries.
        """
        self._check("y", y, self.out_shape, self.out_dtype)
        return self._adjoint(y)

    def __call__(self, x: Tensor) -> Tensor:
        return self.forward(x)

    @property
    def H(self) -> LinearOperator:
        """The adjoint operator A^H."""
        from sparsepriors.operators.algebra import Adjoint

        return Adjoint(self)

    def gram(self) -> LinearOperator:
        """A^H A as one operator, in closed form where one is known and cheap."""
        return self.H @ self

    def norm(self, *, tol: float = 1e-3, max_iter: int = 2000, generator: torch.Generator | None = None) -> float:
        """Spectral norm ||A|| = max ||A x|| / ||x||: exact where a closed form is known, else iterative.

        Lanczos' iteration, the accelerated power iteration, runs on A^H A from a random start. Its largest Ritz value
        q and the norm r of that value's residual put an eigenvalue in [q - r, q + r]. The value returned is
        sqrt(q + r), on the safe side for step sizes, once r <= 2 tol q, but not before 20 steps, which a start that
        happens to lie near another eigenvector needs to leave it.

        Parameters
        ----------
        tol
            Relative accuracy of the norm.
        max_iter
            Most applications of A^H A.
        generator
            Source of the start vector; by default a new one with seed 0, so that the result is deterministic.

        Raises
        ------
        RuntimeError
            If ``tol`` is not met within ``max_iter`` applications.
        """
        _checks.positive("tol", tol)
        _checks.count("max_iter", max_iter, low=1)
        known = self._known_norm()
        return self._lanczos(tol, max_iter, generator) if known is None else known

    def _known_norm(self) -> float | None:
        """The spectral norm where a closed form is known."""
        return 1.0 if self.unitary else None

    def _lanczos(self, tol: float, max_iter: int, generator: torch.Generator | None) -> float:
        from scipy.linalg import eigh_tridiagonal

        generator = torch.Generator().manual_seed(0) if generator is None else generator
        v = torch.randn(self.in_shape, dtype=self.in_dtype, generator=generator, device=generator.device)
        v = v.to(self.device) / torch.linalg.vector_norm(v).clamp_min(torch.finfo(v.dtype).tiny)
        eps = torch.finfo(v.dtype).eps
        unit = self._unit(v)
        previous, diagonal, off, q, r = torch.zeros_like(v), [], [0.0], 0.0, math.inf
        for step in range(1, max_iter + 1):
            w = self._adjoint(self._forward(v) / unit) / unit - off[-1] * previous
            diagonal.append(float((v.conj() * w).sum().real))
            w = w - diagonal[-1] * v
            off.append(float(torch.linalg.vector_norm(w)))
            values, vectors = eigh_tridiagonal(diagonal, off[1:-1], select="i", select_range=(step - 1, step - 1))
            q = max(float(values[0]), 0.0)
            r = off[-1] * abs(float(vectors[-1, 0]))
            # An off-diagonal entry at rounding level: the Krylov space is invariant, the Ritz value an eigenvalue.
            if off[-1] <= 100 * eps * q or (r <= 2 * tol * q and step >= min(_LEAST_STEPS, max_iter)):
                return math.sqrt(q + r) * unit
            previous, v = v, w / off[-1]
        raise RuntimeError(f"the norm of {self} is {math.sqrt(q) * unit:.6g} to a relative {r / (2 * q):.1e} after "
                           f"{max_iter} iterations, not to tol = {tol:.1e}; raise max_iter or tol")

    def _unit(self, v: Tensor) -> float:
        """1, or a power of 2 near ||A v|| where A^H A or the squares of its entries would leave single precision."""
        y = self._forward(v)
        size = float(torch.linalg.vector_norm(y.to(torch.promote_types(y.dtype, torch.float64))))
        return 1.0 if 2**-13 < size < 2**13 or not 0 < size < math.inf else 2.0 ** round(math.log2(size))

    def dense(self) -> Inexact[Tensor, "m n"]:
        """The matrix of A, with both spaces flattened in row-major order.

        Raises
        ------
        ValueError
            If it would have more than 2**24 entries.
        TypeError
            If A acts on complex tensors but is only real-linear, so that no complex matrix describes it.
        """
        n, m = math.prod(self.in_shape), math.prod(self.out_shape)
        if n * m > _DENSE_ENTRIES:
            raise ValueError(f"{self} has a matrix of {m} x {n} entries; dense() makes at most {_DENSE_ENTRIES}")
        if self.in_dtype.is_complex and not self.complex_linear:
            raise TypeError(f"{self} is linear over the reals only and has no complex matrix")
        basis = torch.eye(n, dtype=self.in_dtype, device=self.device).reshape(n, *self.in_shape)
        return self._forward(basis).reshape(n, m).mT

    def to(self, device: torch.device | str) -> Self:
        """The same operator with its tensors on ``device``."""
        if not dataclasses.is_dataclass(self):
            raise TypeError(f"{type(self).__name__} is not a dataclass; it must define its own to(device)")
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}
        return dataclasses.replace(self, **{k: _moved(v, device) for k, v in fields.items()})

    @overload
    def __matmul__(self, other: LinearOperator) -> LinearOperator: ...
    @overload
    def __matmul__(self, other: Tensor) -> Tensor: ...
    def __matmul__(self, other: LinearOperator | Tensor) -> LinearOperator | Tensor:
        if isinstance(other, Tensor):
            return self.forward(other)
        if not isinstance(other, LinearOperator):
            return NotImplemented
        from sparsepriors.operators.algebra import compose

        return compose(self, other)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        if not isinstance(other, LinearOperator):
            return NotImplemented
        from sparsepriors.operators.algebra import add

        return add(self, other)

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        if not isinstance(other, LinearOperator):
            return NotImplemented
        return self + -other

    def __neg__(self) -> LinearOperator:
        return self * -1.0

    def __mul__(self, factor: complex) -> LinearOperator:
        if not isinstance(factor, Complex):
            return NotImplemented
        from sparsepriors.operators.algebra import scale

        return scale(self, float(factor) if isinstance(factor, Real) else complex(factor))

    __rmul__ = __mul__

    def __truediv__(self, divisor: complex) -> LinearOperator:
        if not isinstance(divisor, Complex):
            return NotImplemented
        return self * (1 / divisor)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_space(self.in_shape, self.in_dtype, self.out_shape, self.out_dtype)})"

    def _check(self, name: str, x: object, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        x = _checks.inexact(name, x)
        _checks.trailing_shape(name, x, shape)
        _checks.same_dtype(name, x, dtype)
        if self.device is not None and x.device != self.device:
            raise ValueError(f"{name} lives on {x.device}, {self} on {self.device}; move one with .to(device)")

    def _parts(self) -> Iterator[Tensor | LinearOperator]:
        """The tensors and operators that this operator holds."""
        if dataclasses.is_dataclass(self):
            for f in dataclasses.fields(self):
                value = getattr(self, f.name)
                for v in value if isinstance(value, tuple) else (value,):
                    if isinstance(v, (Tensor, LinearOperator)):
                        yield v


def _moved(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, tuple):
        return tuple(_moved(v, device) for v in value)
    return value.to(device) if isinstance(value, (Tensor, LinearOperator)) else value


def _space(in_shape: tuple[int, ...], in_dtype: torch.dtype, out_shape: tuple[int, ...], out_dtype: torch.dtype) -> str:
    def side(shape: tuple[int, ...]) -> str:
        return "x".join(map(str, shape)) or "scalar"

    first, last = (str(d).removeprefix("torch.") for d in (in_dtype, out_dtype))
    if first == last:
        return f"{side(in_shape)} -> {side(out_shape)}, {last}"
    return f"{side(in_shape)} {first} -> {side(out_shape)} {last}"
