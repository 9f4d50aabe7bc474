"""Kronecker-structured sparse Bayesian learning against the dense formulas, and what EM promises."""

from __future__ import annotations

import math
from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sparsepriors.operators import Kronecker
from sparsepriors.priors import KroneckerVariances
from sparsepriors.regression import kron_least_squares, kron_omp, kron_sbl, kron_sbl_cost
from sparsepriors.regression._evidence import Evidence
from sparsepriors.regression.kron_sbl import posterior

F64, C128 = torch.float64, torch.complex128
SVD, ROUNDS, SWEEP, COUPLED = (KroneckerVariances("svd"), KroneckerVariances(), KroneckerVariances("sweep"),
                               KroneckerVariances(coupling=(0.5, 0.0), inner_max=9))


def draw(sizes, seed, dtype=F64, batch=()):
    g = torch.Generator().manual_seed(seed)
    factors = [torch.randn(*batch, m, n, dtype=dtype, generator=g) for m, n in sizes]
    gammas = [torch.rand(*batch, n, dtype=F64, generator=g) * (torch.rand(*batch, n, generator=g) < 0.8)
              for _, n in sizes]
    y = torch.randn(*batch, *(m for m, _ in sizes), dtype=dtype, generator=g)
    return factors, gammas, y


def sparse(seed, batch=(), noise=0.05, dtype=F64, sizes=((6, 9), (7, 8), (6, 5)), nonzeros=2):
    """A problem with a product of supports, its truth and the variance of its noise."""
    g = torch.Generator().manual_seed(seed)
    count = math.prod(batch)
    factors = [torch.randn(count, m, n, dtype=dtype, generator=g) for m, n in sizes]
    x = torch.ones(count, *(1,) * len(sizes), dtype=dtype)
    supports = []
    for axis, (_, n) in enumerate(sizes):
        support = torch.rand(count, n, generator=g).argsort(1) < nonzeros
        values = (torch.randn(count, n, dtype=dtype, generator=g).sgn() + 0.3) * support
        x = x * values.reshape(count, *(n if i == axis else 1 for i in range(len(sizes))))
        supports.append(support.reshape((*batch, n)))
    y = torch.stack([Kronecker(tuple(a[i] for a in factors))(x[i]) for i in range(count)])
    y = y + noise * torch.randn(y.shape, dtype=dtype, generator=g)
    shaped = [a.reshape((*batch, *a.shape[1:])) for a in factors]
    return y.reshape((*batch, *y.shape[1:])), shaped, x.reshape((*batch, *x.shape[1:])), noise**2, supports


@given(sizes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=3),
       dtype=st.sampled_from((F64, C128)), noise=st.sampled_from((0.01, 1.0)), seed=st.integers(0, 99))
@settings(max_examples=40)
def test_posterior_and_cost_are_those_of_the_dense_matrix(sizes, dtype, noise, seed):
    factors, gammas, y = draw(sizes, seed, dtype)
    A = torch.from_numpy(reduce(np.kron, (a.numpy() for a in factors)))
    gamma = torch.from_numpy(reduce(np.kron, (g.numpy() for g in gammas)))
    want = Evidence.of(A, y.reshape(-1, 1)).posterior(gamma, noise)
    found = posterior(y[None], [a[None] for a in factors], [g[None] for g in gammas], torch.tensor([noise], dtype=F64))
    torch.testing.assert_close(found.mean.flatten(), want.mean[:, 0], atol=1e-8, rtol=1e-6)
    torch.testing.assert_close(found.variances.flatten(), want.variances, atol=1e-8, rtol=1e-6)
    assert float(found.cost) == pytest.approx(want.cost, rel=1e-8, abs=1e-7)
    assert float(kron_sbl_cost(y, factors, gammas, noise)) == pytest.approx(want.cost, rel=1e-8, abs=1e-7)
    after = float(found.next_noise(y[None], [a[None] for a in factors], [g[None] for g in gammas],
                                   torch.tensor([noise], dtype=F64)))
    want_noise = (want.residual + noise * float(want.determined.sum())) / y.numel()
    assert after == pytest.approx(want_noise, rel=1e-6, abs=1e-9)


