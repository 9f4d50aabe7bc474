import warnings
from typing import Any

import joblib
import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso, LassoCV, MultiTaskLasso, MultiTaskLassoCV
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import sparsepriors.regression
from sparsepriors.priors import L1, MCP, SLOPE, ElasticNet, GroupL2, Groups, Huber, Partition
from sparsepriors.regression import SparseRegressor, SparseRegressorCV


def falling(p):
    return torch.linspace(1.0, 0.5, p, dtype=torch.float64)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 120))
    w = np.zeros(120)
    w[:4] = 2, -3, 1.5, 4
    return X, X @ w + 5 + 0.5 * rng.standard_normal(60)


@pytest.mark.public_door   # scikit-learn passes what annotations forbid, on purpose
@parametrize_with_checks([SparseRegressor(alpha=0.1), SparseRegressor(MCP(), alpha=0.1),
                          SparseRegressorCV(n_alphas=3, cv=2), SparseRegressor(ElasticNet(), alpha=0.1),
                          SparseRegressor(GroupL2(axis=-1), alpha=0.1),
                          SparseRegressorCV(GroupL2(axis=-1), n_alphas=3, cv=2, tol=1e-13)])
def test_scikit_learn_s_contract(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")   # what scikit-learn's own checks warn of
        check(estimator)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_default_is_the_lasso(data, weighted, dtype):
    X, y = data[0].astype(dtype), data[1].astype(dtype)
    s = np.random.default_rng(1).random(len(y)) + 0.1 if weighted else None
    ours = SparseRegressor(alpha=0.3, tol=1e-10 if dtype == np.float64 else 1e-6).fit(X, y, s)
    theirs = Lasso(alpha=0.3, tol=1e-10, max_iter=10000).fit(X.astype(float), y.astype(float), s)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-4 if dtype == np.float32 else 1e-6)
    assert ours.coef_.dtype == dtype
    assert ours.intercept_ == pytest.approx(theirs.intercept_, abs=1e-3)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X.astype(float)), atol=1e-2)
    assert ours.certificate_ <= ours.tol
    assert ours.sparse_coef_.nnz == np.count_nonzero(ours.coef_)


def test_sparse_designs_give_the_same_model(data):
    X = np.where(np.abs(data[0]) > 1, data[0] + 1, 0.0)
    a = SparseRegressor(alpha=0.1, tol=1e-10).fit(X, data[1])
    b = SparseRegressor(alpha=0.1, tol=1e-10).fit(scipy.sparse.csr_matrix(X), data[1])
    np.testing.assert_allclose(a.coef_, b.coef_, atol=1e-8)
    np.testing.assert_allclose(a.predict(X), b.predict(scipy.sparse.csr_matrix(X)), atol=1e-6)


def test_any_prior_makes_an_estimator(data):
    X, y = data
    model = SparseRegressor(SLOPE(falling(120)), alpha=0.05, tol=1e-8).fit(X, y)
    assert set(np.argsort(-np.abs(model.coef_))[:4]) == {0, 1, 2, 3}
    with pytest.raises(TypeError, match="X must be dense"):
        SparseRegressor(SLOPE(falling(120)), alpha=0.05).fit(scipy.sparse.csr_matrix(X), y)


@pytest.mark.parametrize("prior", [L1(), SLOPE(falling(120))])
def test_a_path_holds_the_fits_of_its_strengths(data, prior):
    X, y = data
    model = SparseRegressor(prior, tol=1e-9, max_iter=300)
    alphas, coefs, certificates = model.path(X, y, n_alphas=4, eps=0.1)
    assert not hasattr(model, "coef_")
    assert not coefs[:, 0].any()
    assert coefs.shape == (120, 4)
    assert (certificates <= 1e-9).all()
    for a, w in zip(alphas, coefs.T, strict=True):
        alone = SparseRegressor(prior, alpha=a, tol=1e-9, max_iter=300).fit(X, y)
        np.testing.assert_allclose(alone.coef_, w, atol=1e-5)
    given = model.path(X, y, alphas=[0.1, 0.4])[0]
    assert given.tolist() == [0.4, 0.1]


