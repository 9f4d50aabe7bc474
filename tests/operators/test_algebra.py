"""Composition, sums, multiples and stacks: what they compute, what they simplify, what they refuse."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.operators import (
    Adjoint,
    BlockDiagonal,
    Composed,
    Convolution,
    Diagonal,
    FiniteDifference,
    FourierTransform,
    FunctionOperator,
    Identity,
    LinearOperator,
    Mask,
    Matrix,
    RealToComplex,
    Reshape,
    Sampling,
    ScaledOperator,
    Space,
    Stack,
    Sum,
)
from sparsepriors.testing import dot_test


def _matrix(m: int, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Matrix:
    return Matrix(torch.randn(m, n, generator=generator, dtype=dtype))


@given(sizes=st.lists(st.integers(0, 5), min_size=2, max_size=5), factor=st.sampled_from((-2.5, 0.0, 1e-6, 3)),
       seed=st.integers(0, 99),
       dtype=st.sampled_from((torch.float32, torch.float64, torch.complex64, torch.complex128)))
def test_products_and_sums_are_those_of_the_matrices(sizes: list[int], factor: float, seed: int,
                                                     dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(seed)
    chain = [_matrix(m, n, g, dtype) for m, n in pairwise(sizes)]
    product, dense = chain[0], chain[0].matrix
    for op in chain[1:]:
        product, dense = product @ op, dense @ op.matrix
    other = _matrix(sizes[0], sizes[-1], g, dtype)
    made = factor * (product - other)
    torch.testing.assert_close(made.dense(), factor * (dense - other.matrix))
    torch.testing.assert_close(made.H.dense(), (factor * (dense - other.matrix)).mH.resolve_conj())
    torch.testing.assert_close(made.gram().dense(), made.dense().mH @ made.dense(), rtol=1e-4, atol=1e-4)
    dot_test(made, g, (2,))


def test_associative_products_and_sums_are_flat(generator: torch.Generator) -> None:
    a, b, c = (_matrix(3, 3, generator) for _ in range(3))
    product = a @ (b @ c)
    assert isinstance(product, Composed)
    assert product.operators == (a, b, c) == Composed(((a @ b) @ c).operators).operators  # pyright: ignore[reportAttributeAccessIssue]
    total = a + (b + c)
    assert isinstance(total, Sum)
    assert total.operators == (a, b, c)
    nested = 2 * (3 * a)
    assert isinstance(nested, ScaledOperator)
    assert (nested.operator, nested.factor) == (a, 6.0)


def test_identities_vanish_from_products_and_adjoints_of_adjoints_too(generator: torch.Generator) -> None:
    a = _matrix(3, 4, generator)
    assert Identity((3,), torch.float64) @ a is a
    assert a @ Identity((4,), torch.float64) is a
    assert a.H.H is a
    assert isinstance(a.H, Adjoint)


def test_gram_of_masked_fourier_has_one_mask_between_two_transforms() -> None:
    mask = torch.tensor([[True, False], [False, True]])
    fourier = FourierTransform((2, 2))
    gram = (Mask(mask, torch.complex64) @ fourier).gram()
    assert isinstance(gram, Composed)
    assert [type(op).__name__ for op in gram.operators] == ["Adjoint", "Mask", "FourierTransform"]
    assert isinstance((fourier @ RealToComplex((2, 2))).gram(), Identity)


@pytest.mark.parametrize(("operator", "expected"), [
    (FourierTransform((5, 3)), 1.0),
    (-3.0 * FourierTransform((5, 3)), 3.0),
    (Sampling(torch.eye(3) > 0, torch.complex64) @ (2j * FourierTransform((3, 3))), 2.0),
    (Diagonal(torch.tensor([1.0, -7.0, 2.0])), 7.0),
    (Mask(torch.zeros(3, dtype=torch.bool)), 0.0),
    (Diagonal(torch.tensor([1.0, 3.0])) @ Identity((2,)), 3.0),
    (Matrix(torch.zeros(0, 3)), 0.0),
    (BlockDiagonal((Identity((2,)), 5 * Identity((3,)))), 5.0),
    (FiniteDifference((2,), dtype=torch.float64), math.sqrt(2)),
])
def test_known_norms_are_exact(operator: LinearOperator, expected: float) -> None:
    assert operator.norm() == pytest.approx(expected, rel=1e-6)
    assert operator._known_norm() is not None or isinstance(operator, Composed)


@given(shape=st.lists(st.integers(1, 6), min_size=1, max_size=3), boundary=st.sampled_from(("neumann", "periodic")))
def test_closed_form_norm_of_differences_is_the_largest_singular_value(shape: list[int], boundary: str) -> None:
    op = FiniteDifference(tuple(shape), dtype=torch.float64, boundary=boundary)
    assert op.norm() == pytest.approx(float(torch.linalg.matrix_norm(op.dense(), ord=2)), rel=1e-12, abs=1e-12)


@given(m=st.integers(1, 8), n=st.integers(1, 8), seed=st.integers(0, 50),
       tol=st.sampled_from((1e-1, 1e-2, 1e-3)))
def test_norm_iteration_meets_its_tolerance_from_above(m: int, n: int, seed: int, tol: float) -> None:
    g = torch.Generator().manual_seed(seed)
    a = _matrix(m, n, g)
    exact = float(torch.linalg.matrix_norm(a.matrix, ord=2))
    found = a._lanczos(tol, 100_000, None)
    assert exact * (1 - 1e-9) <= found * (1 + tol)
    assert found <= exact * (1 + 2 * tol)
    assert found == a._lanczos(tol, 100_000, None)


def test_norm_iteration_that_cannot_reach_its_tolerance_says_how_far_it_came(generator: torch.Generator) -> None:
    op = _matrix(30, 30, generator) @ _matrix(30, 30, generator)
    with pytest.raises(RuntimeError, match="after 2 iterations, not to tol"):
        op.norm(tol=1e-12, max_iter=2)


def test_norm_takes_a_generator_and_is_the_same_for_all(generator: torch.Generator) -> None:
    op = _matrix(6, 5, generator) @ _matrix(5, 7, generator)
    assert op.norm(generator=generator) == pytest.approx(op.norm(), rel=3e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.float64])
@pytest.mark.parametrize("scale", [1e-18, 1e-12, 1.0, 1e12, 1e18])
def test_norm_iteration_does_not_lose_operators_of_extreme_scale(scale: float, dtype: torch.dtype,
                                                                 generator: torch.Generator) -> None:
    u, v = (torch.randn(n, 1, dtype=dtype, generator=generator) for n in (30, 50))
    op = Matrix(scale * u) @ Matrix(v.mH)
    assert op._known_norm() is None
    exact = scale * float(torch.linalg.vector_norm(u) * torch.linalg.vector_norm(v))
    assert op.norm() == pytest.approx(exact, rel=2e-3, abs=0)


def test_norm_of_zero_and_of_empty_operators() -> None:
    assert Sum((Identity((3,)), -1.0 * Identity((3,)))).norm() == 0
    assert Composed((Matrix(torch.zeros(2, 0)), Matrix(torch.zeros(0, 3)))).norm() == 0


def test_stack_and_block_diagonal_are_numpy_blocks(generator: torch.Generator) -> None:
    a, b = _matrix(2, 3, generator), _matrix(4, 3, generator)
    torch.testing.assert_close(Stack((a, b)).dense(), torch.cat((a.matrix, b.matrix)))
    torch.testing.assert_close(BlockDiagonal((a, b), None).dense(), torch.block_diag(a.matrix, b.matrix))
    torch.testing.assert_close(BlockDiagonal((a, b), -1).dense(), torch.block_diag(a.matrix, b.matrix))
    gradient, identity = FiniteDifference((3, 4), dtype=torch.float64), Identity((3, 4), torch.float64)
    x = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    flat = Stack((gradient, identity), axis=None)(x)
    torch.testing.assert_close(flat, torch.cat((gradient(x).reshape(2, -1), x.reshape(2, -1)), dim=1))


def test_dense_refuses_what_is_too_large_or_has_no_complex_matrix() -> None:
    with pytest.raises(ValueError, match="16384 x 16384 entries"):
        Identity((128, 128)).dense()
    with pytest.raises(TypeError, match="reals only"):
        RealToComplex((3,)).H.dense()


def test_real_embedding_has_the_real_inner_product(generator: torch.Generator) -> None:
    op = FourierTransform((8,), dtype=torch.complex128) @ RealToComplex((8,), torch.float64)
    y = torch.randn(8, dtype=torch.complex128, generator=generator)
    assert op.adjoint(y).dtype == torch.float64
    torch.testing.assert_close(op.dense(), FourierTransform((8,), dtype=torch.complex128).dense())


@pytest.mark.public_door
def test_what_does_not_compose_is_named_on_both_sides(generator: torch.Generator) -> None:
    a, b = _matrix(3, 4, generator), _matrix(3, 4, generator)
    with pytest.raises(ValueError, match=r"cannot compose Matrix\(4 -> 3, float64\) with Matrix\(4 -> 3, float64\)"):
        _ = a @ b
    with pytest.raises(TypeError, match=r"float64.* with .*complex64.*expects torch.float64"):
        _ = a @ Identity((4,), torch.complex64)
    with pytest.raises(ValueError, match="cannot add"):
        _ = a + b.H
    with pytest.raises(TypeError, match=r"cannot add .* dtypes differ"):
        _ = a + Matrix(torch.zeros(3, 4))
    with pytest.raises(TypeError, match="factor must be real"):
        _ = 2j * a
    with pytest.raises(ValueError, match="factor must be finite"):
        _ = math.nan * a
    with pytest.raises(TypeError, match="factor must be a number"):
        ScaledOperator(a, "2")  # pyright: ignore[reportArgumentType]
    for wrong in (lambda: a + 1, lambda: a - 1, lambda: a @ 3, lambda: a * "x", lambda: a / "x"):  # pyright: ignore[reportOperatorIssue]
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(ValueError, match=r"new_shape must hold as many entries"):
        Reshape((2, 3), (4,))
    with pytest.raises(ValueError, match="do not join along axis"):
        Stack((FiniteDifference((3, 4)), Identity((3, 4))))
    with pytest.raises(ValueError, match="inputs have other shapes"):
        Stack((Identity((3,)), Identity((4,))))
    for made in (Stack, BlockDiagonal):
        with pytest.raises(TypeError, match="dtypes differ"):
            made((Identity((3,)), Identity((3,), torch.float64)))
        with pytest.raises(TypeError, match="non-empty tuple"):
            made(())
    with pytest.raises(TypeError, match=r"operators\[1\] must be a LinearOperator"):
        Sum((a, torch.eye(3)))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="operator must be a LinearOperator"):
        Adjoint(torch.eye(3))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"float32 or torch.float64"):
        RealToComplex((3,), torch.complex64)


@pytest.mark.public_door
@pytest.mark.parametrize("bad", [(-1,), (2.0,), "33", (True,)])
def test_shapes_must_be_tuples_of_integers(bad: object) -> None:
    with pytest.raises((TypeError, ValueError), match="shape"):
        Identity(bad)  # pyright: ignore[reportArgumentType]


@pytest.mark.public_door
def test_dtypes_must_be_inexact() -> None:
    with pytest.raises(TypeError, match="dtype must be a floating or complex"):
        Identity((3,), torch.int64)
    with pytest.raises(TypeError, match=r"mask must be a boolean tensor, got torch.float32"):
        Mask(torch.ones(3))
    with pytest.raises(ValueError, match="two axes"):
        Matrix(torch.ones(3))
    with pytest.raises(TypeError, match="complex counterpart"):
        Diagonal(torch.ones(3), torch.float64)


def test_operators_know_their_device_and_refuse_another(generator: torch.Generator) -> None:
    a = _matrix(3, 4, generator) @ Diagonal(torch.ones(4, dtype=torch.float64))
    assert a.device == torch.device("cpu")
    assert FourierTransform((3,)).device is None
    moved = Stack((a, a)).to("meta")
    assert moved.device == torch.device("meta")
    with pytest.raises(ValueError, match=r"lives on cpu, .* on meta"):
        moved(torch.zeros(4, dtype=torch.float64))


def test_json_of_a_function_names_the_field() -> None:
    op = FunctionOperator(torch.clone, torch.clone, ((3,), (3,)), (torch.float32, torch.float32))
    with pytest.raises(TypeError, match=r"FunctionOperator.function holds a .*no JSON form"):
        op.to_dict()


def test_json_of_unknown_operators_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown LinearOperator 'Nothing'"):
        LinearOperator.from_dict({"kind": "Nothing"})


def test_repr_reads_as_a_formula() -> None:
    op = Mask(torch.ones(2, 3, dtype=torch.bool), torch.complex64) @ FourierTransform((2, 3)) @ RealToComplex((2, 3))
    assert repr(0.5 * op) == ("0.5 * (Mask(2x3 -> 2x3, complex64) @ FourierTransform(2x3 -> 2x3, complex64) @ "
                              "RealToComplex(2x3 float32 -> 2x3 complex64))")
    assert repr(Matrix(torch.ones(2, 3)).H) == "Matrix(3 -> 2, float32).H"
    assert repr(Convolution(torch.ones(3), (5,)) + Identity((5,))) == \
        "Convolution(5 -> 5, float32) + Identity(5 -> 5, float32)"


def test_an_operator_of_ones_own_must_know_how_to_move() -> None:
    class Plain(LinearOperator):
        @property
        def domain(self) -> Space:
            return Space((3,), torch.float32)

        def _forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

        def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
            return y

    with pytest.raises(TypeError, match=r"Plain is not a dataclass; it must define its own to\(device\)"):
        Plain().to("cpu")
