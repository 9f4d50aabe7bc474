"""The tolerance contract: what is returned as converged is certified, and the certificate can be checked outside."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparsepriors.operators import LinearOperator, Matrix
from sparsepriors.priors import L1, ElasticNet, NonNegative, Prior, SquaredL2
from sparsepriors.solvers import (
    Solution,
    admm,
    conjugate_gradient,
    csalsa,
    least_squares,
    primal_dual,
    proximal_gradient,
)

DTYPES = {"float64": torch.float64, "float32": torch.float32, "complex128": torch.complex128,
          "complex64": torch.complex64}
SOLVERS: dict[str, Callable[..., Solution]] = {
    "proximal_gradient": proximal_gradient,
    "ista": lambda A, y, prior, **k: proximal_gradient(A, y, prior, accelerated=False, **k),
    "backtracking": lambda A, y, prior, **k: proximal_gradient(A, y, prior, backtracking=True, **k),
    "admm": admm,
    "admm cg": lambda A, y, prior, **k: admm(A, y, prior, solve="cg", **k),
    "primal_dual": primal_dual,
    "least_squares": lambda A, y, prior, **k: least_squares(A, y, damping=0.1, **k),
    "conjugate_gradient": lambda A, y, prior, **k: conjugate_gradient(A.gram() + 0.1 * _identity(A), A.adjoint(y), **k),
    "csalsa": lambda A, y, prior, **k: csalsa(A, y, prior, eps=1.0, kappa=0.5, alpha=0.2, **k),
}


def _identity(A: LinearOperator) -> Matrix:
    return Matrix(torch.eye(A.in_shape[0], dtype=A.in_dtype))


def _priors(dtype: torch.dtype) -> list[Prior]:
    every = [L1(0.2), SquaredL2(0.3), ElasticNet(0.1, 0.1)]
    return every if dtype.is_complex else [*every, NonNegative()]


def _problem(m: int, n: int, dtype: torch.dtype, seed: int) -> tuple[Matrix, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    A = Matrix(torch.randn(m, n, dtype=dtype, generator=generator) / math.sqrt(m))
    return A, A(torch.randn(n, dtype=dtype, generator=generator)) + 0.05 * torch.randn(m, dtype=dtype,
                                                                                      generator=generator)


def _keeps_the_contract(name: str, dtype: torch.dtype, m: int, n: int, seed: int, exponent: float, which: int) -> None:
    A, y = _problem(m, n, dtype, seed)
    tol = max(10.0 ** exponent, 8 * torch.finfo(dtype).eps)
    solution = SOLVERS[name](A, y, _priors(dtype)[which % len(_priors(dtype))], tol=tol, max_iter=400)
    assert solution.converged == (solution.certificate <= tol)
    assert solution.converged or solution.iterations == 400
    assert solution.x.dtype == dtype
    if name in ("least_squares", "conjugate_gradient") and solution.converged:
        # The recurrence's residual may drift from the true one by rounding alone.
        gradient = A.adjoint(y - A(solution.x)) - 0.1 * solution.x
        true = torch.linalg.vector_norm(gradient) / torch.linalg.vector_norm(A.adjoint(y))
        assert float(true) <= 1.01 * tol + 200 * torch.finfo(dtype).eps


@given(name=st.sampled_from(sorted(SOLVERS)), dtype=st.sampled_from(sorted(DTYPES)), m=st.integers(1, 8),
       n=st.integers(1, 8), seed=st.integers(0, 10**6), exponent=st.floats(-14, -1), which=st.integers(0, 3))
@example(name="csalsa", dtype="float64", m=8, n=1, seed=0, exponent=-10.0, which=0)  # the ball is out of reach
def test_converged_means_certified(name: str, dtype: str, m: int, n: int, seed: int, exponent: float,
                                   which: int) -> None:
    _keeps_the_contract(name, DTYPES[dtype], m, n, seed, exponent, which)


@settings(max_examples=1000)
@given(seed=st.integers(0, 10**6), exponent=st.floats(-13, -1), index=st.integers(0, 10**6))
def test_a_thousand_drawn_problems(seed: int, exponent: float, index: int) -> None:
    names = ("proximal_gradient", "admm", "least_squares", "conjugate_gradient")
    _keeps_the_contract(names[index % 4], torch.float64, 6, 4, seed, exponent, index // 4)


@pytest.mark.parametrize("name", sorted(SOLVERS))
@given(seed=st.integers(0, 10**6), limit=st.integers(1, 3))
@settings(max_examples=20)
def test_what_the_iterations_do_not_reach_is_not_called_converged(name: str, seed: int, limit: int) -> None:
    A, y = _problem(8, 6, torch.float64, seed)
    solution = SOLVERS[name](A, y, L1(0.1), tol=1e-14, max_iter=limit)
    assert solution.iterations == limit
    assert not solution.converged
    assert solution.certificate > 1e-14
    assert bool(torch.isfinite(solution.x).all())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_sweep_of_eight_tolerances_per_decade(name: str) -> None:
    decades = 4 if name == "csalsa" else 10  # its iterates creep along the surface of the ball
    A, y = _problem(8, 6, torch.float64, 0)
    before, answers = 0, []
    for eighth in range(8, 8 * decades + 1):
        tol = 10.0 ** (-eighth / 8)
        solution = SOLVERS[name](A, y, L1(0.1), tol=tol, max_iter=20000)
        assert solution.converged
        assert solution.certificate <= tol
        assert solution.iterations >= before
        before = solution.iterations
        answers.append((tol, solution.x))
    final = answers[-1][1]
    for tol, x in answers:
        assert float((x - final).abs().max()) <= 1e3 * tol * max(1.0, float(final.abs().max()))


@pytest.mark.public_door
@pytest.mark.parametrize("name", sorted(SOLVERS))
@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_a_tolerance_below_rounding_is_refused(name: str, dtype: str) -> None:
    A, y = _problem(4, 3, DTYPES[dtype], 0)
    eps = torch.finfo(DTYPES[dtype]).eps
    with pytest.raises(ValueError, match=r"tol must be at least 8 eps = .* for torch"):
        SOLVERS[name](A, y, L1(0.1), tol=7 * eps)
    assert SOLVERS[name](A, y, L1(0.1), tol=8.1 * eps, max_iter=3).iterations <= 3
