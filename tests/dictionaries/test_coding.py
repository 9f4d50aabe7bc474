"""Sparse codes, strengths for an activity, and least squares on supports."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import sparse_encode
from torch import Tensor

from sparsepriors.dictionaries import calibrate_weight, refit, sparse_codes
from sparsepriors.dictionaries.coding import curvature
from sparsepriors.dictionaries.learning import random_atoms
from sparsepriors.kernels import dispatch
from sparsepriors.priors import CEL0, L0, L1, MCP, SCAD, SLOPE, TV, ElasticNet, LogSum, Lq, NonNegative, Prior, Scaled

F64 = torch.float64
PRIORS = (L1(0.3), ElasticNet(0.2, 0.1), NonNegative(), L0(0.05), Lq(0.1, 0.5), Lq(0.1, 2 / 3), MCP(0.3, 3.0),
          SCAD(0.3, 3.7), LogSum(0.2, 0.5), CEL0(0.05), Scaled(SCAD(0.3, 3.7), 0.5))


@dataclass(frozen=True)
class Mine(Prior, convex=True, separable=True):
    """A user's class that no kernel knows: soft thresholding."""

    weight: float = 0.3

    def _value(self, x: Tensor) -> Tensor:
        return self._sum(self.weight * x.abs())

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        return x.sign() * torch.relu(x.abs() - self.weight * step)


def problem(n: int = 20, units: int = 30, features: int = 16, seed: int = 0,
            dtype: torch.dtype = F64) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, features, dtype=dtype, generator=g), random_atoms(units, features, g, dtype=dtype)


@pytest.mark.parametrize("prior", PRIORS, ids=str)
def test_codes_are_fixed_points_that_lower_the_objective(prior: Prior) -> None:
    X, D = problem()
    step = 0.9 / curvature(D)
    found = sparse_codes(X, D, prior, step=step, tol=1e-9, max_iter=50_000)
    assert bool(found.converged.all())
    gradient = (found.codes @ D - X) @ D.mT
    torch.testing.assert_close(prior.prox(found.codes - step * gradient, step), found.codes, atol=1e-6, rtol=0)
    value = replace(prior, dims=1).value if not isinstance(prior, Scaled) else Scaled(
        replace(prior.prior, dims=1), prior.factor).value
    objective = 0.5 * (X - found.codes @ D).square().sum(1) + value(found.codes)
    assert bool((objective <= 0.5 * X.square().sum(1) + 1e-9).all())


def test_l1_codes_are_scikit_learns() -> None:
    X, D = problem(n=8)
    ours = sparse_codes(X, D, L1(0.4), tol=1e-10, max_iter=100_000).codes
    theirs = sparse_encode(X.numpy(), D.numpy(), algorithm="lasso_cd", alpha=0.4, max_iter=100_000)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-3)


@pytest.mark.parametrize("units", [10, 40])  # by the Gram matrix, and by two products
@pytest.mark.parametrize("prior", [L1(0.3), L0(0.05), CEL0(0.05), Lq(0.1, 0.5)], ids=str)
def test_the_kernel_and_the_prox_of_the_prior_agree(prior: Prior, units: int, monkeypatch: pytest.MonkeyPatch) -> None:
    X, D = problem(n=5, units=units)
    ours = sparse_codes(X, D, prior, tol=1e-4)
    monkeypatch.setattr(dispatch, "NATIVE", None)
    plain = sparse_codes(X, D, prior, tol=1e-4)
    torch.testing.assert_close(ours.codes, plain.codes, atol=1e-9, rtol=0)
    assert torch.equal(ours.steps, plain.steps)


def test_a_user_s_prior_is_taken() -> None:
    X, D = problem()
    torch.testing.assert_close(sparse_codes(X, D, Mine(0.3)).codes, sparse_codes(X, D, L1(0.3)).codes)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), order=st.permutations(range(6)))
