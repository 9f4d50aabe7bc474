"""Matching pursuit recovers what the theory says it does, agrees with scikit-learn, and is honest where it cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import orthogonal_mp

from sparsepriors.operators import Diagonal, FourierTransform, LinearOperator, Mask, Matrix
from sparsepriors.solvers import cosamp, orthogonal_matching_pursuit
from sparsepriors.solvers._loop import Items
from sparsepriors.solvers.operator_pursuit import _Chosen

F64, C128 = torch.float64, torch.complex128


def drawn(m: int, n: int, k: int, batch: tuple[int, ...] = (), dtype: torch.dtype = F64, seed: int = 0):
    """Unit columns, k nonzero entries of modulus at least a half, no noise."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(m, n, dtype=dtype, generator=generator)
    matrix = matrix / torch.linalg.vector_norm(matrix, dim=0)
    values = torch.randn(*batch, n, dtype=dtype, generator=generator)
    values = values + 0.5 * torch.sgn(values)
    x = torch.zeros_like(values)
    at = torch.rand(*batch, n, generator=generator).topk(k, dim=-1).indices
    return Matrix(matrix), x.scatter(-1, at, values.gather(-1, at))


@pytest.mark.parametrize("dtype", [F64, C128])
@pytest.mark.parametrize("solver", [orthogonal_matching_pursuit, cosamp])
def test_exact_recovery_where_columns_are_nearly_orthogonal(solver, dtype):
    A, x = drawn(120, 200, 8, (5,), dtype)
    found = solver(A, A(x), 8, tol=1e-12)
    assert found.converged
    torch.testing.assert_close(found.x, x, atol=1e-10, rtol=0)
    assert int(found.extras["iterations"].max()) <= 8


@given(seed=st.integers(0, 1000), k=st.integers(1, 12))
def test_the_choices_are_scikit_learn_s(seed, k):
    A, _ = drawn(15, 40, 1, seed=seed)
    y = torch.randn(15, dtype=F64, generator=torch.Generator().manual_seed(seed + 1))
    want = orthogonal_mp(A.matrix.numpy(), y.numpy(), n_nonzero_coefs=k)
    torch.testing.assert_close(orthogonal_matching_pursuit(A, y, k).x, torch.from_numpy(want), atol=1e-8, rtol=1e-8)


@given(seed=st.integers(0, 1000))
def test_the_residual_falls_and_is_orthogonal_to_what_was_chosen(seed):
    A, x = drawn(12, 30, 12, seed=seed)
    y, left = A(x), []

    def watch(state):
        r = y - A(state.x)
        left.append(float(torch.linalg.vector_norm(r)))
        assert float((A.adjoint(r) * (state.x != 0)).abs().max()) <= 1e-10

    found = orthogonal_matching_pursuit(A, y, 6, callback=watch)
    assert all(b < a for a, b in zip(left, left[1:], strict=False))
    assert int(found.x.count_nonzero()) == 6
    assert not found.converged


def test_it_stops_at_the_residual_that_is_asked_for():
    A, x = drawn(60, 120, 10)
    y = A(x)
    found = orthogonal_matching_pursuit(A, y, 60, tol=0.3)
    assert found.converged
    assert found.iterations < 10
    assert float(torch.linalg.vector_norm(y - A(found.x))) <= 0.3 * float(torch.linalg.vector_norm(y))


def test_dependent_columns_do_not_divide_by_zero():
    A, x = drawn(20, 30, 3)
    twice = Matrix(torch.cat([A.matrix, A.matrix, 0 * A.matrix], dim=1))
    y = A(x) + 0.1 * torch.randn(20, dtype=F64, generator=torch.Generator().manual_seed(1))
    found = orthogonal_matching_pursuit(twice, y, 25)
    assert bool(torch.isfinite(found.x).all())
    assert found.converged   # twenty independent columns reach every y of twenty entries


