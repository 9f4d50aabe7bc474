"""Conjugate gradients against dense algebra and SciPy's own."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.operators import Convolution, Diagonal, Matrix, gaussian_kernel
from sparsepriors.solvers import conjugate_gradient, least_squares
from sparsepriors.solvers._loop import Items
from sparsepriors.solvers.cg import cg_steps, solve_inexactly

DTYPES = (torch.float64, torch.complex128)


def _positive(n: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    m = torch.randn(n, n, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return m.mH @ m + 0.1 * torch.eye(n, dtype=dtype)


@given(n=st.integers(1, 12), seed=st.integers(0, 10**6), dtype=st.sampled_from(DTYPES), batch=st.integers(0, 3))
def test_solves_hermitian_systems(n: int, seed: int, dtype: torch.dtype, batch: int) -> None:
    m = _positive(n, dtype, seed)
    y = torch.randn(*((batch,) if batch else ()), n, dtype=dtype, generator=torch.Generator().manual_seed(seed + 1))
    solution = conjugate_gradient(Matrix(m), y, tol=1e-11)
    assert solution.converged
    torch.testing.assert_close(solution.x, torch.linalg.solve(m, y.unsqueeze(-1)).squeeze(-1), rtol=1e-6, atol=1e-8)


@given(m=st.integers(1, 10), n=st.integers(1, 10), seed=st.integers(0, 10**6), dtype=st.sampled_from(DTYPES))
def test_least_squares_of_least_norm(m: int, n: int, seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, y = torch.randn(m, n, dtype=dtype, generator=generator), torch.randn(m, dtype=dtype, generator=generator)
    solution = least_squares(Matrix(a), y, tol=1e-12, max_iter=5000)
    expected = torch.linalg.pinv(a) @ y
    residual = torch.linalg.vector_norm(a.mH @ (y - a @ solution.x)) / torch.linalg.vector_norm(a.mH @ y)
    assert solution.converged == (solution.certificate <= 1e-12)
    assert residual <= 1e-9
    condition = float(torch.linalg.cond(a))
    torch.testing.assert_close(solution.x, expected, rtol=0, atol=1e-10 * condition ** 2 * float(expected.abs().max()))


def test_iterates_are_scipys_cg() -> None:
    m = _positive(30, torch.float64, 0)
    y = torch.randn(30, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    theirs: list[np.ndarray] = []
    scipy.sparse.linalg.cg(m.numpy(), y.numpy(), rtol=1e-14, maxiter=8, callback=lambda x: theirs.append(x.copy()))
    ours: list[torch.Tensor] = []
    conjugate_gradient(Matrix(m), y, max_iter=8, tol=1e-14, callback=lambda s: ours.append(s.x.clone()))
    assert len(theirs) == len(ours) == 8
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_least_squares_is_scipys_lsqr(damping: float) -> None:
    generator = torch.Generator().manual_seed(2)
    a = torch.randn(40, 25, dtype=torch.float64, generator=generator)
    y = torch.randn(40, dtype=torch.float64, generator=generator)
    theirs = scipy.sparse.linalg.lsqr(a.numpy(), y.numpy(), damp=damping ** 0.5, atol=1e-14, btol=1e-14)[0]
    ours = least_squares(Matrix(a), y, damping=damping, tol=1e-12)
    np.testing.assert_allclose(ours.x.numpy(), theirs, rtol=1e-8, atol=1e-10)


def test_the_residual_falls_and_the_objective_never_rises() -> None:
    blur = Convolution(gaussian_kernel(1.2, dtype=torch.float64), (16, 16))
    y = torch.randn(16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    objective = least_squares(blur, y, damping=1e-3, tol=1e-10).trace["objective"]
    assert all(b <= a * (1 + 1e-12) for a, b in zip(objective, objective[1:], strict=False))


def test_n_steps_solve_n_distinct_eigenvalues() -> None:
    d = torch.tensor([1.0, 1.0, 4.0, 4.0, 9.0, 9.0], dtype=torch.float64)
    solution = conjugate_gradient(Diagonal(d), torch.arange(1.0, 7.0, dtype=torch.float64), tol=1e-12)
    assert solution.iterations == 3


def test_an_item_that_is_solved_never_moves_and_never_divides_by_zero() -> None:
    m = _positive(5, torch.complex128, 4)
    y = torch.zeros(3, 5, dtype=torch.complex128)
    y[1] = torch.randn(5, dtype=torch.complex128, generator=torch.Generator().manual_seed(5))
    x0 = torch.zeros_like(y)
    x0[2] = 1
    y[2] = m @ x0[2]
    solution = conjugate_gradient(Matrix(m), y, x0=x0, tol=1e-12)
    assert torch.equal(solution.x[0], x0[0])
    torch.testing.assert_close(solution.x[2], x0[2], rtol=1e-12, atol=1e-12)
    assert bool(torch.isfinite(torch.view_as_real(solution.x)).all())


def test_each_item_counts_its_own_iterations() -> None:
    d = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    y = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0]], dtype=torch.float64)
    solution = conjugate_gradient(Diagonal(d), y, tol=1e-12)
    assert solution.extras["iterations"].tolist() == [1, 4, 2]


def test_the_inner_solver_stops_at_its_limits() -> None:
    m = _positive(20, torch.float64, 6)
    b = torch.ones(20, dtype=torch.float64)
    items, applied = Items((), (20,)), 0

    def apply(x: torch.Tensor) -> torch.Tensor:
        nonlocal applied
        applied += 1
        return m @ x

    solve_inexactly(apply, b, torch.zeros_like(b), items, iterations=5, limit=1e-12)
    assert applied == 6  # one for the first residual
    applied = 0
    solve_inexactly(apply, b, torch.linalg.solve(m, b), items, iterations=5, limit=1e-3)
    assert applied == 2
    x = torch.zeros(20, dtype=torch.float64)
    assert torch.equal(solve_inexactly(apply, torch.zeros_like(b), x, items, iterations=5, limit=1e-3), x)


@pytest.mark.public_door
def test_refuses_what_is_not_a_hermitian_positive_system() -> None:
    y = torch.ones(3, dtype=torch.float64)
    with pytest.raises(ValueError, match="A must map a space to itself.*least_squares"):
        conjugate_gradient(Matrix(torch.ones(3, 2, dtype=torch.float64)), y)
    with pytest.raises(FloatingPointError, match="negative curvature"):
        conjugate_gradient(Diagonal(torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)), y)
    with pytest.raises(ValueError, match="damping must be finite and nonnegative"):
        least_squares(Diagonal(y), y, damping=-1.0)


def test_a_generator_of_steps_ends_when_nothing_moves() -> None:
    b = torch.tensor([2.0], dtype=torch.float64)
    assert len(list(cg_steps(lambda x: 2 * x, b, torch.zeros_like(b), Items((), (1,))))) == 1
