"""Linearity, adjointness and norms of every listed operator and of random compositions, on drawn tensors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsepriors import operators as ops
from sparsepriors.operators import LinearOperator
from sparsepriors.testing.instances import operators

SEEDS = st.integers(0, 10**6)
SWEEP = settings(max_examples=20)  # of each instance: more than a thousand examples of each property
EVERY = operators()
WIDE = {torch.float32: 3e-5, torch.float64: 1e-11, torch.complex64: 3e-5, torch.complex128: 1e-11}


def _draw(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def _size(x: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(x))


def _adjoint_of(A: LinearOperator, seed: int) -> None:
    x, y = _draw(A.in_shape, A.in_dtype, seed), _draw(A.out_shape, A.out_dtype, seed + 1)
    Ax, back = A(x), A.adjoint(y)
    left, right = (Ax.conj() * y).sum(), (x.conj() * back).sum()
    if not (A.in_dtype.is_complex and A.out_dtype.is_complex):  # of such spaces the product is that of real vectors
        left, right = left.real, right.real
    scale = _size(Ax) * _size(y) + _size(x) * _size(back)
    assert abs(complex(left) - complex(right)) <= max(WIDE[A.in_dtype], WIDE[A.out_dtype]) * (scale + 1e-30)


@pytest.mark.parametrize("A", EVERY, ids=lambda A: type(A).__name__)
@SWEEP
@given(seed=SEEDS)
def test_the_adjoint_is_the_adjoint(A: LinearOperator, seed: int) -> None:
    _adjoint_of(A, seed)


@pytest.mark.parametrize("A", EVERY, ids=lambda A: type(A).__name__)
@SWEEP
@given(seed=SEEDS, a=st.floats(-3, 3), b=st.floats(-3, 3))
def test_sums_and_multiples_pass_through(A: LinearOperator, seed: int, a: float, b: float) -> None:
    x, z = (_draw(A.in_shape, A.in_dtype, seed + i) for i in range(2))
    expected = a * A(x) + b * A(z)
    slack = max(WIDE[A.in_dtype], WIDE[A.out_dtype]) * (1 + abs(a) * _size(A(x)) + abs(b) * _size(A(z)))
    assert _size(A(a * x + b * z) - expected) <= slack


def _square(n: int, kind: str, seed: int) -> LinearOperator:
    dtype = torch.complex128
    if kind == "matrix":
        return ops.Matrix(_draw((n, n), dtype, seed))
    if kind == "diagonal":
        return ops.Diagonal(_draw((n,), dtype, seed))
    if kind == "fourier":
        return ops.FourierTransform((n,), dtype=dtype)
    if kind == "mask":
        return ops.Mask(_draw((n,), torch.float64, seed) > 0, dtype)
    return ops.Identity((n,), dtype)


@given(n=st.integers(1, 6), seed=SEEDS, data=st.data(),
       kinds=st.lists(st.sampled_from(("matrix", "diagonal", "fourier", "mask", "identity")), min_size=1, max_size=5))
def test_random_compositions_are_their_matrices(n: int, seed: int, data: st.DataObject, kinds: list[str]) -> None:
    A = _square(n, kinds[0], seed)
    dense = A.dense()
    for i, kind in enumerate(kinds[1:], 1):
        B = _square(n, kind, seed + i)
        match data.draw(st.sampled_from(("after", "plus", "adjoint", "times"))):
            case "after":
                A, dense = A @ B, dense @ B.dense()
            case "plus":
                A, dense = A + B, dense + B.dense()
            case "adjoint":
                A, dense = A.H @ B, dense.mH @ B.dense()
            case "times":
                A, dense = 0.5j * A, 0.5j * dense
    x = _draw((n,), torch.complex128, seed)
    assert _size(A(x) - dense @ x) <= 1e-10 * (1 + _size(dense) * _size(x))
    _adjoint_of(A, seed)


@given(m=st.integers(1, 7), n=st.integers(1, 7), seed=SEEDS, dtype=st.sampled_from((torch.float64, torch.complex128)))
def test_the_norm_bounds_every_image(m: int, n: int, seed: int, dtype: torch.dtype) -> None:
    A = ops.Matrix(_draw((m, n), dtype, seed))
    exact = float(torch.linalg.matrix_norm(A.dense(), 2))
    assert A.norm() == pytest.approx(exact, rel=1e-2)
    x = _draw((n,), dtype, seed + 1)
    assert _size(A(x)) <= exact * _size(x) * (1 + 1e-12)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("A", EVERY, ids=lambda A: type(A).__name__)
def test_functional_derivatives_are_the_operator_and_its_adjoint(A: LinearOperator) -> None:
    x, along, y = _draw(A.in_shape, A.in_dtype, 1), _draw(A.in_shape, A.in_dtype, 2), _draw(A.out_shape, A.out_dtype, 3)
    pushed = torch.func.jvp(A.forward, (x,), (along,))[1]
    torch.testing.assert_close(pushed, A(along))
    pulled_back = torch.func.vjp(A.forward, x)[1]
    torch.testing.assert_close(pulled_back(y)[0], A.adjoint(y))
