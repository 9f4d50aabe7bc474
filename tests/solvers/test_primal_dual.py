"""Condat-Vu: optimality, several terms, losses without a gradient, the condition on the steps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsepriors.operators import Convolution, FiniteDifference, Identity, Matrix, WaveletTransform, gaussian_kernel
from sparsepriors.priors import L1, Box, GroupL2, L2Ball, NonNegative, SquaredL2, Zero
from sparsepriors.solvers import primal_dual, proximal_gradient

F64, C128 = torch.float64, torch.complex128


def _draw(*shape: int, dtype: torch.dtype = F64, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def test_without_terms_it_is_the_proximal_gradient_method() -> None:
    A, y = Matrix(_draw(12, 20)), _draw(12, seed=1)
    step = 1 / A.norm() ** 2
    ours = primal_dual(A, y, L1(0.5), tau=step, max_iter=30, tol=1e-13)
    plain = proximal_gradient(A, y, L1(0.5), accelerated=False, step=step, max_iter=30, tol=1e-13)
    torch.testing.assert_close(ours.x, plain.x, rtol=1e-12, atol=1e-12)
    assert ours.trace["objective"] == pytest.approx(plain.trace["objective"])


@settings(max_examples=6)
@given(seed=st.integers(0, 10**6), dtype=st.sampled_from([F64, C128]))
def test_three_terms_meet_their_optimality_conditions(seed: int, dtype: torch.dtype) -> None:
    A, y = Matrix(_draw(10, 8, dtype=dtype, seed=seed)), _draw(10, dtype=dtype, seed=seed + 1)
    K0, K1 = Matrix(_draw(6, 8, dtype=dtype, seed=seed + 2)), Matrix(_draw(5, 8, dtype=dtype, seed=seed + 3))
    solution = primal_dual(A, y, L1(0.3), terms=[(L1(0.2), K0), (L2Ball(1.0), K1)], max_iter=20000, tol=1e-8)
    assert solution.converged
    u0, u1, x = solution.extras["u0"], solution.extras["u1"], solution.x
    force = -(A.adjoint(A(x) - y) + K0.adjoint(u0) + K1.adjoint(u1))  # must be a subgradient of 0.3 |x|_1
    assert float(force.abs().max()) <= 0.3 + 1e-5
    on = x.abs() > 1e-6
    torch.testing.assert_close(force[on], 0.3 * torch.sgn(x[on]), rtol=1e-4, atol=1e-4)
    assert float(u0.abs().max()) <= 0.2 + 1e-9
    inside = float(torch.linalg.vector_norm(K1(x)))
    assert inside <= 1 + 1e-5
    if inside < 1 - 1e-4:
        assert float(u1.abs().max()) < 1e-6


def test_a_loss_without_a_gradient_is_one_more_term() -> None:
    A, truth = Matrix(_draw(30, 5)), _draw(5, seed=2)
    y = A(truth)
    y[::5] += 40
    solution = primal_dual(A, y, Zero(), loss=L1(1.0), sigma=0.05, max_iter=3000, tol=1e-7)
    torch.testing.assert_close(solution.x, truth, rtol=1e-4, atol=1e-4)
    assert float(solution.extras["u0"].abs().max()) <= 1 + 1e-9
    nearest = float(torch.linalg.vector_norm(y - A(torch.linalg.lstsq(A.matrix, y.unsqueeze(-1)).solution.squeeze())))
    smallest = primal_dual(A, y, SquaredL2(1.0), loss=L2Ball(1.05 * nearest), sigma=0.5, max_iter=3000, tol=1e-8)
    assert float(torch.linalg.vector_norm(A(smallest.x) - y)) == pytest.approx(1.05 * nearest, rel=1e-6)


def test_wavelets_total_variation_and_positivity_together() -> None:
    blur = Convolution(gaussian_kernel(1.0, radius=3, dtype=F64), (16, 16))
    image = torch.zeros(16, 16, dtype=F64)
    image[4:11, 5:12] = 1
    y = blur(image) + 0.02 * _draw(16, 16, seed=3)
    terms = [(GroupL2(0.01, axis=-3, dims=3), FiniteDifference((16, 16), dtype=F64)),
             (L1(0.002), WaveletTransform((16, 16), "haar", 2, dtype=F64))]
    solution = primal_dual(blur, y, NonNegative(), terms=terms, max_iter=5000, tol=1e-5)
    assert solution.converged
    assert float(solution.x.min()) >= 0
    assert torch.linalg.vector_norm(solution.x - image) < 0.6 * torch.linalg.vector_norm(y - image)
    better = solution.trace["objective"][-1]
    for seed in range(20):
        other = (solution.x + 1e-2 * _draw(16, 16, seed=seed)).clamp_min(0)
        value = (0.5 * float(torch.linalg.vector_norm(blur(other) - y)) ** 2
                 + sum(float(p.value(K(other))) for p, K in terms))
        assert value >= better - 1e-6


@pytest.mark.parametrize("steps", [{}, {"tau": 0.05}, {"sigma": 0.02}, {"sigma": 3.0}, {"tau": 0.02, "sigma": 0.02}],
                         ids=str)
def test_every_admissible_pair_of_steps_reaches_the_same_answer(steps: dict[str, float]) -> None:
    A, K, y = Matrix(_draw(9, 6)), Matrix(_draw(7, 6, seed=1)), _draw(9, seed=2)
    reference = primal_dual(A, y, Box(-0.3, 0.3), terms=[(L1(0.5), K)], max_iter=20000, tol=1e-10)
    solution = primal_dual(A, y, Box(-0.3, 0.3), terms=[(L1(0.5), K)], max_iter=20000, tol=1e-8, **steps)
    assert solution.converged
    torch.testing.assert_close(solution.x, reference.x, rtol=1e-5, atol=1e-6)


def test_operators_that_are_zero_leave_steps_defined() -> None:
    zero = Matrix(torch.zeros(3, 2, dtype=F64))
    y = torch.ones(3, dtype=F64)
    x0 = torch.ones(2, dtype=F64)
    assert primal_dual(zero, y, L1(0.5), x0=x0, tol=1e-9).converged
    assert primal_dual(zero, y, L1(0.5), terms=[(L1(1.0), zero)], x0=x0, tol=1e-9).converged
    assert primal_dual(zero, y, L1(0.5), terms=[(L1(1.0), zero)], tau=0.1, x0=x0, tol=1e-9).converged


@pytest.mark.public_door
def test_refuses_steps_that_violate_the_condition_and_terms_that_do_not_fit() -> None:
    A, K, y = Matrix(_draw(9, 6)), Matrix(_draw(7, 6, seed=1)), _draw(2, 9, seed=2)
    with pytest.raises(ValueError, match=r"tau = 1 and sigma = 1 violate 1/tau - sigma \|\|K\|\|\^2 >= L/2"):
        primal_dual(A, y, L1(), terms=[(L1(), K)], tau=1.0, sigma=1.0)
    with pytest.raises(ValueError, match="tau must be below 2/L"):
        primal_dual(A, y, L1(), terms=[(L1(), K)], tau=1.0)
    with pytest.raises(ValueError, match="sigma must be finite and positive"):
        primal_dual(A, y, L1(), terms=[(L1(), K)], sigma=0.0)
    with pytest.raises(TypeError, match=r"terms\[0\] must be a pair of a Prior and a LinearOperator"):
        primal_dual(A, y, L1(), terms=[L1()])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"operator of terms\[1\] must act on unknowns of shape \(6,\)"):
        primal_dual(A, y, L1(), terms=[(L1(), K), (L1(), Identity((5,), F64))])
    with pytest.raises(ValueError, match=r"the prior of terms\[0\] has dims = None.*give it dims=1"):
        primal_dual(A, y, L1(), terms=[(GroupL2(1.0, axis=-1), K)])
    with pytest.raises(TypeError, match="loss must be a Prior"):
        primal_dual(A, y, L1(), loss=0.5)  # pyright: ignore[reportArgumentType]
