"""Different solvers, one problem, one answer: to 1e-6 of the objective's unknown."""

from __future__ import annotations

import pytest
import torch

from sparsepriors.operators import (
    Convolution,
    FiniteDifference,
    FourierTransform,
    Identity,
    Mask,
    Matrix,
    WaveletTransform,
    gaussian_kernel,
)
from sparsepriors.priors import L1, TV, GroupL2, InBasis, NonNegative, SquaredL2, Zero
from sparsepriors.solvers import Solution, admm, conjugate_gradient, least_squares, primal_dual, proximal_gradient

F64, C128 = torch.float64, torch.complex128


def _draw(*shape: int, dtype: torch.dtype = F64, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def _agree(*solutions: Solution, within: float = 1e-6) -> None:
    size = float(solutions[0].x.abs().max())
    for s in solutions:
        assert s.converged
        assert float((s.x - solutions[0].x).abs().max()) <= within * size


@pytest.mark.parametrize(("m", "n"), [(30, 15), (15, 30)])
@pytest.mark.parametrize("dtype", [F64, C128])
def test_lasso(m: int, n: int, dtype: torch.dtype) -> None:
    A, y = Matrix(_draw(m, n, dtype=dtype)), _draw(2, m, dtype=dtype, seed=1)
    prior, options = L1(3.0, dims=1), {"max_iter": 20000, "tol": 1e-10}
    _agree(proximal_gradient(A, y, prior, **options), admm(A, y, prior, **options),
           proximal_gradient(A, y, prior, accelerated=False, backtracking=True, **options),
           primal_dual(A, y, prior, **options),
           primal_dual(A, y, Zero(), terms=[(prior, Identity((n,), dtype))], **options))


def _tv(shape: tuple[int, int], weight: float, dtype: torch.dtype = F64) -> tuple[GroupL2, FiniteDifference, TV]:
    return (GroupL2(weight, axis=-3, dims=3), FiniteDifference(shape, dtype=dtype), TV(weight, dims=2, tol=1e-12))


def test_total_variation_denoising() -> None:
    shape = (6, 7)
    joined, D, tv = _tv(shape, 0.4)
    identity, y = Identity(shape, F64), _draw(2, *shape)
    direct = tv.prox(y)
    by_admm = admm(identity, y, joined, analysis=D, max_iter=10000, tol=1e-9)
    by_primal_dual = primal_dual(identity, y, Zero(), terms=[(joined, D)], max_iter=20000, tol=1e-8)
    _agree(by_admm, by_primal_dual, proximal_gradient(identity, y, tv, tol=1e-9))
    assert float((by_admm.x - direct).abs().max()) <= 1e-6 * float(direct.abs().max())


def test_total_variation_deblurring() -> None:
    shape = (8, 8)
    joined, D, tv = _tv(shape, 0.05)
    A = Convolution(gaussian_kernel(0.7, radius=1, dtype=F64), shape)
    y = A(_draw(*shape))
    _agree(admm(A, y, joined, analysis=D, max_iter=20000, tol=1e-10),
           primal_dual(A, y, Zero(), terms=[(joined, D)], max_iter=30000, tol=1e-8),
           proximal_gradient(A, y, tv, max_iter=3000, tol=1e-9), within=2e-6)


def test_complex_groups_from_fourier_samples_and_a_basis() -> None:
    shape = (8, 8)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(2)) < 0.7
    A = Mask(mask, C128) @ FourierTransform(shape, dtype=C128)
    W = WaveletTransform(shape, "db2", 1, dtype=C128)
    y = A(_draw(*shape, dtype=C128))
    groups = GroupL2(0.3, axis=(-2, -1), dims=2)
    rows = GroupL2(0.3, axis=-1, dims=2)
    for prior in (groups, rows):
        options = {"max_iter": 20000, "tol": 1e-10}
        _agree(proximal_gradient(A, y, InBasis(prior, W), **options), admm(A, y, prior, analysis=W, **options),
               admm(A, y, InBasis(prior, W), **options),
               primal_dual(A, y, Zero(), terms=[(prior, W)], **options))


def test_nonnegative_least_squares() -> None:
    A, y = Matrix(_draw(20, 8)), _draw(20, seed=1)
    options = {"max_iter": 20000, "tol": 1e-11}
    _agree(proximal_gradient(A, y, NonNegative(), **options), admm(A, y, NonNegative(), **options),
           primal_dual(A, y, Zero(), terms=[(NonNegative(), Identity((8,), F64))], **options))


def test_ridge() -> None:
    A, y = Matrix(_draw(20, 8, dtype=C128)), _draw(20, dtype=C128, seed=1)
    options = {"max_iter": 20000, "tol": 1e-11}
    _agree(proximal_gradient(A, y, SquaredL2(2.0), **options), least_squares(A, y, damping=2.0, **options),
           conjugate_gradient(A.gram() + 2.0 * Identity((8,), C128), A.adjoint(y), **options),
           admm(A, y, SquaredL2(2.0), **options))
