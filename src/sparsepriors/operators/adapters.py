"""Operators of other libraries, and pairs of functions, as linear operators."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.operators._autograd import linear, to_numpy
from sparsepriors.operators.base import LinearOperator, Space

_NUMPY = {torch.float32: np.float32, torch.float64: np.float64,
          torch.complex64: np.complex64, torch.complex128: np.complex128}
_TORCH = {np.dtype(n): t for t, n in _NUMPY.items()}
_HALF_EPS = torch.finfo(torch.float16).eps


@dataclass(frozen=True, eq=False, repr=False)
class FunctionOperator(LinearOperator):
    """A pair of torch functions as an operator; see `from_callable`, which makes and tests it.

    Both functions see one leading batch axis when ``batched``, else one item at a time.
    """

    function: Callable[[Tensor], Tensor]
    adjoint_function: Callable[[Tensor], Tensor]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    dtypes: tuple[torch.dtype, torch.dtype]
    batched: bool = False
    name: str = "function"

    @property
    def domain(self) -> Space:
        return Space(self.shapes[0], self.dtypes[0])

    @property
    def codomain(self) -> Space:
        return Space(self.shapes[1], self.dtypes[1])

    def _forward(self, x: Tensor) -> Tensor:
        return self._call(self.function, x, self.in_shape, self.out_shape, self.out_dtype)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._call(self.adjoint_function, y, self.out_shape, self.in_shape, self.in_dtype)

    def _call(self, function: Callable[[Tensor], Tensor], x: Tensor, shape: tuple[int, ...],
              new_shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        batch = x.shape[:x.ndim - len(shape)]
        items = x.reshape(math.prod(batch), *shape)
        if items.shape[0] == 0:
            return x.new_zeros((*batch, *new_shape), dtype=dtype)
        y = function(items) if self.batched else torch.stack([function(item) for item in items])
        want = (items.shape[0], *new_shape)
        if tuple(y.shape) != want or y.dtype != dtype:
            raise ValueError(f"{self.name} must return {dtype} of shape {want}, got {y.dtype} "
                             f"of shape {tuple(y.shape)}")
        # A function may hand its argument back; a result must not share its memory.
        y = y.clone() if _may_share_memory(x, y) else y
        return y.reshape((*batch, *new_shape))

    def __repr__(self) -> str:
        return super().__repr__().replace("FunctionOperator", self.name, 1)


@dataclass(frozen=True, eq=False, repr=False)
class NumpyOperator(LinearOperator):
    """An operator that computes with NumPy vectors; see `from_scipy` and `from_pylops`, which make and test it.

    ``matmat`` and ``rmatmat`` map flattened columns ``(n, items)`` to ``(m, items)`` and back. The work is done on the
    CPU, wherever x lives, and can be differentiated.
    """

    matmat: Callable[[np.ndarray], np.ndarray]
    rmatmat: Callable[[np.ndarray], np.ndarray]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    dtypes: tuple[torch.dtype, torch.dtype]
    name: str = "NumpyOperator"

    @property
    def domain(self) -> Space:
        return Space(self.shapes[0], self.dtypes[0])

    @property
    def codomain(self) -> Space:
        return Space(self.shapes[1], self.dtypes[1])

    def _forward(self, x: Tensor) -> Tensor:
        return linear(x, self._apply, self._apply_adjoint)

    def _adjoint(self, y: Tensor) -> Tensor:
        return linear(y, self._apply_adjoint, self._apply)

    def _apply(self, x: Tensor) -> Tensor:
        return _columns(self.matmat, x, self.in_shape, self.out_shape, self.out_dtype)

    def _apply_adjoint(self, y: Tensor) -> Tensor:
        return _columns(self.rmatmat, y, self.out_shape, self.in_shape, self.in_dtype)

    def __repr__(self) -> str:
        return super().__repr__().replace("NumpyOperator", self.name, 1)


def from_callable(forward: Any, adjoint: Any = None, *,
                  in_shape: tuple[int, ...], out_shape: tuple[int, ...] | None = None,
                  in_dtype: torch.dtype = torch.float32, out_dtype: torch.dtype | None = None,
                  batched: bool | None = None, check: bool = True) -> LinearOperator:
    """A linear operator from a pair of torch functions, or from an object with ``A`` and ``A_adjoint``.

    Parameters
    ----------
    forward
        x to A x; or, when ``adjoint`` is not given, an object with methods ``A`` and ``A_adjoint``, the convention of
        deepinv's linear physics.
    adjoint
        y to A^H y.
    in_shape
        Shape of one x, without batch axes.
    out_shape, out_dtype
        Those of one y; by default found by applying ``forward`` once, to zeros.
    in_dtype
        Dtype of x.
    batched
        Whether the functions expect exactly one leading batch axis; by default yes for objects and no for functions.
    check
        Whether to test, on two drawn pairs, that the functions are adjoint to each other.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or the test finds that the functions are not adjoint.
    """
    in_shape = _checks.shape("in_shape", in_shape)
    _checks.inexact_dtype("in_dtype", in_dtype)
    name = type(forward).__name__ if adjoint is None else getattr(forward, "__name__", type(forward).__name__)
    if adjoint is None:
        batched = True if batched is None else batched
        forward, adjoint = getattr(forward, "A", None), getattr(forward, "A_adjoint", None)
    for function in (forward, adjoint):
        if not callable(function):
            raise TypeError(f"forward and adjoint must be two functions, or forward an object with methods A and "
                            f"A_adjoint, got {name}")
    batched = bool(batched)
    if out_shape is None or out_dtype is None:
        probe = forward(torch.zeros((1, *in_shape) if batched else in_shape, dtype=in_dtype))
        if not isinstance(probe, Tensor):
            raise TypeError(f"{name} must return a torch.Tensor, got {type(probe).__name__}")
        out_shape = tuple(probe.shape[1:] if batched else probe.shape) if out_shape is None else out_shape
        out_dtype = probe.dtype if out_dtype is None else out_dtype
    out_shape = _checks.shape("out_shape", out_shape)
    _checks.inexact_dtype("out_dtype", out_dtype)
    op = FunctionOperator(forward, adjoint, (in_shape, out_shape), (in_dtype, out_dtype), batched, name)
    return _tested(op) if check else op


def from_scipy(operator: Any, *, in_shape: tuple[int, ...] | None = None, out_shape: tuple[int, ...] | None = None,
               in_dtype: torch.dtype | None = None, out_dtype: torch.dtype | None = None,
               check: bool = True) -> LinearOperator:
    """A linear operator from a SciPy ``LinearOperator``, a sparse matrix or array, or a NumPy matrix.

    Parameters
    ----------
    operator
        Anything that ``scipy.sparse.linalg.aslinearoperator`` takes.
    in_shape, out_shape
        Shapes of one x and one y, by default vectors.
    in_dtype, out_dtype
        Dtypes of x and y, by default those of ``operator``, in double precision where torch has no other.
    check
        Whether to test the adjoint on two drawn pairs.

    Raises
    ------
    TypeError, ValueError
        If ``operator`` is no linear operator, a shape does not have its size, or the test finds a wrong adjoint.
    """
    from scipy.sparse.linalg import aslinearoperator

    try:
        found = aslinearoperator(operator)
    except TypeError as e:
        raise TypeError(f"operator must be a SciPy LinearOperator or a matrix, got {type(operator).__name__}") from e
    m, n = found.shape
    in_shape = (n,) if in_shape is None else _checks.shape("in_shape", in_shape)
    out_shape = (m,) if out_shape is None else _checks.shape("out_shape", out_shape)
    for name, shape, size in (("in_shape", in_shape, n), ("out_shape", out_shape, m)):
        if math.prod(shape) != size:
            raise ValueError(f"{name} must hold {size} entries, as the operator of shape ({m}, {n}) does, got {shape}")
    kind = np.dtype(found.dtype)
    own = _TORCH.get(kind, torch.complex128 if kind.kind == "c" else torch.float64)
    in_dtype, out_dtype = own if in_dtype is None else in_dtype, own if out_dtype is None else out_dtype
    for name, dtype in (("in_dtype", in_dtype), ("out_dtype", out_dtype)):
        if dtype not in _NUMPY:
            raise TypeError(f"{name} must have single or double precision, got {dtype}")
    try:
        found.rmatvec(np.zeros(m, found.dtype))
    except (NotImplementedError, TypeError) as e:  # what SciPy raises depends on how the operator was made
        raise TypeError(f"operator must have an adjoint (rmatvec), {type(operator).__name__} has none") from e
    op = NumpyOperator(found.matmat, found.rmatmat, (in_shape, out_shape), (in_dtype, out_dtype),
                       type(operator).__name__)
    return _tested(op) if check else op


def from_pylops(operator: Any, *, in_dtype: torch.dtype | None = None, out_dtype: torch.dtype | None = None,
                check: bool = True) -> LinearOperator:
    """A linear operator from one of PyLops, with the N-D shapes ``dims`` and ``dimsd`` that it states.

    Raises
    ------
    TypeError, ValueError
        As `from_scipy`; or if ``operator`` has no ``dims`` and ``dimsd``.
    """
    dims, dimsd = getattr(operator, "dims", None), getattr(operator, "dimsd", None)
    if dims is None or dimsd is None:
        raise TypeError(f"operator must be a pylops.LinearOperator with dims and dimsd, got {type(operator).__name__}")
    return from_scipy(operator, in_shape=tuple(int(n) for n in dims), out_shape=tuple(int(n) for n in dimsd),
                      in_dtype=in_dtype, out_dtype=out_dtype, check=check)


def _may_share_memory(x: Tensor, y: Tensor) -> bool:
    try:
        return y.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    except NotImplementedError:  # of a tensor that torch.func differentiates
        return True


def _columns(matmat: Callable[[np.ndarray], np.ndarray], x: Tensor, shape: tuple[int, ...],
             new_shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    batch = x.shape[:x.ndim - len(shape)]
    items = x.reshape(math.prod(batch), math.prod(shape))
    if items.shape[0] == 0:
        return x.new_zeros((*batch, *new_shape), dtype=dtype)
    y = np.asarray(matmat(to_numpy(items).T))
    if not dtype.is_complex and np.iscomplexobj(y):
        y = np.real(y)  # the adjoint from a complex to a real space, in the real inner product
    y = np.array(y.T, dtype=_NUMPY[dtype], order="C")
    return torch.from_numpy(y).to(x.device).reshape((*batch, *new_shape))


@torch.no_grad()
def _tested(op: LinearOperator) -> LinearOperator:
    """Return ``op`` if its two maps are adjoint to each other, to rounding."""
    generator = torch.Generator().manual_seed(0)
    eps = max(torch.finfo(dtype).eps for dtype in (op.in_dtype, op.out_dtype))
    tol = 1e3 * eps if eps < _HALF_EPS else 4 * eps  # a thousand roundings of half precision would hide any error
    for _ in range(2):
        x = torch.randn(op.in_shape, dtype=op.in_dtype, generator=generator)
        y = torch.randn(op.out_shape, dtype=op.out_dtype, generator=generator)
        x, y, ax, ahy = (v.to(torch.promote_types(v.dtype, torch.float64))
                         for v in (x, y, op._forward(x), op._adjoint(y)))
        left, right = float((ax.conj() * y).sum().real), float((x.conj() * ahy).sum().real)
        scale = float(torch.linalg.vector_norm(ax) * torch.linalg.vector_norm(y)
                      + torch.linalg.vector_norm(x) * torch.linalg.vector_norm(ahy))
        if not abs(left - right) <= tol * scale:
            raise ValueError(f"{op} is not adjoint to its adjoint: <A x, y> = {left:.8g}, <x, A^H y> = {right:.8g}")
    return op
