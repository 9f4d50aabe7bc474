"""Best subsets beside exhaustive search and matching pursuit, and what holds whatever the data."""

from itertools import combinations

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import orthogonal_mp

from sparsepriors.operators import Matrix
from sparsepriors.regression import best_subset, best_subset_path

F64 = torch.float64


def drawn(n, p, seed, correlation=0.6):
    """Neighbouring columns that correlate, three of them in the model."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    for j in range(1, p):
        X[:, j] += correlation * X[:, j - 1]
    w = np.zeros(p)
    w[rng.choice(p, min(3, p), replace=False)] = 1, -2, 3
    return torch.from_numpy(X), torch.from_numpy(X @ w + rng.standard_normal(n))


def left(X, y, support):
    x = np.linalg.lstsq(X[:, list(support)].numpy(), y.numpy(), rcond=None)[0]
    return float(np.square(y.numpy() - X[:, list(support)].numpy() @ x).sum())


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 4))
def test_no_single_exchange_is_better(seed, k):
    X, y = drawn(20, 9, seed)
    found = best_subset(X, y, k)
    support = set(found.x.nonzero()[:, 0].tolist())
    assert found.converged
    assert float(found.extras["residual"]) == pytest.approx(left(X, y, support), rel=1e-8)
    for out in support:
        for into in set(range(9)) - support:
            assert left(X, y, support - {out} | {into}) >= left(X, y, support) * (1 - 1e-8)


def test_it_is_mostly_the_best_of_all():
    missed = 0
    for seed in range(20):
        X, y = drawn(15, 10, seed, correlation=0.9)
        best = min(left(X, y, s) for s in combinations(range(10), 3))
        missed += float(best_subset(X, y, 3).extras["residual"]) > best * (1 + 1e-9)
    assert missed <= 1


@settings(max_examples=8)
@given(seed=st.integers(0, 10_000))
def test_never_more_is_left_than_matching_pursuit_leaves(seed):
    X, y = drawn(20, 40, seed, correlation=0.9)
    X = X / torch.linalg.vector_norm(X, dim=0)
    for k, found in enumerate(best_subset_path(X, y, range(1, 7)), start=1):
        x = torch.from_numpy(orthogonal_mp(X.numpy(), y.numpy(), n_nonzero_coefs=k))
        assert float(found.extras["residual"]) <= float((y - X @ x).square().sum()) * (1 + 1e-9)


def test_the_residual_falls_with_the_size_and_the_path_is_its_points():
    X, y = drawn(40, 60, 3)
    path = list(best_subset_path(X, y, (2, 5, 9), intercept=True))
    assert [int(s.x.count_nonzero()) for s in path] == [2, 5, 9]
    residuals = path[-1].trace["residual"]
    assert all(b < a for a, b in zip(residuals, residuals[1:], strict=False))
    assert torch.equal(path[1].x, best_subset(X, y, 5, intercept=True).x)


@pytest.mark.parametrize("form", [Matrix, lambda X: scipy.sparse.csc_array(X.numpy()), lambda X: X.float().double()])
def test_every_form_of_the_design_and_weights(form):
    X, y = drawn(50, 20, 5)
    X = X.float().double()
    s = torch.rand(50, dtype=F64, generator=torch.Generator().manual_seed(0))
    want = best_subset(X, y, 4, weights=s, intercept=True)
    found = best_subset(form(X), y, 4, weights=s, intercept=True)
    torch.testing.assert_close(found.x, want.x, atol=1e-10, rtol=0)
    residual = (s * (X @ found.x + found.extras["intercept"] - y).square()).sum()
    torch.testing.assert_close(found.extras["residual"], residual)
    assert float((s * (X @ found.x + found.extras["intercept"] - y)).sum()) == pytest.approx(0, abs=1e-9)


def test_columns_that_depend_on_others_are_not_taken():
    X, y = drawn(30, 4, 1)
    X = torch.cat([X, X[:, :1] + X[:, 1:2], torch.zeros(30, 2, dtype=F64), X], dim=1)
    found = best_subset(X, y, 11)
    assert int(found.x.count_nonzero()) == 4
    assert float(found.extras["residual"]) == pytest.approx(left(X, y, range(4)), rel=1e-9)


def test_an_exact_fit_takes_no_more_columns():
    X, _ = drawn(30, 40, 2)
    found = best_subset(X, X[:, 3] - X[:, 7], 10)
    assert found.x.nonzero()[:, 0].tolist() == [3, 7]
    assert bool(torch.isfinite(found.extras["gic"]))


def test_small_and_empty_problems():
    one = torch.ones(1, dtype=F64)
    assert best_subset(torch.zeros(3, 0, dtype=F64), torch.ones(3, dtype=F64), 2).x.shape == (0,)
    assert float(best_subset(one[:, None] * 2, one, 5).x) == 0.5
    assert not bool(best_subset(torch.ones(4, 3, dtype=F64), torch.ones(4, dtype=F64), 0).x.any())
    assert not bool(best_subset(torch.ones(4, 3, dtype=F64), torch.arange(4.0), 2, intercept=True).x.any())


@pytest.mark.public_door
@pytest.mark.parametrize(("change", "error", "message"), [
    ({"A": torch.full((5, 3), torch.nan)}, ValueError, "A must be finite"),
    ({"y": torch.full((5,), torch.nan)}, ValueError, "y holds NaN"),
    ({"y": torch.ones(4)}, ValueError, "y must have an entry for each of the 5 rows"),
    ({"y": torch.ones(0)}, ValueError, "y must be a real vector on the CPU with an entry"),
    ({"A": "X"}, TypeError, "A must be a Matrix operator"),
    ({"k": -1}, ValueError, r"must be at least 0, got -1"),
    ({"k": 1.5}, TypeError, "must be an integer, got float"),
    ({"max_iter": 0}, ValueError, "max_iter must be at least 1"),
    ({"weights": torch.zeros(5)}, ValueError, "weights must have the shape"),
    ({"weights": -torch.ones(5)}, ValueError, "weights must be finite and nonnegative"),
])
def test_bad_input_is_named(change, error, message):
    words = {"A": torch.ones(5, 3), "y": torch.ones(5), "k": 2, **change}
    with pytest.raises(error, match=message):
        best_subset(words.pop("A"), words.pop("y"), words.pop("k"), **words)


@pytest.mark.public_door
def test_sizes_rise():
    with pytest.raises(ValueError, match="sizes must rise, got 2 after 3"):
        list(best_subset_path(torch.ones(5, 3), torch.ones(5), (3, 2)))