def test_robust_and_grouped_fits(data):
    X, y = data[0], data[1].copy()
    y[::10] += 40   # gross errors
    robust = SparseRegressor(alpha=0.15, loss=Huber(delta=0.5)).fit(X, y)
    assert set(np.argsort(-np.abs(robust.coef_))[:4]) == {0, 1, 2, 3}
    assert abs(robust.intercept_ - 5) < 1
    assert 0 <= robust.dual_gap_ < 1e-4
    grouped = SparseRegressor(Partition(L1(), torch.arange(120) // 4), alpha=0.5).fit(*data)
    assert set(grouped.coef_.nonzero()[0]) == {0, 1, 2, 3}
    assert SparseRegressor(MCP(), alpha=0.3).fit(*data).dual_gap_ == np.inf
    with pytest.raises(TypeError, match="loss must be None"):
        SparseRegressor(SLOPE(falling(120)), loss=Huber()).fit(X, y)
    with pytest.raises(TypeError, match="got SLOPE for a response of shape"):
        SparseRegressorCV(SLOPE(falling(120))).fit(X, y)


def test_proximal_gradient_and_coordinate_descent_agree(data, monkeypatch):
    X, y = data
    s = np.random.default_rng(2).random(len(y))
    want = SparseRegressor(ElasticNet(1.0, ridge=0.5), alpha=0.2, tol=1e-12).fit(X, y, s)

    monkeypatch.setattr("sparsepriors.regression.estimators.by_columns", lambda prior, shape: False)
    got = SparseRegressor(ElasticNet(1.0, ridge=0.5), alpha=0.2, tol=1e-9).fit(X, y, s)
    np.testing.assert_allclose(got.coef_, want.coef_, atol=1e-5)
    assert got.intercept_ == pytest.approx(want.intercept_, abs=1e-6)


def test_cross_validation_agrees_with_scikit_learn(data):
    X, y = data
    ours = SparseRegressorCV(n_alphas=8, eps=0.05, tol=1e-9, cv=3).fit(X, y)
    theirs = LassoCV(alphas=8, eps=0.05, tol=1e-9, cv=3, max_iter=20000).fit(X, y)
    np.testing.assert_allclose(ours.alphas_, theirs.alphas_, rtol=1e-9)
    np.testing.assert_allclose(ours.mse_path_, theirs.mse_path_, rtol=1e-4)
    assert ours.alpha_ == pytest.approx(theirs.alpha_)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)
    with joblib.parallel_config(backend="threading"):
        parallel = SparseRegressorCV(n_alphas=8, eps=0.05, tol=1e-9, cv=3, n_jobs=2).fit(X, y)
    assert np.array_equal(parallel.mse_path_, ours.mse_path_)


@pytest.fixture(scope="module")
def tasks(data):
    rng = np.random.default_rng(3)
    W = np.zeros((120, 3))
    W[:5] = rng.standard_normal((5, 3)) * 3
    return data[0], data[0] @ W + np.array([5.0, -1.0, 0.0]) + 0.5 * rng.standard_normal((60, 3))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_several_responses_are_the_multi_task_lasso(tasks, dtype):
    X, Y = tasks[0].astype(dtype), tasks[1].astype(dtype)
    ours = SparseRegressor(GroupL2(axis=-1), alpha=0.3, tol=1e-10 if dtype == np.float64 else 1e-6).fit(X, Y)
    theirs = MultiTaskLasso(alpha=0.3, tol=1e-10, max_iter=10000).fit(X.astype(float), Y.astype(float))
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-3 if dtype == np.float32 else 1e-6)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-3)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X.astype(float)), atol=1e-2)
    assert ours.coef_.dtype == dtype
    assert ours.score(X, Y) > 0.9
    assert ours.sparse_coef_.shape == (3, 120)
    again = SparseRegressor(GroupL2(axis=-1), alpha=0.3, tol=1e-6, warm_start=True).fit(X, Y)
    assert again.fit(X, Y).n_iter_ == 1