@given(seed=st.integers(0, 99), dtype=st.sampled_from((F64, C128)), known=st.booleans(),
       prior=st.sampled_from((ROUNDS, SWEEP)))
@settings(max_examples=12)
def test_the_objective_never_rises(seed, dtype, known, prior):
    y, factors, _, noise, _ = sparse(seed, (), 0.2, dtype, ((4, 5), (3, 4)))
    found = kron_sbl(y, factors, prior, noise_var=noise if known else None, max_iter=40, tol=1e-9)
    costs = found.trace["objective"]
    assert all(b <= a + 1e-9 * abs(a) for a, b in pairwise(costs))
    gammas = [found.extras[f"gamma_{i}"] for i in (1, 2)]
    assert float(kron_sbl_cost(y, factors, gammas, found.extras["noise_var"])) <= costs[-1] + 1e-9 * abs(costs[-1])


def test_alternating_em_converges_to_a_stationary_point_of_the_cost():
    y, factors, _, noise, _ = sparse(1, (), 0.2, F64, ((5, 4), (4, 3)), nonzeros=4)    # entries that vanish are slow
    found = kron_sbl(y, factors, KroneckerVariances(inner_tol=1e-10), noise_var=noise, max_iter=400, tol=1e-13)
    logs = [found.extras[f"gamma_{i}"].log().requires_grad_() for i in (1, 2)]
    A = torch.kron(*factors)
    S = noise * torch.eye(20, dtype=F64) + (A * torch.kron(*(g.exp() for g in logs))) @ A.mT
    cost = torch.logdet(S) + y.flatten() @ torch.linalg.solve(S, y.flatten())
    slopes = torch.autograd.grad(cost, logs)
    assert max(float(s.abs().max()) for s in slopes) < 1e-4


@pytest.mark.parametrize(("prior", "prune"), [(SVD, 1e-3), (ROUNDS, 1e-2), (SWEEP, 1e-2)])
@pytest.mark.parametrize("dtype", [F64, C128])
@pytest.mark.parametrize("known", [True, False])
def test_it_recovers_what_least_squares_on_the_true_support_would(prior, prune, dtype, known):
    y, factors, x, noise, supports = sparse(3, (4,), 0.05, dtype)
    found = kron_sbl(y, factors, prior, noise_var=noise if known else None, prune=prune)
    oracle = kron_least_squares(y, factors, supports)
    errors = (found.x - x).flatten(1).norm(dim=1) / (oracle - x).flatten(1).norm(dim=1)
    assert float(errors.median()) < 3
    if not known:
        torch.testing.assert_close(found.extras["noise_var"], torch.full((4,), noise, dtype=F64), rtol=0.35, atol=0)


def test_coupling_helps_blocks():
    g = torch.Generator().manual_seed(0)
    A, B = torch.randn(30, 10, 24, dtype=F64, generator=g), torch.randn(30, 4, 5, dtype=F64, generator=g)
    x = torch.zeros(30, 24, 5, dtype=F64)
    for i in range(30):
        x[i, i % 18:i % 18 + 6, i % 5] = torch.randn(6, dtype=F64, generator=g)
    y = A @ x @ B.mT
    y = y + 0.3 * torch.randn(y.shape, dtype=F64, generator=g)
    errors = []
    for coupling in (None, (0.8, 0.0)):
        prior = KroneckerVariances(coupling=coupling, inner_tol=1e-4, inner_max=9)
        found = kron_sbl(y, (A, B), prior, noise_var=0.09, prune=1e-2)
        errors.append(float(((found.x - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)).mean()))
    assert errors[1] < 0.85 * errors[0]


