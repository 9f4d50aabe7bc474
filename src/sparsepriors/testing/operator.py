"""The contract of a linear operator, as named checks that anybody's operator can be put through."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.operators import BlockDiagonal, Composed, LinearOperator, Stack

_RELATIVE = {torch.float32: 1e-5, torch.float64: 1e-12}  # bound of the dot test against ||A x|| ||y||
_DENSE_ENTRIES = 2**18
_NORM_TOL = 1e-2

Check = Callable[[LinearOperator, torch.Generator], None]


def check_operator(operator: LinearOperator, *, only: Iterable[str] | None = None, seed: int = 0) -> list[str]:
    """Put an operator through its contract; the first broken promise raises.

    Parameters
    ----------
    operator
        Any `LinearOperator` of single or double precision.
    only
        Names of the checks to run, from `operator_checks`; by default all.
    seed
        Of the random tensors.

    Returns
    -------
    list of str
        The names of the checks that ran, in order.

    Raises
    ------
    AssertionError
        Naming the check, the operator and the numbers.
    """
    if not isinstance(operator, LinearOperator):
        raise TypeError(f"operator must be a LinearOperator, got {type(operator).__name__}")
    names = list(_CHECKS) if only is None else [_checks.one_of("only", name, _CHECKS) for name in only]
    for name in names:
        try:
            _CHECKS[name](operator, torch.Generator().manual_seed(seed))
        except Exception as e:
            what = str(e) if isinstance(e, AssertionError) else f"{type(e).__name__}: {e}"
            raise AssertionError(f"{operator} fails {name!r}: {what}") from e
    return names


def operator_checks() -> tuple[str, ...]:
    """Names of all checks of `check_operator`."""
    return tuple(_CHECKS)


def dot_test(operator: LinearOperator, generator: torch.Generator, batch: tuple[int, ...] = ()) -> None:
    """Raise `AssertionError` unless <A x, y> = <x, A^H y> for drawn x and y.

    Two bounds hold: 1e3 eps ||x|| ||A^H y|| / sqrt(n) with n the entries of x, and 1e-5 (single) or 1e-12 (double
    precision) of ||A x|| ||y||. The inner product is complex for complex-linear operators, else its real part.
    """
    x, y = _draw_x(operator, generator, batch), _draw_y(operator, generator, batch)
    ax, ahy = operator.forward(x), operator.adjoint(y)
    dims_x, dims_y = tuple(range(len(batch), x.ndim)), tuple(range(len(batch), y.ndim))
    gap = _sum(ax.conj() * y, dims_y) - _sum(x.conj() * ahy, dims_x)
    gap = gap.abs() if operator.complex_linear else gap.real.abs()
    eps, real = torch.finfo(operator.in_dtype).eps, operator.in_dtype.to_real()
    scale = _norm(x, dims_x) * _norm(ahy, dims_x) / math.sqrt(max(1, math.prod(operator.in_shape)))
    tight = 1e3 * eps * scale
    loose = _RELATIVE[real] * _norm(ax, dims_y) * _norm(y, dims_y)
    if not bool((gap <= tight).all()) or not bool((gap <= loose).all()):
        raise AssertionError(f"|<A x, y> - <x, A^H y>| = {float(gap.max()):.3g}, bounds {float(tight.min()):.3g} "
                             f"and {float(loose.min()):.3g}")


def _spaces(A: LinearOperator, generator: torch.Generator) -> None:
    for name, shape in (("in_shape", A.in_shape), ("out_shape", A.out_shape)):
        _say(isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape),
             f"{name} must be a tuple of integers, is {shape!r}")
    for name, dtype in (("in_dtype", A.in_dtype), ("out_dtype", A.out_dtype)):
        _say(dtype.to_real() in _RELATIVE, f"{name} must have single or double precision, is {dtype}")
    x, y = _draw_x(A, generator), _draw_y(A, generator)
    for what, result, shape, dtype, like in (("A x", A(x), A.out_shape, A.out_dtype, x),
                                             ("A^H y", A.adjoint(y), A.in_shape, A.in_dtype, y)):
        _say(tuple(result.shape) == shape, f"{what} has shape {tuple(result.shape)}, not {shape}")
        _say(result.dtype == dtype, f"{what} has dtype {result.dtype}, not {dtype}")
        _say(result.device == like.device, f"{what} is on {result.device}, its argument on {like.device}")


def _adjoint(A: LinearOperator, generator: torch.Generator) -> None:
    for batch in ((), (), (3,), (2, 2)):
        dot_test(A, generator, batch)


def _linear(A: LinearOperator, generator: torch.Generator) -> None:
    a, b = (0.6 - 1.7j, -0.3 + 0.8j) if A.complex_linear else (0.6, -1.7)
    u, v = _draw_x(A, generator), _draw_x(A, generator)
    _same(A(a * u + b * v), a * A(u) + b * A(v), "A (a u + b v) and a A u + b A v")
    _say(not bool(A(torch.zeros_like(u)).count_nonzero()), "A 0 is not 0")


def _batch_is_loop(A: LinearOperator, generator: torch.Generator) -> None:
    for name, f, z in _both(A, generator, (2, 3)):
        loop = torch.stack([torch.stack([f(item) for item in row]) for row in z])
        _same(f(z), loop, f"{name} of a batch and of its items")


def _empty_batch(A: LinearOperator, generator: torch.Generator) -> None:
    for f, z, shape, dtype in ((A.forward, _draw_x(A, generator, (0, 2)), A.out_shape, A.out_dtype),
                               (A.adjoint, _draw_y(A, generator, (0, 2)), A.in_shape, A.in_dtype)):
        result = f(z)
        _say(tuple(result.shape) == (0, 2, *shape) and result.dtype == dtype,
             f"an empty batch gives {result.dtype} of shape {tuple(result.shape)}, not {dtype} of {(0, 2, *shape)}")


def _input_unchanged(A: LinearOperator, generator: torch.Generator) -> None:
    for name, f, z in _both(A, generator):
        before, version = z.clone(), z._version
        result = f(z)
        _say(torch.equal(z, before) and z._version == version, f"{name} writes into its argument")
        if result.numel():
            _say(result.untyped_storage().data_ptr() != z.untyped_storage().data_ptr(),
                 f"the result of {name} shares memory with its argument")


def _strides(A: LinearOperator, generator: torch.Generator) -> None:
    for name, f, z in _both(A, generator):
        spread = torch.stack((z, torch.full_like(z, math.nan)), dim=-1)[..., 0]
        _same(f(spread), f(z), f"{name} of a non-contiguous tensor and of its copy")
        _same(f(z.expand(2, *z.shape)), f(torch.stack((z, z))), f"{name} of an expanded tensor and of its copy")
        if z.is_complex():
            _same(f(z.conj()), f(z.conj().resolve_conj()), f"{name} of a lazy conjugate and of its copy")


def _bad_input(A: LinearOperator, generator: torch.Generator) -> None:
    for name, f, z in _both(A, generator):
        other = torch.float64 if z.dtype.to_real() == torch.float32 else torch.float32
        wrong: dict[str, tuple[object, type[Exception]]] = {
            "integers": (torch.ones(z.shape, dtype=torch.int64), TypeError),
            "another precision": (z.to(other.to_complex() if z.is_complex() else other), TypeError),
            "real numbers for complex ones" if z.is_complex() else "complex numbers for real ones":
                (z.real if z.is_complex() else z.to(z.dtype.to_complex()), TypeError),
            "a list": (z.tolist(), TypeError),
        }
        if z.ndim:
            wrong["one entry too many"] = (torch.cat((z, z.narrow(-1, 0, 1)), dim=-1) if z.numel() else z.new_zeros(
                *z.shape[:-1], z.shape[-1] + 1), ValueError)
            wrong["an axis too few"] = (z.new_zeros(z.shape[1:]) if z.ndim > 1 else z.new_zeros(()), ValueError)
        if z.numel():
            for value in (math.nan, math.inf):
                bad = z.clone()
                bad.view(-1)[-1] = value
                wrong[f"{value}"] = (bad, ValueError)
        for what, (argument, expected) in wrong.items():
            try:
                f(argument)  # pyright: ignore[reportArgumentType]
            except expected:
                continue
            raise AssertionError(f"{name} accepts {what}")


def _norm_bound(A: LinearOperator, generator: torch.Generator) -> None:
    norm = A.norm(tol=_NORM_TOL)
    _say(norm == A.norm(tol=_NORM_TOL), "norm() gives two values")
    x = _draw_x(A, generator)
    for _ in range(5):
        size = float(_norm(x))
        if size == 0:
            break
        x = x / size
        stretch = float(_norm(A(x)))
        _say(stretch <= norm * (1 + _NORM_TOL), f"norm() = {norm:.8g}, but ||A x|| = {stretch:.8g} ||x|| for some x")
        x = A.adjoint(A(x))
    if _has_matrix(A):
        matrix = A.dense()
        if matrix.is_complex() and not A.in_dtype.is_complex:
            matrix = torch.cat((matrix.real, matrix.imag))  # the norm over real x alone
        exact = float(torch.linalg.matrix_norm(matrix, ord=2)) if matrix.numel() else 0.0
        _say(abs(norm - exact) <= _NORM_TOL * exact + 1e-30, f"norm() = {norm:.8g}, singular values say {exact:.8g}")


def _dense(A: LinearOperator, generator: torch.Generator) -> None:
    if _has_matrix(A):
        x, y = _draw_x(A, generator), _draw_y(A, generator)
        matrix = A.dense().to(A.out_dtype)
        _same(A(x).reshape(-1), matrix @ x.reshape(-1).to(A.out_dtype), "A x and dense() x")
        back = matrix.mH @ y.reshape(-1)
        _same(A.adjoint(y).reshape(-1), back if A.in_dtype.is_complex else back.real, "A^H y and dense()^H y")


def _gram(A: LinearOperator, generator: torch.Generator) -> None:
    gram, x = A.gram(), _draw_x(A, generator)
    _say((gram.in_shape, gram.out_shape) == (A.in_shape, A.in_shape), f"gram() is {gram}")
    # Absolute against ||A||^2 ||x||: A^H A x may vanish, and families tabulated to 1e-9 count as orthonormal.
    scale = A.norm(tol=_NORM_TOL) ** 2 * float(_norm(x))
    error = float(_norm(gram(x) - A.adjoint(A(x))))
    tol = max(1e-9, 200 * torch.finfo(A.in_dtype).eps)
    _say(error <= tol * scale, f"gram() x and A^H A x differ by {error:.3g}, scale {scale:.3g}")
    dot_test(gram, generator)


def _double_adjoint(A: LinearOperator, generator: torch.Generator) -> None:
    x, y = _draw_x(A, generator), _draw_y(A, generator)
    _same(A.H(y), A.adjoint(y), "A.H y and A.adjoint(y)")
    _same(A.H.adjoint(x), A(x), "A.H.adjoint(x) and A x")
    _same(A.H.H(x), A(x), "A.H.H x and A x")
    dot_test(A.H, generator)


def _algebra(A: LinearOperator, generator: torch.Generator) -> None:
    x, two = _draw_x(A, generator), A + A
    _same(two(x), 2 * A(x), "(A + A) x and 2 A x")
    _same((A - 0.5 * A)(x), A(x) / 2, "(A - A / 2) x and A x / 2")
    _same((-A / 2)(x), -A(x) / 2, "(-A / 2) x and -A x / 2")
    product = Composed((A.H, A))
    _same(product(x), A.adjoint(A(x)), "(A.H @ A) x and A.H (A x)")
    stacked = Stack((A, two), axis=None)
    _same(stacked(x), torch.cat((A(x).reshape(-1), two(x).reshape(-1))), "Stack x and its parts")
    made = [two, A - 0.5 * A, -A, product, A @ A.H, stacked, BlockDiagonal((A, two), axis=None), two.H, stacked.H,
            product.H, BlockDiagonal((A, two), axis=None).H]
    if A.out_dtype.is_complex:
        made += [(1 - 2j) * A, ((1 - 2j) * A).H]
        _same(((1 - 2j) * A)(x), (1 - 2j) * A(x), "(c A) x and c (A x)")
    for op in made:
        try:
            dot_test(op, generator)
        except AssertionError as e:
            raise AssertionError(f"{op}: {e}") from e


def _gradient(A: LinearOperator, generator: torch.Generator) -> None:
    for name, f, adjoint, z, target in (("A", A.forward, A.adjoint, _draw_x(A, generator), _draw_y(A, generator)),
                                        ("A^H", A.adjoint, A.forward, _draw_y(A, generator), _draw_x(A, generator))):
        z.requires_grad_()
        (0.5 * (f(z) - target).abs().square().sum()).backward()
        found = z.grad
        _say(found is not None, f"no gradient flows through {name}")
        assert found is not None
        with torch.no_grad():
            _same(found, adjoint(f(z) - target), f"the gradient of ||{name} z - t||^2 / 2 and its closed form")


def _deterministic(A: LinearOperator, generator: torch.Generator) -> None:
    for name, f, z in _both(A, generator):
        _say(torch.equal(f(z), f(z.clone())), f"{name} gives two results for one argument")


def _json(A: LinearOperator, generator: torch.Generator) -> None:
    try:
        data = A.to_dict()
    except TypeError as e:
        # An operator made of functions has no JSON form, and must say which field is in the way.
        _say(type(A).__name__ in str(e) or "no JSON form" in str(e), f"to_dict() fails without naming the field: {e}")
        return
    again = LinearOperator.from_dict(json.loads(json.dumps(data)))
    _say(type(again) is type(A) and again.to_dict() == data, "from_dict(to_dict()) is another operator")
    x = _draw_x(A, generator)
    _say(torch.equal(again(x), A(x)), "from_dict(to_dict()) gives other results")


def _moves(A: LinearOperator, generator: torch.Generator) -> None:
    x = _draw_x(A, generator)
    _same(A.to(x.device)(x), A(x), "A.to(device) x and A x")


def _readable(A: LinearOperator, generator: torch.Generator) -> None:
    text = repr(A)
    _say(len(text) < 1000 and "\n" not in text, f"repr has {len(text)} characters or several lines")


_CHECKS: dict[str, Check] = {
    "spaces": _spaces,
    "adjoint": _adjoint,
    "linear": _linear,
    "batch is loop": _batch_is_loop,
    "empty batch": _empty_batch,
    "input unchanged": _input_unchanged,
    "strides": _strides,
    "bad input": _bad_input,
    "norm": _norm_bound,
    "dense": _dense,
    "gram": _gram,
    "double adjoint": _double_adjoint,
    "algebra": _algebra,
    "gradient": _gradient,
    "deterministic": _deterministic,
    "json": _json,
    "moves": _moves,
    "readable": _readable,
}


def _draw_x(A: LinearOperator, generator: torch.Generator, batch: tuple[int, ...] = ()) -> Tensor:
    return torch.randn((*batch, *A.in_shape), dtype=A.in_dtype, generator=generator).to(A.device)


def _draw_y(A: LinearOperator, generator: torch.Generator, batch: tuple[int, ...] = ()) -> Tensor:
    return torch.randn((*batch, *A.out_shape), dtype=A.out_dtype, generator=generator).to(A.device)


def _both(A: LinearOperator, generator: torch.Generator,
          batch: tuple[int, ...] = ()) -> list[tuple[str, Callable[[Tensor], Tensor], Tensor]]:
    return [("A", A.forward, _draw_x(A, generator, batch)), ("A^H", A.adjoint, _draw_y(A, generator, batch))]


def _has_matrix(A: LinearOperator) -> bool:
    small = math.prod(A.in_shape) * math.prod(A.out_shape) <= _DENSE_ENTRIES
    return small and (A.complex_linear or not A.in_dtype.is_complex)


def _sum(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    return x.sum(dim=dims) if dims else x


def _norm(x: Tensor, dims: tuple[int, ...] | None = None) -> Tensor:
    return torch.linalg.vector_norm(x, dim=dims) if dims != () else x.abs()


def _same(a: Tensor, b: Tensor, what: str) -> None:
    _say(a.shape == b.shape and a.dtype == b.dtype,
         f"{what} have {a.dtype} {tuple(a.shape)}, {b.dtype} {tuple(b.shape)}")
    error, scale = float(_norm(a - b)), float(_norm(a) + _norm(b))
    _say(error <= 200 * torch.finfo(a.dtype).eps * scale, f"{what} differ by {error:.3g}, norm {scale / 2:.3g}")


def _say(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)
