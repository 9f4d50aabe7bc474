"""Proxes and projections against pyproximal, scikit-image, scikit-learn and SciPy, where they define the same thing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyproximal
import pytest
import scipy.optimize
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.restoration import denoise_tv_chambolle
from sklearn.isotonic import isotonic_regression

from sparsepriors import priors as pr

F64 = torch.float64
N = 12
SEEDS = st.integers(0, 10**6)
WEIGHTS = st.floats(0.05, 3)
STEPS = st.floats(0.05, 3)


def draw(seed: int, *shape: int, scale: float = 2.0) -> torch.Tensor:
    return scale * torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def log_penalty(w: float) -> Any:
    return pyproximal.Log(sigma=w, gamma=0.7)


# name: (ours and theirs for a weight, how far theirs is from its own closed form)
SAME: dict[str, tuple[Callable[[float], pr.Prior], Callable[[float], Any], float]] = {
    "L1": (pr.L1, lambda w: pyproximal.L1(sigma=w), 1e-6),
    "SquaredL2": (pr.SquaredL2, lambda w: pyproximal.L2(sigma=w), 1e-10),
    "HuberCircular": (lambda w: pr.Groups(pr.Huber(1.0, w)), pyproximal.HuberCircular, 1e-10),
    "L2": (pr.GroupL2, lambda w: pyproximal.Euclidean(sigma=w), 1e-10),
    "Box": (lambda w: pr.Box(-w, 2 * w), lambda w: pyproximal.Box(-w, 2 * w), 1e-12),
    "L2Ball": (pr.L2Ball, lambda w: pyproximal.EuclideanBall(0.0, w), 1e-10),
    "L1Ball": (pr.L1Ball, lambda w: pyproximal.L1Ball(N, w, maxiter=200, xtol=1e-13), 1e-8),
    "Simplex": (pr.Simplex, lambda w: pyproximal.Simplex(N, w, maxiter=200, xtol=1e-13), 1e-8),
    "Cardinality": (lambda w: pr.Cardinality(4), lambda w: pyproximal.L0Ball(4), 1e-12),
}


@pytest.mark.parametrize("name", sorted(SAME))
@given(seed=SEEDS, weight=WEIGHTS, step=STEPS)
def test_proxes_of_pyproximal(name: str, seed: int, weight: float, step: float) -> None:
    ours, theirs, off = SAME[name]
    x = draw(seed, N)
    expected = theirs(weight).prox(x.numpy().copy(), step)
    np.testing.assert_allclose(ours(weight).prox(x, step).numpy(), expected, rtol=0, atol=off * 10)


@pytest.mark.parametrize(("ours", "theirs", "penalty"), [
    (lambda w: pr.Huber(1.0, w), pyproximal.Huber,
     lambda u, w: np.where(np.abs(u) <= w, u**2 / (2 * w), np.abs(u) - w / 2)),
    (pr.L0, lambda w: pyproximal.L0(sigma=w), lambda u, w: w * (u != 0)),
], ids=["Huber", "L0"])
@given(seed=SEEDS, weight=WEIGHTS, step=STEPS)
def test_where_pyproximal_leaves_its_own_penalty(ours: Callable[[float], pr.Prior], theirs: Callable[[float], Any],
                                                 penalty: Callable[[np.ndarray, float], np.ndarray], seed: int,
                                                 weight: float, step: float) -> None:
    """Version 0.13 chooses Huber's branch by |x| <= alpha and the threshold of l0 without its factor of two."""
    x = draw(seed, N).numpy()
    found, expected = ours(weight).prox(torch.from_numpy(x), step).numpy(), theirs(weight).prox(x.copy(), step)

    def cost(u: np.ndarray) -> np.ndarray:
        return step * penalty(u, weight) + 0.5 * (u - x) ** 2

    same = np.isclose(found, expected, atol=1e-9)
    assert (cost(found)[~same] < cost(expected)[~same]).all()
    assert (cost(found) <= cost(expected) + 1e-9).all()


@pytest.mark.parametrize(("ours", "theirs"), [
    (lambda w: pr.L1(w), lambda w: pyproximal.L1(sigma=w)),
    (lambda w: pr.SquaredL2(w), lambda w: pyproximal.L2(sigma=w)),
    (lambda w: pr.Huber(1.0, w), pyproximal.Huber),
    (lambda w: pr.SCAD(w, 3.7), lambda w: pyproximal.SCAD(w, 3.7)),
    (lambda w: pr.LogSum(w / math.log(1.7), 1 / 0.7), log_penalty),
    (lambda w: pr.GroupL2(w), lambda w: pyproximal.Euclidean(sigma=w)),
], ids=["L1", "SquaredL2", "Huber", "SCAD", "LogSum", "L2"])
@given(seed=SEEDS, weight=WEIGHTS)
def test_values_of_pyproximal(ours: Callable[[float], pr.Prior], theirs: Callable[[float], Any], seed: int,
                              weight: float) -> None:
    x = draw(seed, N)
    assert float(ours(weight).value(x)) == pytest.approx(float(theirs(weight)(x.numpy())), rel=1e-9)