@pytest.mark.parametrize("prior", [SVD, ROUNDS, COUPLED])
def test_items_of_a_batch_do_not_know_of_one_another(prior):
    y, factors, *_ = sparse(5, (2, 2), 0.1, C128, ((4, 5), (3, 4)))
    noise = torch.tensor([[0.01, 0.02], [0.03, 0.04]], dtype=F64)
    together = kron_sbl(y, factors, prior, noise_var=noise, prune=1e-2, tol=1e-3)
    assert together.extras["iterations"].unique().numel() > 1
    for i in range(2):
        for j in range(2):
            alone = kron_sbl(y[i, j], [a[i, j] for a in factors], prior, noise_var=float(noise[i, j]), prune=1e-2,
                             tol=1e-3)
            torch.testing.assert_close(together.x[i, j], alone.x)
            assert int(together.extras["iterations"][i, j]) == alone.iterations
    shared = kron_sbl(y, [a[0, 0] for a in factors], prior, noise_var=0.01)
    torch.testing.assert_close(shared.x[0, 0], kron_sbl(y[0, 0], [a[0, 0] for a in factors], prior, noise_var=0.01).x)


class _Largest(TorchDispatchMode):
    """Entries of the largest tensor that any operation makes."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.entries = max(self.entries, *(t.numel() for t in tree_leaves(out) if isinstance(t, Tensor)), 0)
        return out


@pytest.mark.parametrize("prior", [SVD, ROUNDS])
def test_memory_is_that_of_the_unknown_not_of_the_matrix(prior):
    g = torch.Generator().manual_seed(0)
    factors = [torch.randn(10, 24, dtype=F64, generator=g) for _ in range(3)]
    with _Largest() as seen:
        kron_sbl(torch.randn(10, 10, 10, dtype=F64, generator=g), factors, prior, max_iter=3)
    assert seen.entries <= 24**3    # the matrix would have 24^3 10^3 entries, a covariance 24^6


def test_flat_measurements_are_those_of_numpy_kron():
    _, factors, *_ = sparse(2)
    A = torch.from_numpy(reduce(np.kron, (a.numpy() for a in factors)))
    x = torch.randn(9, 8, 5, dtype=F64)
    flat = kron_sbl(A @ x.flatten(), factors, SVD, noise_var=0.1)
    torch.testing.assert_close(flat.x, kron_sbl(Kronecker(tuple(factors))(x), factors, SVD, noise_var=0.1).x)
    assert flat.x.shape == x.shape


def test_pruning_keeps_the_largest_and_what_is_pruned_stays_zero():
    y, factors, *_ = sparse(4)
    found = kron_sbl(y, factors, SVD, noise_var=0.0025, prune=(0.9, 0.5, 0.0), prune_below=1e-3)
    assert int((found.extras["gamma_1"] > 0).sum()) >= 1
    assert float(found.x[found.extras["gamma_1"] == 0].abs().max()) == 0


@pytest.mark.parametrize("prior", [SVD, ROUNDS, SWEEP])
def test_the_largest_entry_of_a_factor_is_never_pruned(prior):
    y, factors, _, noise, _ = sparse(4)
    # At the start all entries are the largest; the threshold, which none reaches, bites in the second iteration.
    first, second = (kron_sbl(y, factors, prior, noise_var=noise, prune_below=1e9, max_iter=n) for n in (1, 2))
    for i, n in enumerate((9, 8, 5), 1):
        before, after = first.extras[f"gamma_{i}"], second.extras[f"gamma_{i}"]
        assert int(before.count_nonzero()) == n
        assert after.nonzero().flatten().tolist() == [int(before.argmax())]
    assert int(second.x.count_nonzero()) == 1


def test_the_callback_stops_it_and_the_precision_is_the_arguments_own():
    y, factors, *_ = sparse(0, (2,))
    seen = []
    found = kron_sbl(y.float(), [a.float() for a in factors], SVD,
                     callback=lambda s: bool(seen.append(s)) or len(seen) == 3)
    assert found.iterations == 3 == len(seen)
    assert not found.converged
    assert found.x.dtype == found.extras["gamma_1"].dtype == torch.float32
    assert seen[0].x.shape == found.x.shape
    mixed = kron_sbl(y.to(C128), factors, SVD, noise_var=0.1)
    torch.testing.assert_close(mixed.x.imag, torch.zeros_like(mixed.x.imag))


def test_it_starts_where_it_is_told():
    y, factors, _, noise, _ = sparse(0)
    first = kron_sbl(y, factors, noise_var=noise, max_iter=20, tol=1e-12)
    gammas = [first.extras[f"gamma_{i}"] for i in (1, 2, 3)]
    again = kron_sbl(y, factors, noise_var=noise, start=gammas, max_iter=5, tol=1e-12)
    whole = kron_sbl(y, factors, noise_var=noise, max_iter=25, tol=1e-12)
    torch.testing.assert_close(again.x, whole.x, rtol=1e-5, atol=1e-7)


def test_nothing_is_found_in_nothing_and_no_items_give_no_items():
    _, factors, *_ = sparse(0)
    for prior in (SVD, ROUNDS):
        assert float(kron_sbl(torch.zeros(6, 7, 6), factors, prior).x.abs().max()) == 0
    assert kron_sbl(torch.zeros(0, 6, 7, 6), factors).x.shape == (0, 9, 8, 5)


@pytest.mark.parametrize("dtype", [F64, C128])
def test_matching_pursuit_finds_a_clean_support(dtype):
    _, factors, x, _, supports = sparse(0, (5,), 0.0, dtype, ((9, 8), (7, 7), (6, 5)), nonzeros=3)
    factors = [torch.linalg.qr(a).Q for a in factors]
    y = torch.stack([Kronecker(tuple(a[i] for a in factors))(x[i]) for i in range(5)])
    found = kron_omp(y, factors, tol=1e-6)
    assert found.converged
    torch.testing.assert_close(found.x, x, atol=1e-8, rtol=0)
    for i in range(5):
        torch.testing.assert_close(kron_omp(y[i], [a[i] for a in factors], tol=1e-6).x, found.x[i])
    torch.testing.assert_close(found.x, kron_least_squares(y, factors, supports))


def test_matching_pursuit_stops_where_the_noise_begins():
    y, factors, _, noise, _ = sparse(1, (5,), 0.3)
    told = kron_omp(y, factors, noise_var=noise)
    untold = kron_omp(y, factors)
    assert (told.x != 0).sum() < (untold.x != 0).sum()
    one = kron_omp(y, factors, most=(1, 2, 1), tol=1e-9)
    assert not one.converged
    assert ((one.x != 0).flatten(1).sum(1) <= 2).all()
    silent = kron_omp(torch.zeros(6, 7, 6), [a[0] for a in factors])
    assert silent.iterations == 0
    assert silent.converged


@given(seed=st.integers(0, 99), dtype=st.sampled_from((F64, C128)))
@settings(max_examples=20)
def test_least_squares_on_a_support_is_numpys(seed, dtype):
    y, factors, _, _, supports = sparse(seed, (), 1.0, dtype, ((3, 4), (4, 4)))
    A = np.kron(*(a.numpy() for a in factors))
    where = np.kron(*(s.numpy() for s in supports)).astype(bool)
    want = np.zeros(16, dtype=A.dtype)
    want[where] = np.linalg.lstsq(A[:, where], y.numpy().ravel(), rcond=None)[0]
    np.testing.assert_allclose(kron_least_squares(y, factors, supports).numpy().ravel(), want, atol=1e-8)


A0, Y0 = [torch.eye(2), torch.ones(3, 4)], torch.ones(2, 3)


@pytest.mark.public_door
@pytest.mark.parametrize(("change", "error", "message"), [
    ({"y": torch.ones(3, 2)}, ValueError, r"y must have shape \(\.\.\., 2, 3\), or flattened \(\.\.\., 6\)"),
    ({"y": Y0 * math.nan}, ValueError, "y holds NaN"),
    ({"y": [1.0]}, TypeError, "y must be a torch.Tensor"),
    ({"factors": []}, TypeError, "factors must be a non-empty sequence"),
    ({"factors": [torch.eye(2), torch.ones(3)]}, ValueError, r"factors\[1\] must be a matrix"),
    ({"factors": [torch.eye(2), torch.ones(3, 0)]}, ValueError, r"factors\[1\] must have no empty axis"),
    ({"factors": [torch.eye(2), torch.ones(3, 4) / 0]}, ValueError, r"factors\[1\] holds NaN or infinite"),
    ({"factors": [torch.ones(5, 2, 2), torch.ones(3, 4)]}, ValueError, r"factors\[0\] must have the batch axes of y"),
    ({"prior": "svd"}, TypeError, "prior must be KroneckerVariances, got str"),
    ({"prior": COUPLED, "factors": [torch.eye(6)], "y": torch.ones(6)}, ValueError, "coupling must have one number"),
    ({"noise_var": 0.0}, ValueError, "noise_var must be finite and positive"),
    ({"noise_var": torch.tensor([-1.0])}, ValueError, "noise_var must be finite and positive"),
    ({"noise_var": torch.ones(3)}, ValueError, "noise_var must be a number or have the batch shape"),
    ({"prune": 1.0}, ValueError, "prune must be below 1"),
    ({"prune": (0.1,)}, ValueError, "prune must be one share or one for each of 2 axes"),
    ({"prune": -0.1}, ValueError, "prune must be finite and nonnegative"),
    ({"prune_below": -1.0}, ValueError, "prune_below must be"),
    ({"start": [torch.ones(2)]}, ValueError, "start must have one entry for each of 2 axes"),
    ({"start": [torch.ones(2), torch.ones(3)]}, ValueError, r"start\[1\] must have shape \(4,\)"),
    ({"start": [torch.ones(2), -torch.ones(4)]}, ValueError, r"start\[1\] must be finite and nonnegative"),
    ({"max_iter": 0}, ValueError, "max_iter must be at least 1"),
    ({"tol": -1.0}, ValueError, "tol must be finite and positive"),
    ({"callback": 3}, TypeError, "callback must be callable"),
])
def test_bad_input_is_named(change, error, message):
    words = {"y": Y0, "factors": A0, "noise_var": 0.1, **change}
    with pytest.raises(error, match=message):
        kron_sbl(words.pop("y"), words.pop("factors"), words.pop("prior", None), **words)


@pytest.mark.public_door
def test_numbers_beyond_float64_are_an_error_not_an_answer():
    huge = [torch.full((2, 2), 1e200, dtype=F64)] * 2
    with pytest.raises((FloatingPointError, RuntimeError)):
        kron_sbl(torch.ones(2, 2, dtype=F64), huge, noise_var=1.0)


@pytest.mark.public_door
def test_the_greedy_doors_name_bad_input():
    with pytest.raises(ValueError, match="supports must have one entry for each of 2 axes"):
        kron_least_squares(Y0, A0, [torch.ones(2, dtype=torch.bool)])
    with pytest.raises(ValueError, match=r"supports\[1\] must have shape \(4,\)"):
        kron_least_squares(Y0, A0, [torch.ones(2, dtype=torch.bool), torch.ones(3, dtype=torch.bool)])
    with pytest.raises(TypeError, match=r"supports\[0\] must be a boolean tensor"):
        kron_least_squares(Y0, A0, [torch.ones(2), torch.ones(4)])
    with pytest.raises(ValueError, match="most must be one number or one for each of 2 axes"):
        kron_omp(Y0, A0, most=(1,))
    with pytest.raises(ValueError, match="most must be at least 1"):
        kron_omp(Y0, A0, most=0)
    with pytest.raises(ValueError, match="noise_var must be a number or have the batch shape"):
        kron_omp(Y0, A0, noise_var=torch.ones(4))
    with pytest.raises(ValueError, match="tol must be finite and positive"):
        kron_omp(Y0, A0, tol=0.0)
