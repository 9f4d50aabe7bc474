import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import MultiTaskLasso

from sparsepriors.operators import Matrix
from sparsepriors.priors import L1, MCP, ElasticNet, GroupL2, Groups, Partition
from sparsepriors.regression import coordinate_descent, largest_factor, regularization_path
from sparsepriors.solvers import proximal_gradient


def problem(n, p, seed, tasks=None):
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(n, p, dtype=torch.float64, generator=g)
    w = torch.randn(p, *([tasks] if tasks else []), dtype=torch.float64, generator=g)
    w[p // 3:] = 0
    y = X @ w
    return X, y + 0.3 * torch.randn(y.shape, dtype=torch.float64, generator=g)


@settings(max_examples=15)
@given(seed=st.integers(0, 99), strength=st.floats(0.03, 0.8), ridge=st.sampled_from([0.0, 0.3]))
def test_group_lasso_is_what_proximal_gradient_finds(seed, strength, ridge):
    X, y = problem(30, 24, seed)
    labels = torch.randint(0, 6, (24,), generator=torch.Generator().manual_seed(seed))
    labels[:6] = torch.arange(6)
    prior = Partition(ElasticNet(torch.linspace(0.5, 2, 6, dtype=torch.float64), ridge=ridge), labels)
    prior = prior * (strength * largest_factor(X, y, prior))
    found = coordinate_descent(X, y, prior, tol=1e-10, max_iter=300)
    assert found.converged
    want = proximal_gradient(Matrix(X), y, prior, tol=1e-11, max_iter=20000).x
    torch.testing.assert_close(found.x, want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sparse", [False, True])
def test_rows_as_groups_are_the_multi_task_lasso(sparse):
    X, Y = problem(40, 60, 1, tasks=3)
    X = torch.where(X.abs() > 1, X + 0.5, 0.0)
    Y = Y + torch.tensor([0.0, 1.0, -2.0], dtype=torch.float64)
    top = largest_factor(X, Y, GroupL2(axis=-1), intercept=True)
    design = scipy.sparse.csc_array(X.numpy()) if sparse else X
    factors = [top / 3, top / 30]
    for factor, found in zip(factors, regularization_path(design, Y, GroupL2(axis=-1), factors, intercept=True,
                                                          tol=1e-12), strict=True):
        model = MultiTaskLasso(alpha=factor / 40, tol=1e-13, max_iter=100000).fit(X.numpy(), Y.numpy())
        np.testing.assert_allclose(found.x.numpy(), model.coef_.T, atol=1e-5)
        np.testing.assert_allclose(found.extras["intercept"].numpy(), model.intercept_, atol=1e-5)
        assert found.converged


@settings(max_examples=10)
@given(seed=st.integers(0, 99), strength=st.floats(0.02, 0.3), ridge=st.sampled_from([0.0, 0.3]), sparse=st.booleans())
def test_more_columns_in_groups_than_rows(seed, strength, ridge, sparse):
    """The working set passes from its Gram matrix to its columns; sizes of groups differ, one column is zero."""
    X, y = problem(20, 80, seed)
    X = torch.where(X.abs() > 0.5, X, 0.0)
    X[:, 7] = 0
    labels = torch.cat([torch.zeros(9, dtype=torch.int64), torch.arange(71) // 3 + 1])
    weights = torch.linspace(0.5, 2, 25, dtype=torch.float64)
    prior = Partition(ElasticNet(weights, ridge=ridge), labels)
    prior = prior * (strength * largest_factor(X, y, prior, intercept=True))
    design = scipy.sparse.csc_array(X.numpy()) if sparse else X
    found = coordinate_descent(design, y, prior, intercept=True, tol=1e-11, max_iter=300)
    assert found.converged
    assert found.trace["working_set"][-1] > 20
    centred = X - X.mean(0)
    want = proximal_gradient(Matrix(centred), y - y.mean(), prior, tol=1e-11, max_iter=20000).x
    torch.testing.assert_close(centred @ found.x, centred @ want, atol=1e-4, rtol=0)
    objective = [float(0.5 * (y - y.mean() - centred @ x).square().sum() + prior.value(x)) for x in (found.x, want)]
    assert objective[0] <= objective[1] * (1 + 1e-9)


@settings(max_examples=10)
@given(seed=st.integers(0, 99), tasks=st.sampled_from([None, 3]))
def test_a_fixed_point_with_more_columns_than_rows(seed, tasks):
    X, y = problem(12, 40, seed, tasks)
    prior = Groups(MCP(1.0, gamma=3.0), axis=-1) if tasks else Partition(MCP(1.0, gamma=3.0), torch.arange(40) // 2)
    prior = prior * 0.2
    found = coordinate_descent(X, y, prior, tol=1e-9, max_iter=500)
    assert found.converged
    blocks = torch.arange(40)[:, None] if tasks else torch.arange(40).reshape(20, 2)
    for members in blocks:
        top = float(torch.linalg.matrix_norm(X[:, members], 2)) ** 2
        to = found.x.clone()
        to[members] += X[:, members].mT @ (y - X @ found.x) / top
        moved = prior.prox(to, 1 / top)[members]
        assert top * float((moved - found.x[members]).norm()) <= 1e-6 * float((X.mT @ y).norm())


@settings(max_examples=15)
@given(seed=st.integers(0, 99))
def test_a_penalty_of_norms_that_is_not_convex_ends_at_a_fixed_point(seed):
    X, Y = problem(30, 20, seed, tasks=2)
    prior = Groups(MCP(1.0, gamma=3.0), axis=-1) * 2.0
    found = coordinate_descent(X, Y, prior, tol=1e-9, max_iter=300)
    assert found.converged
    lengths = X.square().sum(0)
    for j in range(20):
        q = X[:, j] @ (Y - X @ found.x)
        moved = prior.prox((found.x[j] + q / lengths[j])[None], 1 / float(lengths[j]))[0]
        assert float(lengths[j] * (moved - found.x[j]).norm()) <= 1e-6 * float((X.T @ Y).norm(dim=1).max())


def test_weights_are_repeated_rows_and_groups_of_one_are_the_lasso():
    X, Y = problem(20, 30, 3, tasks=2)
    counts = torch.arange(20).double() % 3
    more, again = (v.repeat_interleave(counts.long(), 0) for v in (X, Y))
    prior = GroupL2(2.0, axis=-1)
    a = coordinate_descent(X, Y, prior, weights=counts, intercept=True, tol=1e-12)
    b = coordinate_descent(more, again, prior, intercept=True, tol=1e-12)
    torch.testing.assert_close(a.x, b.x, atol=1e-5, rtol=0)
    alone = coordinate_descent(X, Y[:, 0], Partition(L1(1.5), torch.arange(30)), tol=1e-12)
    torch.testing.assert_close(alone.x, coordinate_descent(X, Y[:, 0], L1(1.5), tol=1e-12).x, atol=1e-6, rtol=0)
    none = coordinate_descent(X[:, :0], Y, prior)
    assert none.converged
    assert none.x.shape == (0, 2)


@pytest.mark.public_door
@pytest.mark.parametrize(("prior", "tasks", "error", "message"), [
    (GroupL2(axis=0), 2, TypeError, "axis=-1, of a coefficient matrix"),
    (L1(), 2, TypeError, "got L1 for coefficients of shape"),
    (Partition(L1(), torch.zeros(3, dtype=torch.int64)), None, ValueError, "a last axis of 3 entries"),
])
def test_groups_that_do_not_fit_are_named(prior, tasks, error, message):
    X, y = problem(6, 4, 0, tasks)
    with pytest.raises(error, match=message):
        coordinate_descent(X, y, prior)
