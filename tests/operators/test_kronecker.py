"""Kronecker products against NumPy."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.operators import FiniteDifference, FourierTransform, Identity, Kronecker, Matrix, RealToComplex
from sparsepriors.testing import dot_test


@given(sizes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4),
       dtype=st.sampled_from((torch.float64, torch.complex128)), seed=st.integers(0, 99))
def test_equals_numpy_kron(sizes: list[tuple[int, int]], dtype: torch.dtype, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    factors = tuple(torch.randn(m, n, dtype=dtype, generator=g) for m, n in sizes)
    op, matrix = Kronecker(factors), reduce(np.kron, (f.numpy() for f in factors))
    np.testing.assert_allclose(op.dense().numpy(), matrix, atol=1e-12)
    np.testing.assert_allclose(op.gram().dense().numpy(), matrix.conj().T @ matrix, atol=1e-9)
    assert op.norm() == pytest.approx(np.linalg.norm(matrix, 2))
    dot_test(op, g, (3,))


def test_factors_may_be_operators_on_several_axes(generator: torch.Generator) -> None:
    matrix = torch.randn(2, 3, dtype=torch.float64, generator=generator)
    gradient = FiniteDifference((4, 5), dtype=torch.float64)
    op = Kronecker((matrix, gradient))
    assert (op.in_shape, op.out_shape) == ((3, 4, 5), (2, 2, 4, 5))
    np.testing.assert_allclose(op.dense().numpy(), np.kron(matrix.numpy(), gradient.dense().numpy()), atol=1e-12)


def test_a_separable_transform_is_the_kronecker_product_of_its_axes(generator: torch.Generator) -> None:
    x = torch.randn(2, 4, 5, dtype=torch.complex128, generator=generator)
    lines = Kronecker((FourierTransform((4,), dtype=torch.complex128), FourierTransform((5,), dtype=torch.complex128)))
    torch.testing.assert_close(lines(x), FourierTransform((4, 5), dtype=torch.complex128)(x))
    assert lines.unitary


@pytest.mark.public_door
def test_bad_arguments() -> None:
    with pytest.raises(TypeError, match="non-empty tuple"):
        Kronecker(())
    with pytest.raises(TypeError, match="share one dtype"):
        Kronecker((Matrix(torch.ones(2, 2)), Identity((2,), torch.float64)))
    with pytest.raises(TypeError, match="share one dtype"):
        Kronecker((RealToComplex((2,)),))
    with pytest.raises(TypeError, match=r"factors\[1\] must be a LinearOperator"):
        Kronecker((torch.ones(2, 2), "x"))  # pyright: ignore[reportArgumentType]