def test_rows_of_a_concave_prior_and_weights_for_several_responses(tasks):
    X, Y = tasks
    counts = np.arange(60) % 3
    prior = Groups(MCP(gamma=3.0), axis=-1) * 2.0
    a = SparseRegressor(prior, alpha=0.1, tol=1e-10).fit(X, Y, counts)
    b = SparseRegressor(prior, alpha=0.1, tol=1e-10).fit(np.repeat(X, counts, 0), np.repeat(Y, counts, 0))
    np.testing.assert_allclose(a.coef_, b.coef_, atol=1e-5)
    assert (a.coef_.any(axis=0) == a.coef_.all(axis=0)).all()   # a feature serves all responses or none
    with pytest.raises(ValueError, match="1d array"):
        SparseRegressor(alpha=0.1).fit(X, Y)


def test_path_and_cross_validation_of_several_responses(tasks):
    X, Y = tasks
    ours = SparseRegressorCV(GroupL2(axis=-1), n_alphas=6, eps=0.05, tol=1e-9, cv=3).fit(X, Y)
    theirs = MultiTaskLassoCV(alphas=6, eps=0.05, tol=1e-9, cv=3, max_iter=20000).fit(X, Y)
    np.testing.assert_allclose(ours.alphas_, theirs.alphas_, rtol=1e-9)
    np.testing.assert_allclose(ours.mse_path_, theirs.mse_path_, rtol=1e-4)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)
    alphas, coefs, _ = SparseRegressor(GroupL2(axis=-1), tol=1e-9).path(X, Y, alphas=[0.5, 0.2])
    assert coefs.shape == (3, 120, 2)
    np.testing.assert_allclose(coefs[..., 1], MultiTaskLasso(alpha=0.2, tol=1e-10, max_iter=9999).fit(X, Y).coef_,
                               atol=1e-5)
    assert alphas.tolist() == [0.5, 0.2]


def test_it_composes_with_scikit_learn(data):
    search = GridSearchCV(make_pipeline(StandardScaler(), SparseRegressor(MCP(gamma=3.0))),
                          {"sparseregressor__alpha": [0.1, 0.3, 1.0], "sparseregressor__prior": [L1(), MCP(gamma=3.0)]},
                          cv=3).fit(*data)
    assert search.best_score_ > 0.9
    best: Any = clone(search.best_estimator_)
    assert best["sparseregressor"].alpha == search.best_params_["sparseregressor__alpha"]


def test_a_warm_start_begins_where_the_last_fit_ended(data):
    model = SparseRegressor(alpha=0.2, warm_start=True).fit(*data)
    first = model.coef_
    assert model.fit(*data).n_iter_ == 1
    np.testing.assert_array_equal(model.coef_, first)


def test_an_unconverged_fit_warns(data):
    with pytest.warns(ConvergenceWarning, match="stopped after max_iter = 1 rounds at a certificate"):
        SparseRegressor(alpha=0.01, max_iter=1, tol=1e-12).fit(*data)


@pytest.mark.public_door
@pytest.mark.parametrize(("kind", "parameters", "error", "message"), [
    (SparseRegressor, {"prior": "l1"}, TypeError, "prior must be a Prior, got str"),
    (SparseRegressor, {"alpha": 0}, ValueError, "alpha"),
    (SparseRegressor, {"tol": -1}, ValueError, "tol"),
    (SparseRegressor, {"max_iter": 0}, ValueError, "max_iter"),
    (SparseRegressorCV, {"alphas": [0.1, -1]}, ValueError, "alphas must be positive"),
    (SparseRegressorCV, {"eps": 2}, ValueError, "eps must lie strictly between 0 and 1"),
    (SparseRegressorCV, {"n_alphas": 0}, ValueError, "n_alphas"),
    (SparseRegressorCV, {"prior": SLOPE(falling(120))}, TypeError, "got SLOPE"),
])
def test_bad_parameters_are_named(data, kind, parameters, error, message):
    with pytest.raises(error, match=message):
        kind(**parameters).fit(*data)


def test_weights_that_are_all_zero_are_refused(data):
    with pytest.raises(ValueError, match="at least one non-zero"):
        SparseRegressor().fit(data[0], data[1], np.zeros(60))


def test_unknown_names_are_no_attributes():
    with pytest.raises(AttributeError, match="has no attribute 'Lasso'"):
        _ = sparsepriors.regression.Lasso