def test_a_code_depends_on_its_own_signal_alone(seed: int, order: list[int]) -> None:
    X, D = problem(n=6, units=12, features=8, seed=seed)
    together = sparse_codes(X, D, L1(0.2), tol=1e-8, max_iter=50_000).codes
    apart = sparse_codes(X[order], D, L1(0.2), tol=1e-8, max_iter=50_000).codes
    torch.testing.assert_close(apart, together[order], atol=1e-6, rtol=0)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_turning_signs_of_atoms_turns_signs_of_codes(seed: int) -> None:
    X, D = problem(n=4, units=12, features=8, seed=seed)
    signs = torch.where(torch.rand(12, generator=torch.Generator().manual_seed(seed), dtype=F64) < 0.5, -1.0, 1.0)
    torch.testing.assert_close(sparse_codes(X, D * signs[:, None], L0(0.05)).codes,
                               sparse_codes(X, D, L0(0.05)).codes * signs)


def test_orthonormal_atoms_are_thresholded_at_once() -> None:
    X, _ = problem(features=8)
    D = torch.linalg.qr(torch.randn(8, 8, dtype=F64)).Q
    for prior in (L1(0.3), L0(0.2), CEL0(0.2), Lq(0.2, 0.5)):
        torch.testing.assert_close(sparse_codes(X, D, prior, step=1.0).codes, prior.prox(X @ D.mT, 1.0))


def published_half(r: np.ndarray, t: float) -> np.ndarray:
    """Xu and others (2012): the minimiser of (u - r)^2 + t |u|^(1/2), as sparse coding papers write it."""
    edge, out = 54 ** (1 / 3) / 4 * t ** (2 / 3), np.zeros_like(r)
    far = np.abs(r) > edge
    phi = np.arccos(np.minimum(t / 8 * (np.abs(r[far]) / 3) ** -1.5, 1.0))
    out[far] = 2 / 3 * r[far] * (1 + np.cos(2 * np.pi / 3 - 2 / 3 * phi))
    return out


def test_scales_of_the_published_thresholds() -> None:
    """At a published lambda, hard and half thresholding are priors of weight lambda / 2, CEL0 one of weight lambda."""
    r, lam, eta = np.linspace(-2, 2, 401) + 1e-4, 0.27, 0.05
    x = torch.from_numpy(r)
    np.testing.assert_array_equal(L0(lam / 2).prox(x, eta).numpy(), np.where(np.abs(r) > np.sqrt(lam * eta), r, 0))
    np.testing.assert_allclose(Lq(lam / 2, 0.5).prox(x, eta).numpy(), published_half(r, lam * eta), atol=1e-9)
    firm = np.sign(r) * np.minimum(np.abs(r), np.maximum(np.abs(r) - np.sqrt(2 * lam) * eta, 0) / (1 - eta))
    np.testing.assert_allclose(CEL0(lam).prox(x, eta).numpy(), firm, atol=1e-12)
    assert not np.array_equal(L0(lam).prox(x, eta).numpy(), np.where(np.abs(r) > np.sqrt(lam * eta), r, 0))


@pytest.mark.parametrize("prior", [L1(1e-3), L0(10.0), CEL0(0.1), Lq(0.1, 0.5), MCP(1.0, 3.0), LogSum(0.1, 0.5)],
                         ids=str)
@pytest.mark.parametrize("active", [2.0, 9.0])
def test_a_weight_is_found_for_an_activity(prior: L1, active: float) -> None:
    X, D = problem(n=300, dtype=torch.float32)
    found = calibrate_weight(X, D, prior, active)
    assert type(found) is type(prior)
    assert sparse_codes(X, D, found).active == pytest.approx(active, rel=0.01)


