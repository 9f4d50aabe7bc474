"""Proximal gradient: monotone objective, rates, backtracking, other losses, refusals."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsepriors.operators import Convolution, Diagonal, Matrix, gaussian_kernel
from sparsepriors.priors import L0, L1, MCP, TV, ElasticNet, GroupL2, Huber, NonNegative, PlugAndPlay, SquaredL2, Zero
from sparsepriors.solvers import duality_gap, proximal_gradient

DTYPES = (torch.float64, torch.complex128)
SEEDS = st.integers(0, 10**6)


def _problem(seed: int, dtype: torch.dtype = torch.float64, m: int = 12, n: int = 20,
             batch: tuple[int, ...] = ()) -> tuple[Matrix, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return (Matrix(torch.randn(m, n, dtype=dtype, generator=g)),
            torch.randn(*batch, m, dtype=dtype, generator=g))


@settings(max_examples=20)
@given(seed=SEEDS, dtype=st.sampled_from(DTYPES), weight=st.floats(0.01, 10.0),
       prior=st.sampled_from([L1, SquaredL2, L0, lambda w: MCP(w, 2.0), lambda w: GroupL2(w, axis=-1),
                              lambda w: ElasticNet(w, 0.3)]))
def test_without_momentum_the_objective_never_rises(seed: int, dtype: torch.dtype, weight: float, prior: type) -> None:
    A, y = _problem(seed, dtype)
    trace = proximal_gradient(A, y, prior(weight), accelerated=False, max_iter=60, tol=1e-12).trace["objective"]
    start = 0.5 * float(torch.linalg.vector_norm(y)) ** 2
    assert all(b <= a + 1e-12 * start for a, b in zip([start, *trace], trace, strict=False))


@settings(max_examples=10)
@given(seed=SEEDS, dtype=st.sampled_from(DTYPES), relative=st.floats(0.05, 0.9), backtracking=st.booleans(),
       accelerated=st.booleans())
def test_lasso_optimality_conditions_and_gap(seed: int, dtype: torch.dtype, relative: float, backtracking: bool,
                                             accelerated: bool) -> None:
    A, y = _problem(seed, dtype, 12, 10)
    weight = relative * float(A.adjoint(y).abs().max())
    solution = proximal_gradient(A, y, L1(weight), accelerated=accelerated, backtracking=backtracking, max_iter=100000,
                                 tol=1e-11)
    assert solution.converged
    correlation = A.adjoint(y - A(solution.x))
    on = solution.x.abs() > 1e-9
    torch.testing.assert_close(correlation[on], weight * torch.sgn(solution.x[on]), rtol=1e-5, atol=1e-6 * weight)
    assert float(correlation.abs().max()) <= weight * (1 + 1e-7)
    objective = solution.trace["objective"][-1]
    assert -1e-12 <= float(duality_gap(A, y, L1(weight), solution.x)) / objective <= 1e-7


def test_above_the_largest_weight_the_answer_is_zero_in_one_step() -> None:
    A, y = _problem(0)
    solution = proximal_gradient(A, y, L1(1.001 * float(A.adjoint(y).abs().max())), tol=1e-12)
    assert solution.iterations == 1
    assert not solution.x.any()


def test_the_objective_falls_at_the_published_rates() -> None:
    # A badly conditioned blur: F_k - F* <= L ||x*||^2 / (2 k) plain and <= 2 L ||x*||^2 / (k + 1)^2 with momentum.
    A = Convolution(gaussian_kernel(2.0, dtype=torch.float64), (24, 24))
    y = A(torch.eye(24, dtype=torch.float64))
    prior = L1(1e-4)
    best = proximal_gradient(A, y, prior, max_iter=20000, tol=1e-12)
    low, size = best.trace["objective"][-1], float(torch.linalg.vector_norm(best.x)) ** 2
    for options, bound in (({"accelerated": False}, lambda k: size / (2 * k)),
                           ({"restart": False}, lambda k: 2 * size / (k + 1) ** 2)):
        trace = proximal_gradient(A, y, prior, max_iter=300, tol=1e-13, **options).trace["objective"]
        assert all(value - low <= bound(k) * (1 + 1e-9) for k, value in enumerate(trace, 1))
    slow, fast = (proximal_gradient(A, y, prior, max_iter=300, tol=1e-13, accelerated=a).trace["objective"][-1]
                  for a in (False, True))
    assert fast - low < 0.25 * (slow - low)


def test_restart_makes_a_strongly_convex_problem_linear() -> None:
    A = Diagonal(torch.logspace(-1.5, 0, 40, dtype=torch.float64))
    y = torch.ones(40, dtype=torch.float64)
    with_restart, without = (proximal_gradient(A, y, Zero(), restart=r, max_iter=20000, tol=1e-6).iterations
                             for r in (True, False))
    assert with_restart < 0.7 * without


def test_the_certificate_bounds_the_fixed_point_residual_of_the_answer() -> None:
    A, y = _problem(1, torch.complex128)
    prior = L1(2.0)
    step = 1 / A.norm() ** 2
    for tol in (1e-3, 1e-6, 1e-9):
        solution = proximal_gradient(A, y, prior, tol=tol, max_iter=10000)
        x = solution.x
        again = prior.prox(x - step * A.adjoint(A(x) - y), step)
        scale = max(float(torch.linalg.vector_norm(x)), step * float(torch.linalg.vector_norm(A.adjoint(y))))
        assert float(torch.linalg.vector_norm(again - x)) <= solution.certificate * scale * (1 + 1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_huber_loss_ignores_outliers(dtype: torch.dtype) -> None:
    A, _ = _problem(2, dtype, 60, 5)
    truth = torch.arange(1.0, 6.0).to(dtype)
    y = A(truth)
    y[::10] += 100
    robust = proximal_gradient(A, y, Zero(), loss=Huber(1.0, 0.1), max_iter=50000, tol=1e-12)
    assert float((robust.x - truth).abs().max()) < 0.1
    gradient = A.adjoint(Huber(1.0, 0.1).grad(A(robust.x) - y))
    assert float(gradient.abs().max()) < 1e-6


def test_backtracking_finds_a_step_from_any_start_and_for_each_item() -> None:
    A, y = _problem(3, batch=(3,))
    reference = proximal_gradient(A, y, L1(1.0), max_iter=20000, tol=1e-12)
    for step in (None, 1e3, 1e-3):
        solution = proximal_gradient(A, y, L1(1.0), step=step, backtracking=True, shrink=0.7, max_iter=50000, tol=1e-11)
        torch.testing.assert_close(solution.x, reference.x, rtol=1e-5, atol=1e-7)
    steps = proximal_gradient(A, y, L1(1.0), backtracking=True).extras["step"]
    assert steps.shape == (3,)
    assert float(steps.min()) >= 0.5 / A.norm() ** 2


def test_a_constraint_holds_in_every_iterate() -> None:
    A, y = _problem(4)
    worst: list[float] = []
    proximal_gradient(A, y, NonNegative(), callback=lambda s: worst.append(float(s.x.min())) or False)
    assert min(worst) >= 0


def test_tv_prox_starts_warm() -> None:
    y = torch.randn(1, 20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    blur = Convolution(gaussian_kernel(1.0, dtype=torch.float64), (20, 20))
    solution = proximal_gradient(blur, y, TV(0.05, dims=2, tol=1e-8), tol=1e-6, max_iter=500)
    assert solution.converged
    assert all(b <= a * (1 + 1e-6) for a, b in zip(solution.trace["objective"][5:], solution.trace["objective"][6:],
                                                  strict=False))


def test_a_zero_operator_leaves_the_prior_alone() -> None:
    A = Matrix(torch.zeros(3, 4, dtype=torch.float64))
    x0 = torch.ones(4, dtype=torch.float64)
    solution = proximal_gradient(A, torch.ones(3, dtype=torch.float64), L1(0.25), x0=x0, tol=1e-12)
    assert solution.converged
    assert not solution.x.any()
    assert proximal_gradient(A, torch.ones(3, dtype=torch.float64), Zero(), x0=x0, backtracking=True).converged


def test_objective_can_be_left_out_and_is_nan_for_a_denoiser() -> None:
    A, y = _problem(6)
    assert "objective" not in proximal_gradient(A, y, L1(1.0), objective=False, max_iter=3).trace
    denoiser = PlugAndPlay(lambda x, std: 0.9 * x)
    assert math.isnan(proximal_gradient(A, y, denoiser, max_iter=3).trace["objective"][0])


def test_a_step_that_is_too_long_diverges_with_a_reason() -> None:
    A, y = _problem(7)
    with pytest.raises(FloatingPointError, match=r"iteration \d+.*step is longer than 2/L"):
        proximal_gradient(A, y, Zero(), step=1e3, accelerated=False, max_iter=5000)


@pytest.mark.public_door
def test_refuses_losses_and_steps_that_cannot_work() -> None:
    A, y = _problem(8, batch=(2,))
    with pytest.raises(TypeError, match="loss must have a gradient.*L1 has none.*admm and primal_dual"):
        proximal_gradient(A, y, L1(1.0), loss=L1(1.0))
    with pytest.raises(TypeError, match="loss must be a Prior"):
        proximal_gradient(A, y, L1(1.0), loss="huber")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="loss has dims = None.*give it dims=1"):
        proximal_gradient(A, y, L1(1.0), loss=Huber(1.0), backtracking=True)
    with pytest.raises(ValueError, match="shrink must lie strictly between 0 and 1"):
        proximal_gradient(A, y, L1(1.0), shrink=1.0)
    with pytest.raises(ValueError, match="step must be finite and positive"):
        proximal_gradient(A, y, L1(1.0), step=0.0)
    with pytest.raises(ValueError, match=r"step must be a number or have the batch shape \(2,\), got \(3,\)"):
        proximal_gradient(A, y, L1(1.0), step=torch.ones(3))
    with pytest.raises(TypeError, match="prior of real tensors"):
        complex_A, complex_y = _problem(9, torch.complex128)
        proximal_gradient(complex_A, complex_y, NonNegative())
