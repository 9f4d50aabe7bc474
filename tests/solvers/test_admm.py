"""ADMM: every way of solving its linear step, adaptive penalty, other losses, constraints, refusals."""

from __future__ import annotations

import math

import pytest
import torch

from sparsepriors.operators import (
    Convolution,
    Diagonal,
    FiniteDifference,
    FourierTransform,
    Identity,
    LinearOperator,
    Mask,
    Matrix,
    RealToComplex,
    Sampling,
    WaveletTransform,
    gaussian_kernel,
)
from sparsepriors.priors import L1, Box, GroupL2, Huber, PlugAndPlay, SquaredL2, Zero
from sparsepriors.solvers import admm, proximal_gradient
from sparsepriors.solvers._loop import Items
from sparsepriors.solvers._normal import normal_solver

F64, C128 = torch.float64, torch.complex128


def _draw(*shape: int, dtype: torch.dtype = F64, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def _mri(dtype: torch.dtype = C128) -> LinearOperator:
    mask = torch.rand(6, 8, generator=torch.Generator().manual_seed(1)) < 0.5
    F = FourierTransform((6, 8), dtype=C128)
    return Mask(mask, C128) @ F if dtype == C128 else Sampling(mask, C128) @ F @ RealToComplex((6, 8), F64)


BLUR = Convolution(gaussian_kernel(1.0, radius=2, dtype=F64), (6, 8))
SYSTEMS = {
    "diagonal": (Diagonal(_draw(6, 8)), Identity((6, 8), F64)),
    "diagonal of a mask": (Mask(_draw(6, 8) > 0, F64), Identity((6, 8), F64)),
    "fourier": (BLUR, FiniteDifference((6, 8), dtype=F64, boundary="periodic")),
    "fourier of a blur": (BLUR, Identity((6, 8), F64)),
    "fourier of samples": (_mri(), FiniteDifference((6, 8), dtype=C128, boundary="periodic")),
    "fourier of an orthonormal basis": (_mri(), WaveletTransform((6, 8), "haar", 1, dtype=C128)),
    "fourier of real samples": (_mri(F64), Identity((6, 8), F64)),
    "woodbury": (Matrix(_draw(5, 30)), Identity((30,), F64)),
    "woodbury of complex": (Matrix(_draw(5, 30, dtype=C128)), Identity((30,), C128)),
    "cholesky": (Matrix(_draw(30, 12)), Identity((12,), F64)),
    "cholesky of a blur": (BLUR, FiniteDifference((6, 8), dtype=F64)),
    "cholesky of complex": (Matrix(_draw(20, 12, dtype=C128)), Matrix(_draw(15, 12, dtype=C128, seed=1))),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_direct_way_solves_the_normal_equations(name: str) -> None:
    A, K = SYSTEMS[name]
    items = Items((2,), A.in_shape)
    found = normal_solver(A, K, 1.7, 0.3, items, "exact", 1, 1e-3)
    assert found.exact
    assert found.name == name.split()[0]
    b = _draw(2, *A.in_shape, dtype=A.in_dtype, seed=2)
    x = found.solve(b, torch.zeros_like(b))
    back = 1.7 * A.adjoint(A(x)) + 0.3 * K.adjoint(K(x))
    torch.testing.assert_close(back, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", SYSTEMS)
def test_indirect_ways_come_nearer(name: str) -> None:
    A, K = SYSTEMS[name]
    items = Items((2,), A.in_shape)
    b = _draw(2, *A.in_shape, dtype=A.in_dtype, seed=2)
    exact = normal_solver(A, K, 1.0, 0.5, items, "exact", 1, 1e-3).solve(b, b)
    for method, steps in (("cg", 1), ("linearised", 40)):
        solver = normal_solver(A, K, 1.0, 0.5, items, method, 200, 1e-14)
        x = torch.zeros_like(b)
        for _ in range(steps):
            x = solver.solve(b, x)
        limit = 1e-8 if method == "cg" else 0.999
        assert not solver.exact
        assert float(torch.linalg.vector_norm(x - exact) / torch.linalg.vector_norm(exact)) <= limit


def test_a_transform_along_some_axes_or_of_another_kind_is_not_taken_for_shift_invariant() -> None:
    mask = torch.rand(4, 6, generator=torch.Generator().manual_seed(3)) < 0.5
    partial = FourierTransform((4, 6), dims=1, dtype=C128)
    for A in (Mask(mask, C128) @ partial,
              FourierTransform((4, 6), dtype=C128, centred=False).H @ Mask(mask, C128) @ partial,
              Convolution(_draw(3, 3), (4, 6), "same")):
        found = normal_solver(A, Identity(A.in_shape, A.in_dtype), 1.0, 1.0, Items((), A.in_shape), "auto", 1, 1e-3)
        assert found.name in ("cholesky", "woodbury")


def test_a_singular_system_falls_back_to_conjugate_gradients() -> None:
    A = Matrix(torch.zeros(3, 4, dtype=F64))
    K = Matrix(torch.ones(1, 4, dtype=F64))
    assert normal_solver(A, K, 1.0, 1.0, Items((), (4,)), "auto", 5, 1e-9).name == "cg"
    periodic = FiniteDifference((4, 4), dtype=F64, boundary="periodic")
    empty = Diagonal(torch.zeros(4, 4, dtype=F64))
    assert normal_solver(None, periodic, 1.0, 1.0, Items((), (4, 4)), "auto", 5, 1e-9).name == "cg"
    assert normal_solver(None, empty, 1.0, 1.0, Items((), (4, 4)), "auto", 5, 1e-9).name == "cg"
    with pytest.raises(ValueError, match="solve='exact' has no direct way"):
        normal_solver(A, K, 1.0, 1.0, Items((), (4,)), "exact", 5, 1e-9)


@pytest.mark.parametrize("options", [{}, {"rho": 0.5}, {"relax": 1.7}, {"relax": 0.6}, {"solve": "cg"},
                                     {"solve": "linearised"}, {"rho": 2.0, "relax": 1.5}], ids=str)
@pytest.mark.parametrize("dtype", [F64, C128])
def test_total_variation_reaches_one_answer_in_every_mode(options: dict[str, object], dtype: torch.dtype) -> None:
    A = Convolution(gaussian_kernel(0.8, radius=1, dtype=F64), (4, 5), dtype=dtype)
    K = FiniteDifference((4, 5), dtype=dtype)
    y, prior = _draw(2, 4, 5, dtype=dtype, seed=4), GroupL2(0.2, axis=-3, dims=3)
    reference = admm(A, y, prior, analysis=K, rho=1.0, max_iter=5000, tol=1e-10)
    solution = admm(A, y, prior, analysis=K, max_iter=5000, tol=1e-7, **options)  # pyright: ignore[reportArgumentType]
    assert reference.converged
    assert solution.converged
    torch.testing.assert_close(solution.x, reference.x, rtol=1e-5, atol=1e-5)


def test_the_certificate_is_the_residual_of_the_optimality_conditions() -> None:
    A, K = Matrix(_draw(15, 10)), Matrix(_draw(12, 10, seed=1))
    y, prior = _draw(15, seed=2), L1(2.0)
    for solve in ("exact", "cg", "linearised"):
        s = admm(A, y, prior, analysis=K, rho=3.0, relax=1.3, solve=solve, max_iter=25, tol=1e-12)
        x, z, u = s.extras["x"], s.extras["z"], s.extras["u"]
        primal = torch.linalg.vector_norm(K(x) - z) / max(map(torch.linalg.vector_norm, (K(x), z, u)))
        multiplier = 3.0 * K.adjoint(u)
        dual = torch.linalg.vector_norm(A.adjoint(A(x) - y) + multiplier) / max(
            torch.linalg.vector_norm(multiplier), torch.linalg.vector_norm(A.adjoint(y)))
        assert s.trace["primal"][-1] == pytest.approx(float(primal), rel=1e-6)
        assert s.trace["dual"][-1] == pytest.approx(float(dual), rel=1e-4, abs=1e-11)
        # and rho u is a subgradient of the prior at z
        assert float((3.0 * u).abs().max()) <= 2.0 * (1 + 1e-9)
        on = z != 0
        torch.testing.assert_close(3.0 * u[on], 2.0 * torch.sgn(z[on]), rtol=1e-8, atol=1e-8)


def test_balancing_repairs_a_bad_scale() -> None:
    A, y = Matrix(1e4 * _draw(30, 20)), 1e-3 * _draw(30)
    prior = L1(0.3 * float(A.adjoint(y).abs().max()))
    balanced = admm(A, y, prior, max_iter=5000, tol=1e-8)
    stubborn = admm(A, y, prior, rho=1.0, max_iter=201, tol=1e-8)
    assert balanced.converged
    assert balanced.iterations < 200
    assert not stubborn.converged
    assert len(set(stubborn.trace["rho"])) == 1


def test_other_losses_enter_through_their_prox() -> None:
    A, y = Matrix(_draw(30, 6)), _draw(30, seed=3)
    smooth = proximal_gradient(A, y, L1(0.5), loss=Huber(1.0, 0.4), max_iter=50000, tol=1e-12)
    split = admm(A, y, L1(0.5), loss=Huber(1.0, 0.4), max_iter=20000, tol=1e-10)
    torch.testing.assert_close(split.x, smooth.x, rtol=1e-6, atol=1e-7)
    truth = _draw(6, seed=5)
    y = A(truth)
    y[::4] += 50
    absolute = admm(A, y, Zero(), loss=L1(1.0), max_iter=20000, tol=1e-9)
    torch.testing.assert_close(absolute.x, truth, rtol=1e-6, atol=1e-6)


def test_a_multiple_of_the_squared_norm_stays_in_the_linear_step() -> None:
    A, y = Matrix(_draw(20, 8)), _draw(20, seed=3)
    answers = [admm(A, y, L1(1.0), loss=loss, rho=10.0, max_iter=5000, tol=1e-11)
               for loss in (SquaredL2(6.0), 3.0 * SquaredL2(2.0), SquaredL2(torch.full((20,), 6.0, dtype=F64)))]
    torch.testing.assert_close(answers[0].x, answers[1].x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(answers[0].x, answers[2].x, rtol=1e-6, atol=1e-7)
    assert answers[0].iterations == answers[1].iterations != answers[2].iterations
    nothing = admm(A, y, L1(1.0), loss=SquaredL2(0.0), rho=1.0, x0=torch.ones(8, dtype=F64), tol=1e-9)
    assert not nothing.x.any()


def test_without_analysis_the_answer_is_exactly_feasible_or_sparse() -> None:
    A, y = Matrix(_draw(10, 30)), _draw(10, seed=1)
    boxed = admm(A, y, Box(-0.1, 0.1), rho=1.0, max_iter=30)
    assert float(boxed.x.abs().max()) <= 0.1
    sparse = admm(A, y, L1(2.0), max_iter=30)
    assert 0 < int((sparse.x == 0).sum()) < 30
    assert torch.equal(sparse.x, sparse.extras["z"])


@pytest.mark.public_door
def test_refusals_name_what_is_missing() -> None:
    A, y = Matrix(_draw(4, 3)), _draw(4)
    denoiser = PlugAndPlay(lambda x, std: 0.9 * x)
    with pytest.raises(ValueError, match="rho must be given for PlugAndPlay"):
        admm(A, y, denoiser)
    assert admm(A, y, denoiser, rho=1.0).converged
    with pytest.raises(TypeError, match="analysis must be a LinearOperator"):
        admm(A, y, L1(), analysis=torch.eye(3))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"analysis must act on unknowns of shape \(3,\), got \(4,\)"):
        admm(A, y, L1(), analysis=Identity((4,), F64))
    with pytest.raises(TypeError, match="analysis must act on torch.float64"):
        admm(A, y, L1(), analysis=Identity((3,)))
    with pytest.raises(ValueError, match="relax must lie strictly between 0 and 2"):
        admm(A, y, L1(), relax=2.0)
    with pytest.raises(ValueError, match="rho must be finite and positive"):
        admm(A, y, L1(), rho=-1.0)
    with pytest.raises(ValueError, match="solve must be one of.*did you mean 'exact'"):
        admm(A, y, L1(), solve="exakt")
    with pytest.raises(ValueError, match="cg_iters must be at least 1"):
        admm(A, y, L1(), cg_iters=0)
    with pytest.raises(ValueError, match="cg_tol must be finite and positive"):
        admm(A, y, L1(), cg_tol=math.inf)
    with pytest.raises(TypeError, match="prior must be a Prior"):
        admm(A, y, 0.1)  # pyright: ignore[reportArgumentType]
