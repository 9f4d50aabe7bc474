"""Plug and play: the noise level that the denoiser meets, schedules, and equality with the solvers underneath."""

from __future__ import annotations

import math

import pytest
import torch

from sparsepriors.operators import Convolution, Identity, Matrix, gaussian_kernel
from sparsepriors.priors import L1, TV, PlugAndPlay
from sparsepriors.solvers import hqs, noise_schedule, pnp_admm, pnp_proximal_gradient, proximal_gradient

F64 = torch.float64


def _draw(*shape: int, dtype: torch.dtype = F64, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


class _Recorder:
    """A denoiser that shrinks, and remembers the noise levels it was told."""

    def __init__(self) -> None:
        self.levels: list[float] = []

    def __call__(self, x: torch.Tensor, std: float | torch.Tensor) -> torch.Tensor:
        self.levels.append(float(torch.as_tensor(std).max()))
        return 0.8 * x


@pytest.mark.parametrize("options", [{}, {"step": 0.01}, {"accelerated": True}])
def test_the_gradient_method_shows_one_noise_level_whatever_the_step(options: dict[str, float]) -> None:
    recorder = _Recorder()
    A, y = Matrix(_draw(6, 5)), _draw(6, seed=1)
    solution = pnp_proximal_gradient(A, y, PlugAndPlay(recorder), std=0.15, max_iter=20, tol=1e-12, **options)
    assert recorder.levels == pytest.approx([0.15] * solution.iterations)


@pytest.mark.parametrize("rho", [0.1, 1.0, 7.0])
def test_admm_shows_one_noise_level_whatever_the_penalty(rho: float) -> None:
    recorder = _Recorder()
    A, y = Matrix(_draw(6, 5)), _draw(6, seed=1)
    solution = pnp_admm(A, y, PlugAndPlay(recorder), std=0.15, rho=rho, max_iter=20, tol=1e-12)
    assert recorder.levels == pytest.approx([0.15] * solution.iterations)


def test_a_linear_denoiser_has_a_linear_answer() -> None:
    A, y = Matrix(_draw(6, 5)), _draw(6, seed=1)
    step = 0.5 / A.norm() ** 2
    # x = 0.8 (x - step A^T (A x - y)): gradient method. ADMM: 0.8 (x + u) = x, rho u = A^T (y - A x).
    gram, back = A.matrix.T @ A.matrix, A.matrix.T @ y
    eye = torch.eye(5, dtype=F64)
    by_gradient = pnp_proximal_gradient(A, y, PlugAndPlay(_Recorder()), std=0.1, step=step, max_iter=5000, tol=1e-12)
    torch.testing.assert_close(by_gradient.x, torch.linalg.solve(0.2 * eye + 0.8 * step * gram, 0.8 * step * back))
    by_admm = pnp_admm(A, y, PlugAndPlay(_Recorder()), std=0.1, rho=2.0, max_iter=5000, tol=1e-12)
    torch.testing.assert_close(by_admm.x, torch.linalg.solve(0.5 * eye + gram, back))


def test_a_penalty_in_the_place_of_the_denoiser_solves_its_problem() -> None:
    A, y = Matrix(_draw(12, 8, dtype=torch.complex128)), _draw(12, dtype=torch.complex128, seed=1)
    rho, std = 3.0, 0.4
    solution = pnp_admm(A, y, L1(1.0), std=std, rho=rho, max_iter=5000, tol=1e-11)
    lasso = proximal_gradient(A, y, L1(std ** 2 * rho), max_iter=20000, tol=1e-12)
    torch.testing.assert_close(solution.x, lasso.x, rtol=1e-6, atol=1e-8)


def test_noise_levels_fall_by_a_constant_factor() -> None:
    levels = noise_schedule(0.2, 0.0125, 5)
    assert levels == pytest.approx([0.2, 0.1, 0.05, 0.025, 0.0125])
    assert noise_schedule(0.2, 0.1, 1) == (0.1,)
    assert noise_schedule(0.1, 0.1, 3) == pytest.approx((0.1, 0.1, 0.1))


def test_half_quadratic_splitting_follows_its_schedule_then_rests() -> None:
    recorder = _Recorder()
    A, y = Matrix(_draw(6, 5)), _draw(6, seed=1)
    levels = noise_schedule(0.2, 0.05, 4)
    solution = hqs(A, y, PlugAndPlay(recorder), noise_std=0.1, stds=levels, max_iter=1000, tol=1e-9)
    assert recorder.levels[:4] == pytest.approx(levels)
    assert recorder.levels[4:] == pytest.approx([0.05] * (solution.iterations - 4))
    assert solution.trace["std"] == pytest.approx(recorder.levels)
    assert solution.trace["certificate"][:4] == [math.inf] * 4
    assert solution.converged
    default = _Recorder()
    hqs(A, y, PlugAndPlay(default), noise_std=0.02, max_iter=8)
    assert default.levels == pytest.approx(noise_schedule(49 / 255, 0.02, 8))


def test_one_iteration_of_half_quadratic_splitting() -> None:
    A, y = Matrix(_draw(6, 5)), _draw(6, seed=1)
    z0 = _draw(5, seed=2)
    got = hqs(A, y, PlugAndPlay(_Recorder()), noise_std=0.1, stds=(0.3,), trust=0.5, x0=z0, max_iter=1)
    rho = 0.5 * 0.1 ** 2 / 0.3 ** 2
    x = torch.linalg.solve(A.matrix.T @ A.matrix + rho * torch.eye(5, dtype=F64), A.matrix.T @ y + rho * z0)
    torch.testing.assert_close(got.extras["x"], x)
    torch.testing.assert_close(got.x, 0.8 * x)


def test_continuation_removes_blur_and_noise() -> None:
    image = torch.zeros(24, 24, dtype=F64)
    image[6:15, 8:18] = 1
    blur = Convolution(gaussian_kernel(1.2, dtype=F64), (24, 24))
    y = blur(image) + 0.03 * _draw(24, 24, seed=4)
    solution = hqs(blur, y, TV(3.0, dims=2), noise_std=0.03)
    assert torch.linalg.vector_norm(solution.x - image) < 0.6 * torch.linalg.vector_norm(y - image)


@pytest.mark.public_door
def test_refuses_levels_out_of_range() -> None:
    y = torch.ones(3, dtype=F64)
    A, denoiser = Identity((3,), F64), PlugAndPlay(_Recorder())
    with pytest.raises(ValueError, match="std must be finite and positive"):
        pnp_admm(A, y, denoiser, std=0.0)
    with pytest.raises(ValueError, match="std must be finite and positive"):
        pnp_proximal_gradient(A, y, denoiser, std=-1.0)
    with pytest.raises(ValueError, match="step must be finite and positive"):
        pnp_proximal_gradient(A, y, denoiser, std=1.0, step=0.0)
    with pytest.raises(ValueError, match="rho must be finite and positive"):
        pnp_admm(A, y, denoiser, std=0.1, rho=0.0)
    with pytest.raises(ValueError, match="noise_std must be finite and positive"):
        hqs(A, y, denoiser, noise_std=0.0)
    with pytest.raises(ValueError, match=r"stds\[1\] must be finite and positive"):
        hqs(A, y, denoiser, noise_std=0.1, stds=(0.2, -0.1))
    with pytest.raises(ValueError, match="stds must name at least one noise level"):
        hqs(A, y, denoiser, noise_std=0.1, stds=())
    with pytest.raises(ValueError, match="stop must not exceed start"):
        noise_schedule(0.1, 0.2, 3)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        noise_schedule(0.2, 0.1, 0)