def test_columns_that_a_gram_matrix_would_confuse():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(50, 1, dtype=F64, generator=generator)
    near = a + 1e-9 * torch.randn(50, 4, dtype=F64, generator=generator)
    A, y = Matrix(near), near[:, 0] - near[:, 3]
    assert orthogonal_matching_pursuit(A, y, 4, tol=1e-5).converged
    chosen = _Chosen(A, y, Items((), (4,)), Items((), (50,)), 4)
    for column in range(4):
        chosen.append(torch.tensor([column]), torch.tensor([True]))
    torch.testing.assert_close(chosen._q[0] @ chosen._q[0].mT, torch.eye(4, dtype=F64), atol=1e-14, rtol=0)


def test_any_operator_will_do():
    mask = torch.rand(16, 16, generator=torch.Generator().manual_seed(0)) < 0.5
    A: LinearOperator = Mask(mask, C128) @ FourierTransform((16, 16), dtype=C128)
    x = torch.zeros(2, 16, 16, dtype=C128)
    x[0, 3, 4], x[0, 9, 1], x[1, 0, 15] = 2.0, -1j, 1.5
    for solver in (orthogonal_matching_pursuit, cosamp):
        found = solver(A, A(x), 2, tol=1e-10)
        torch.testing.assert_close(found.x, x, atol=1e-8, rtol=0)


def test_scaled_columns_are_as_good_as_equal_ones_once_the_operator_is_scaled_back():
    A, x = drawn(60, 100, 5)
    scale = torch.logspace(-3, 3, 100, dtype=F64)
    skewed = Matrix(A.matrix * scale)
    found = orthogonal_matching_pursuit(skewed @ Diagonal(1 / scale), skewed(x / scale), 5, tol=1e-10)
    torch.testing.assert_close(found.x, x, atol=1e-8, rtol=0)


def test_more_columns_than_there_are_is_all_of_them():
    A, x = drawn(10, 6, 6)
    assert orthogonal_matching_pursuit(A, A(x), 100, tol=1e-10).converged
    torch.testing.assert_close(cosamp(A, A(x), 100, tol=1e-10).x, x, atol=1e-8, rtol=0)


def test_cosamp_survives_noise_and_ends():
    A, x = drawn(120, 200, 6)
    y = A(x) + 0.01 * torch.randn(120, dtype=F64, generator=torch.Generator().manual_seed(2))
    found = cosamp(A, y, 6)
    assert not found.converged
    assert found.iterations < 20
    assert torch.equal(found.x != 0, x != 0)
    assert all(b <= a for a, b in zip(found.trace["certificate"], found.trace["certificate"][1:], strict=False))


def test_an_empty_unknown():
    A = Matrix(torch.zeros(4, 0, dtype=F64))
    assert orthogonal_matching_pursuit(A, torch.ones(4, dtype=F64), 2).x.shape == (0,)


@pytest.mark.public_door
@pytest.mark.parametrize("solver", [orthogonal_matching_pursuit, cosamp])
@pytest.mark.parametrize(("k", "error", "message"), [
    (0, ValueError, "k must be at least 1, got 0"), (1.5, TypeError, "k must be an integer, got float")])
def test_k_is_a_count(solver, k, error, message):
    A, x = drawn(10, 6, 2)
    with pytest.raises(error, match=message):
        solver(A, A(x), k)


@pytest.mark.public_door
def test_inner_is_a_count():
    A, x = drawn(10, 6, 2)
    with pytest.raises(ValueError, match="inner must be at least 1"):
        cosamp(A, A(x), 2, inner=0)


def test_batches_of_signals_share_nothing():
    A, x = drawn(40, 80, 3, (2, 3), seed=4)
    y = A(x)
    together = orthogonal_matching_pursuit(A, y, 3, tol=1e-10)
    assert together.x.shape == x.shape
    alone = np.stack([orthogonal_mp(A.matrix.numpy(), y[i, j].numpy(), n_nonzero_coefs=3)
                      for i in range(2) for j in range(3)]).reshape(x.shape)
    torch.testing.assert_close(together.x, torch.from_numpy(alone), atol=1e-8, rtol=0)