@given(seed=SEEDS, weight=WEIGHTS, step=st.floats(0.05, 0.9))
def test_the_prox_of_scad_while_the_objective_is_convex(seed: int, weight: float, step: float) -> None:
    x = draw(seed, N, scale=4.0)
    # Theirs takes the step into the penalty's parameter, so the two agree at step 1 only.
    expected = pyproximal.SCAD(weight, 3.7).prox(x.numpy().copy(), 1.0)
    np.testing.assert_allclose(pr.SCAD(weight, 3.7).prox(x).numpy(), expected, atol=1e-9)
    longer = pr.SCAD(weight, 3.7).prox(x, step)
    assert bool((longer.abs() >= pr.SCAD(weight, 3.7).prox(x).abs() - 1e-12).all())


@given(seed=SEEDS, weight=WEIGHTS, step=STEPS)
def test_the_nuclear_norm_of_pyproximal(seed: int, weight: float, step: float) -> None:
    x = draw(seed, 4, 5)
    expected = pyproximal.Nuclear((4, 5), sigma=weight).prox(x.numpy().ravel(), step).reshape(4, 5)
    np.testing.assert_allclose(pr.NuclearNorm(weight).prox(x, step).numpy(), expected, atol=1e-6)


@given(seed=SEEDS, weight=WEIGHTS, step=STEPS)
def test_the_group_norm_of_pyproximal(seed: int, weight: float, step: float) -> None:
    x = draw(seed, 3, 4)
    expected = pyproximal.L21(3, sigma=weight).prox(x.numpy().ravel(), step).reshape(3, 4)
    np.testing.assert_allclose(pr.GroupL2(weight, axis=0).prox(x, step).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(40,), (12, 13), (6, 7, 8)], ids=str)
def test_isotropic_total_variation_of_scikit_image(shape: tuple[int, ...], generator: torch.Generator) -> None:
    x = torch.randn(shape, dtype=F64, generator=generator)
    theirs = denoise_tv_chambolle(x.numpy(), weight=0.3, eps=0, max_num_iter=20000)
    ours = pr.TV(0.3, tol=1e-10, max_iter=50000, dims=len(shape)).prox(x)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=2e-4)
    objective = pr.TV(0.3, dims=len(shape))
    value = [float(objective.value(u) + 0.5 * (u - x).square().sum()) for u in (ours, torch.from_numpy(theirs))]
    assert value[0] <= value[1] * (1 + 1e-9)


@pytest.mark.parametrize("shape", [(10, 11), (5, 6, 7)], ids=str)
def test_total_variation_of_pyproximal(shape: tuple[int, ...], generator: torch.Generator) -> None:
    x = torch.randn(shape, dtype=F64, generator=generator)
    theirs = pyproximal.TV(shape, sigma=0.4, niter=1500, rtol=0).prox(x.numpy().ravel(), 0.8).reshape(shape)
    ours = pr.TV(0.4, tol=1e-10, max_iter=50000, dims=len(shape)).prox(x, 0.8)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-3)


@given(seed=SEEDS, n=st.integers(1, 20), step=STEPS)
def test_slope_by_scikit_learns_isotonic_regression(seed: int, n: int, step: float) -> None:
    x = draw(seed, n)
    weights = draw(seed + 1, n).abs().sort(descending=True).values
    moduli = x.abs().numpy()
    order = np.argsort(-moduli, kind="stable")
    expected = np.empty(n)
    expected[order] = np.maximum(isotonic_regression(moduli[order] - step * weights.numpy(), increasing=False), 0)
    expected *= np.sign(x.numpy())
    np.testing.assert_allclose(pr.SLOPE(weights).prox(x, step).numpy(), expected, atol=1e-12)


@given(seed=SEEDS, radius=st.floats(0.1, 5))
def test_the_simplex_by_scipys_root_of_the_sum(seed: int, radius: float) -> None:
    x = draw(seed, N).numpy()
    tau = scipy.optimize.brentq(lambda t: np.maximum(x - t, 0).sum() - radius, x.min() - radius, x.max(), xtol=1e-14)
    found = pr.Simplex(radius).project(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, np.maximum(x - tau, 0), atol=1e-11)


@given(seed=SEEDS, rank=st.integers(0, 4))
def test_low_rank_by_numpy(seed: int, rank: int) -> None:
    x = draw(seed, 4, 5)
    u, s, vh = np.linalg.svd(x.numpy(), full_matrices=False)
    found = pr.Rank(rank).project(x).numpy()
    np.testing.assert_allclose(found, (u[:, :rank] * s[:rank]) @ vh[:rank], atol=1e-10)
    assert np.linalg.norm(found - x.numpy()) == pytest.approx(math.sqrt((s[rank:] ** 2).sum()), abs=1e-9)
