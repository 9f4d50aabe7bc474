"""Constrained ADMM: optimality against an independent solver, the constraint, schedules and the published stop."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsepriors.operators import Diagonal, FourierTransform, Identity, Mask, Matrix
from sparsepriors.priors import L1, TV, Magnitude, PlugAndPlay, SquaredL2
from sparsepriors.solvers import State, csalsa, proximal_gradient

DTYPES = (torch.float64, torch.complex128)


def _sparse_problem(dtype: torch.dtype, seed: int) -> tuple[Matrix, torch.Tensor, torch.Tensor, float]:
    generator = torch.Generator().manual_seed(seed)
    A = Matrix(torch.randn(20, 40, dtype=dtype, generator=generator) / math.sqrt(20))
    x = torch.zeros(40, dtype=dtype)
    x[torch.randperm(40, generator=generator)[:4]] = torch.randn(4, dtype=dtype, generator=generator)
    noise = 0.05 * torch.randn(20, dtype=dtype, generator=generator)
    return A, A(x) + noise, x, float(torch.linalg.vector_norm(noise))


@settings(max_examples=3)
@given(seed=st.integers(0, 10**6), dtype=st.sampled_from(DTYPES))
def test_basis_pursuit_denoising_is_a_lasso(seed: int, dtype: torch.dtype) -> None:
    A, y, _, eps = _sparse_problem(dtype, seed)
    if float(torch.linalg.vector_norm(y)) <= 1.05 * eps:
        return
    solution = csalsa(A, y, L1(1.0, dims=1), eps=eps, kappa=1.0, alpha=0.1, cg_iters=10, cg_tol=1e-12, max_iter=4000,
                      tol=1e-8)
    residual = y - A(solution.x)
    assert float(torch.linalg.vector_norm(residual)) <= eps * (1 + 1e-4)
    # The multiplier of the constraint makes it a lasso with weight max |A^H residual|.
    weight = float(A.adjoint(residual).abs().max())
    lasso = proximal_gradient(A, y, L1(weight), max_iter=20000, tol=1e-9)
    assert float(L1().value(solution.x)) == pytest.approx(float(L1().value(lasso.x)), rel=2e-3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_smallest_norm_within_a_ball_has_a_closed_form(dtype: torch.dtype) -> None:
    y = torch.randn(3, 4, 5, dtype=dtype, generator=torch.Generator().manual_seed(0))
    eps = torch.tensor([0.5, 2.0, 100.0], dtype=torch.float64)
    solution = csalsa(Identity((4, 5), dtype), y, SquaredL2(1.0, dims=2), eps=eps, kappa=1.0, alpha=1.0, max_iter=5000,
                      tol=1e-10)
    shrink = (1 - eps / torch.linalg.vector_norm(y, dim=(-2, -1))).clamp_min(0)
    torch.testing.assert_close(solution.x, shrink[:, None, None] * y, rtol=1e-6, atol=1e-6)
    assert solution.converged


def test_one_step_of_the_published_iteration() -> None:
    A, y, _, eps = _sparse_problem(torch.complex128, 3)
    m, kappa, alpha = A.matrix, 0.7, 0.2
    system = kappa * torch.eye(40, dtype=m.dtype) + m.mH @ m
    x0 = torch.randn(40, dtype=torch.complex128, generator=torch.Generator().manual_seed(9))
    got = csalsa(A, y, L1(1.0), eps=eps, kappa=kappa, alpha=alpha, cg_iters=200, cg_tol=1e-15, x0=x0, max_iter=1)
    t, v = x0, m @ x0
    s = torch.linalg.solve(system, kappa * t + m.mH @ v)
    t = L1(1.0).prox(s, alpha)
    off = m @ s - y
    v = y + off * min(1.0, eps / float(torch.linalg.vector_norm(off)))
    for name, want in {"t": t, "v": v, "d1": -(s - t), "d2": -(m @ s - v)}.items():
        torch.testing.assert_close(got.extras[name], want, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(got.x, s, rtol=1e-8, atol=1e-10)
    second = csalsa(A, y, L1(1.0), eps=eps, kappa=kappa, alpha=alpha, cg_iters=200, cg_tol=1e-15, x0=x0, max_iter=2)
    d1, d2 = got.extras["d1"], got.extras["d2"]
    s2 = torch.linalg.solve(system, kappa * (t + d1) + m.mH @ (v + d2))
    torch.testing.assert_close(second.x, s2, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(second.extras["t"], L1(1.0).prox(s2 - d1, alpha), rtol=1e-8, atol=1e-10)


def test_the_certificate_is_the_change_of_the_magnitude_from_the_second_iteration_on() -> None:
    A, y, _, eps = _sparse_problem(torch.complex128, 4)
    iterates: list[torch.Tensor] = []
    solution = csalsa(A, y, L1(1.0), eps=eps, kappa=1.0, alpha=0.1, max_iter=200, tol=5e-4,
                      callback=lambda s: iterates.append(s.x.abs().clone()))
    trace = solution.trace["certificate"]
    assert trace[0] == math.inf
    for k in range(1, len(iterates)):
        change = torch.linalg.vector_norm(iterates[k] - iterates[k - 1]) / torch.linalg.vector_norm(iterates[k - 1])
        assert trace[k] == pytest.approx(float(change), rel=1e-9)
    assert solution.converged
    assert trace[-1] <= 5e-4 < min(trace[:-1])


def test_items_stop_by_themselves_and_stay() -> None:
    generator = torch.Generator().manual_seed(5)
    A = _sparse_problem(torch.complex128, 5)[0]
    y = torch.randn(3, 20, dtype=torch.complex128, generator=generator) * torch.tensor([[1.0], [0.1], [3.0]])
    eps = torch.tensor([1.0, 0.05, 5.0], dtype=torch.float64)
    arguments = {"kappa": 1.0, "alpha": 0.1, "max_iter": 500}
    frozen: dict[int, torch.Tensor] = {}
    batch = csalsa(A, y, L1(1.0, dims=1), eps=eps, **arguments)
    counts = batch.extras["iterations"].tolist()
    assert len(set(counts)) > 1

    def watch(state: State) -> None:
        for i, count in enumerate(counts):
            if state.iteration == count:
                frozen[i] = state.x[i].clone()

    again = csalsa(A, y, L1(1.0, dims=1), eps=eps, callback=watch, **arguments)
    for i in range(3):
        alone = csalsa(A, y[i], L1(1.0, dims=1), eps=eps[i], **arguments)
        assert alone.iterations == counts[i]
        torch.testing.assert_close(batch.x[i], alone.x, rtol=1e-10, atol=1e-12)
        assert torch.equal(frozen[i], again.x[i])


def test_schedules_divide_alpha_and_multiply_kappa() -> None:
    steps: list[float] = []

    def denoiser(x: torch.Tensor, std: float | torch.Tensor) -> torch.Tensor:
        steps.append(float(std) ** 2)
        return 0.5 * x

    y = torch.ones(4, dtype=torch.float64)
    csalsa(Identity((4,), torch.float64), y, PlugAndPlay(denoiser), eps=0.1, kappa=2.0, alpha=0.8, alpha_decay=2.0,
           max_iter=4, tol=1e-14)
    assert steps == pytest.approx([0.8, 0.4, 0.2, 0.1])
    # With x0 = 0 the first iterates are 0; from the second on kappa matters, so a growing kappa must differ.
    A, y, _, eps = _sparse_problem(torch.float64, 6)
    fixed, grown = (csalsa(A, y, L1(1.0), eps=eps, kappa=1.0, alpha=0.1, kappa_growth=g, max_iter=3, tol=1e-14)
                    for g in (1.0, 1.5))
    assert fixed.trace["infeasibility"][0] == grown.trace["infeasibility"][0]
    assert fixed.trace["infeasibility"][1] != grown.trace["infeasibility"][1]


def test_a_magnitude_prior_is_blind_to_the_phase_of_every_entry() -> None:
    generator = torch.Generator().manual_seed(7)
    phase = torch.polar(torch.ones(6, 6, dtype=torch.float64), 6.28 * torch.rand(6, 6, dtype=torch.float64,
                                                                                 generator=generator))
    A = Mask(torch.rand(6, 6, generator=generator) < 0.7, torch.complex128) @ FourierTransform(
        (6, 6), dtype=torch.complex128)
    y = A(torch.randn(6, 6, dtype=torch.complex128, generator=generator))
    prior = Magnitude(TV(1.0, dims=2, tol=1e-9))
    plain, turned = (csalsa(op, y, prior, eps=0.3, kappa=1.0, alpha=0.05, max_iter=15, tol=1e-9).x
                     for op in (A, A @ Diagonal(phase.conj())))
    torch.testing.assert_close(turned, phase * plain, rtol=1e-5, atol=1e-5)
    assert float((turned - plain).abs().max()) > 0.1


@pytest.mark.public_door
@pytest.mark.parametrize(("name", "value"), [("eps", 0.0), ("eps", -1.0), ("kappa", 0.0), ("alpha", math.nan),
                                             ("alpha", -0.1), ("alpha_decay", 0.0), ("kappa_growth", -1.0),
                                             ("cg_iters", 0), ("cg_tol", 0.0), ("eps", torch.ones(3))])
def test_refuses_parameters_out_of_range(name: str, value: object) -> None:
    y = torch.ones(2, 4, dtype=torch.float64)
    arguments = {"eps": 1.0, "kappa": 1.0, "alpha": 1.0, name: value}
    with pytest.raises(ValueError, match=name):
        csalsa(Identity((4,), torch.float64), y, L1(1.0), **arguments)
