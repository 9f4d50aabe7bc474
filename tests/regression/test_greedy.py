import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn.linear_model import OrthogonalMatchingPursuit as Theirs
from sklearn.utils.estimator_checks import parametrize_with_checks

from sparsepriors.regression import BestSubset, OrthogonalMatchingPursuit, SparseRegressor


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((120, 150)) + 3
    w = np.zeros(150)
    w[:4] = 2, -3, 1.5, 4
    return X, X @ w + 5 + 0.5 * rng.standard_normal(120)


@pytest.mark.public_door   # scikit-learn passes what annotations forbid, on purpose
@parametrize_with_checks([BestSubset(), BestSubset(k=2, fit_intercept=False), OrthogonalMatchingPursuit(),
                          OrthogonalMatchingPursuit(k=2)])
def test_scikit_learn_s_contract(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")   # what scikit-learn's own checks warn of
        check(estimator)


@pytest.mark.parametrize("model", [BestSubset(criterion="ebic"), OrthogonalMatchingPursuit(k=4)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_true_columns_are_found(data, model, dtype):
    X, y = data[0].astype(dtype), data[1].astype(dtype)
    model.fit(X, y)
    assert model.support_.tolist() == [0, 1, 2, 3]
    assert model.coef_.dtype == dtype
    assert np.abs(model.predict(X) - y).std() < 0.6


def test_the_criterion_is_least_at_the_true_number(data):
    model = BestSubset(criterion="ebic", max_k=12).fit(*data)
    assert model.k_ == 4 == int(model.criterion_path_.argmin())
    assert len(model.criterion_path_) == 13


@pytest.mark.parametrize("model", [BestSubset(k=6), OrthogonalMatchingPursuit(k=6)])
def test_the_scale_of_columns_and_the_storage_do_not_matter(data, model):
    scale = np.logspace(-6, 6, 150)
    X = np.where(np.abs(data[0] - 3) > 1, data[0], 0.0)
    want = model.fit(X, data[1]).coef_
    np.testing.assert_allclose(model.fit(X * scale, data[1]).coef_ * scale, want, atol=1e-7)
    np.testing.assert_allclose(model.fit(scipy.sparse.csr_matrix(X), data[1]).coef_, want, atol=1e-7)


@pytest.mark.parametrize("model", [BestSubset(k=5), OrthogonalMatchingPursuit(k=5)])
def test_a_weight_of_two_is_a_row_given_twice(data, model):
    X, y = data
    times = np.random.default_rng(1).integers(0, 3, len(y))
    a = model.fit(X, y, sample_weight=times).coef_.copy()
    np.testing.assert_allclose(model.fit(np.repeat(X, times, axis=0), np.repeat(y, times)).coef_, a, atol=1e-8)


def test_pursuit_is_scikit_learn_s_on_columns_of_one_norm(data):
    X = data[0] - data[0].mean(0)
    X = X / np.linalg.norm(X, axis=0)
    for k in (1, 5, 20):
        np.testing.assert_allclose(OrthogonalMatchingPursuit(k=k).fit(X, data[1]).coef_,
                                   Theirs(n_nonzero_coefs=k).fit(X, data[1]).coef_, atol=1e-8)


def test_pursuit_ends_at_its_tolerance(data):
    model = OrthogonalMatchingPursuit(k=50, tol=0.2).fit(*data)
    assert model.certificate_ <= 0.2
    assert len(model.support_) < 6


@pytest.mark.parametrize("model", [BestSubset(k=3), OrthogonalMatchingPursuit(k=3)])
def test_constant_columns_and_one_row(data, model):
    X = data[0][:, :5].copy()
    X[:, 2] = 1e6
    model.fit(X, data[1])
    assert model.coef_[2] == 0
    one = model.fit(X[:1], data[1][:1])
    assert not one.coef_.any()
    np.testing.assert_allclose(one.predict(X[:1]), data[1][:1])


@pytest.mark.public_door
@pytest.mark.parametrize(("kind", "parameters", "error", "message"), [
    (BestSubset, {"k": 0}, ValueError, "k must be at least 1"),
    (BestSubset, {"criterion": "bic"}, ValueError, "criterion must be one of 'gic', 'ebic'"),
    (BestSubset, {"max_k": 1.5}, TypeError, "max_k must be an integer"),
    (BestSubset, {"max_iter": 0}, ValueError, "max_iter must be at least 1"),
    (OrthogonalMatchingPursuit, {"k": 0}, ValueError, "k must be at least 1"),
    (OrthogonalMatchingPursuit, {"tol": 0.0}, ValueError, "tol must be finite and positive")])
def test_parameters_are_checked(data, kind, parameters, error, message):
    with pytest.raises(error, match=message):
        kind(**parameters).fit(*data)


def test_the_criterion_of_the_paper_takes_what_is_true_and_little_more():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((2000, 30))
    model = BestSubset().fit(X, X[:, :3] @ [1.0, -2.0, 0.5] + rng.standard_normal(2000))
    assert {0, 1, 2} <= set(model.support_)
    assert model.k_ <= 5


def test_a_subset_leaves_less_than_the_lasso_of_its_size(data):
    X, y = data
    lasso = SparseRegressor(alpha=0.3).fit(X, y)
    k = int(np.count_nonzero(lasso.coef_))
    assert np.square(y - BestSubset(k=k).fit(X, y).predict(X)).sum() < np.square(y - lasso.predict(X)).sum()