def test_an_activity_between_two_jumps_is_refused() -> None:
    X, D = problem(n=1)
    with pytest.raises(ValueError, match=r"no weight gives 2.5 active units to within 1 %"):
        calibrate_weight(X, D, L1(0.3), 2.5)


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), weight=st.floats(0.05, 0.6))
def test_a_refit_leaves_residuals_orthogonal_to_its_support(seed: int, weight: float) -> None:
    X, D = problem(n=7, units=12, features=9, seed=seed)
    codes = sparse_codes(X, D, L1(weight)).codes
    again = refit(X, D, codes)
    assert torch.equal((again != 0) | (codes != 0), codes != 0)
    correlation = (X - again @ D) @ D.mT
    torch.testing.assert_close(correlation * (codes != 0), torch.zeros_like(codes), atol=1e-5, rtol=0)
    assert float((X - again @ D).square().sum()) <= float((X - codes @ D).square().sum()) + 1e-9


def test_a_refit_of_nothing_is_nothing() -> None:
    X, D = problem(n=3)
    assert not bool(refit(X, D, torch.zeros(3, 30, dtype=F64)).any())


def test_a_start_is_used_and_left_alone() -> None:
    X, D = problem()
    first = sparse_codes(X, D, L1(0.3), tol=1e-8, max_iter=20_000)
    kept = first.codes.clone()
    again = sparse_codes(X, D, L1(0.3), tol=1e-8, start=first.codes)
    assert int(again.steps.max()) == 1
    assert torch.equal(first.codes, kept)
    short = sparse_codes(X, D, L1(0.3), tol=0.0, max_iter=2)
    assert not bool(short.converged.any())
    assert short.steps.tolist() == [2] * 20


@pytest.mark.public_door
def test_bad_arguments_are_named() -> None:
    X, D = problem()
    nan = X.clone()
    nan[0, 0] = torch.nan
    for arguments, keywords, error, words in (
            ((X.numpy(), D, L1()), {}, TypeError, "X must be a torch.Tensor"),
            ((X.half(), D.half(), L1()), {}, TypeError, "X must be float32 or float64"),
            ((nan, D, L1()), {}, ValueError, "X holds NaN"),
            ((X[0], D, L1()), {}, ValueError, "X must have two axes"),
            ((X, D[:, :3], L1()), {}, ValueError, "as long as the signals, 16, got 3"),
            ((X, D.float(), L1()), {}, TypeError, "dictionary must be torch.float64"),
            ((X, D, "l1"), {}, TypeError, "prior must be a Prior, got str"),
            ((X, D, SLOPE(torch.linspace(1, 0.5, 30, dtype=F64))), {}, TypeError, "prior must be separable"),
            ((X, D, TV(0.1, dims=1)), {}, TypeError, "prior must be separable"),
            ((X, 2 * D, CEL0(0.1)), {}, ValueError, "CEL0's norm must be the norms of the atoms, from 2 to 2, got 1.0"),
            ((X, D, L1()), {"step": 10.0}, ValueError, "step must be below 2 / L"),
            ((X, D, L1()), {"step": 0.0}, ValueError, "step must be finite and positive"),
            ((X, D, L1()), {"max_iter": 0}, ValueError, "max_iter must be at least 1"),
            ((X, D, L1()), {"start": X}, ValueError, r"start must have shape \(20, 30\)")):
        with pytest.raises(error, match=words):
            sparse_codes(*arguments, **keywords)
    for arguments, error, words in (((X, D, NonNegative(), 3.0), TypeError, "must have a weight"),
                                    ((X, D, L1(), 30.0), ValueError, "below the number of units, 30"),
                                    ((X, D, L1(), 0.0), ValueError, "active must be finite and positive"),
                                    ((X, D, L1(0.0), 3.0), ValueError, "weight of prior must be positive")):
        with pytest.raises(error, match=words):
            calibrate_weight(*arguments)
    with pytest.raises(ValueError, match=r"codes must have shape \(20, 30\)"):
        refit(X, D, X)


def test_norms_of_atoms_that_are_not_one_are_taken_when_they_are_told() -> None:
    X, D = problem()
    scale = torch.linspace(0.5, 2, 30, dtype=F64)
    with_norms = sparse_codes(X, D * scale[:, None], CEL0(0.05, norm=scale), tol=1e-10, max_iter=50_000)
    assert bool(with_norms.converged.all())
    assert with_norms.active < 30


