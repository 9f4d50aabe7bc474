"""The estimator of sparse Bayesian learning: scikit-learn's contract, ARDRegression beside it, error bars."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ARDRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from sparsepriors.regression import SparseBayesRegressor
from sparsepriors.regression.sparse_bayes import UPDATES


def draw(rows, columns, noise, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, columns))
    w = np.zeros(columns)
    w[:4] = 2, -3, 1.5, 4
    return X, X @ w + 5 + noise * rng.standard_normal(rows), w


@pytest.mark.public_door   # scikit-learn passes what annotations forbid, on purpose
@parametrize_with_checks([SparseBayesRegressor(update=update) for update in UPDATES])
def test_scikit_learn_s_contract(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")   # what scikit-learn's own checks warn of
        check(estimator)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_it_is_no_worse_than_ard_regression(update, dtype):
    X, y, w = draw(120, 40, 0.5)
    ours = SparseBayesRegressor(update=update, max_iter=5000).fit(X.astype(dtype), y.astype(dtype))
    theirs = ARDRegression().fit(X, y)
    assert np.linalg.norm(ours.coef_ - w) <= 1.1 * np.linalg.norm(theirs.coef_ - w)
    assert ours.noise_var_ == pytest.approx(1 / theirs.alpha_, rel=0.1)
    assert ours.intercept_ == pytest.approx(theirs.intercept_, abs=0.05)
    assert ours.coef_.dtype == dtype
    assert set(np.argsort(-np.abs(ours.coef_))[:4]) == {0, 1, 2, 3}


def test_error_bars_cover_new_responses():
    X, y, _ = draw(4000, 30, 0.5)
    mean, std = SparseBayesRegressor().fit(X[:300], y[:300]).predict(X[300:], return_std=True)
    assert np.mean(np.abs(mean - y[300:]) < 1.96 * std) == pytest.approx(0.95, abs=0.02)


def test_a_weight_of_two_is_a_repetition():
    X, y, _ = draw(50, 20, 0.5)
    weights = np.random.default_rng(1).integers(0, 3, 50)
    a = SparseBayesRegressor(tol=1e-8, max_iter=20000).fit(X, y, weights)
    b = SparseBayesRegressor(tol=1e-8, max_iter=20000).fit(np.repeat(X, weights, 0), np.repeat(y, weights))
    np.testing.assert_allclose(a.coef_, b.coef_, atol=1e-8)
    assert a.noise_var_ == pytest.approx(b.noise_var_)


@pytest.mark.parametrize("update", UPDATES)
def test_a_constant_response_has_no_coefficients(update):
    model = SparseBayesRegressor(update=update).fit(draw(20, 5, 0.1)[0], np.full(20, 3.0))
    np.testing.assert_array_equal(np.abs(model.coef_) < 1e-6, True)
    assert model.intercept_ == pytest.approx(3.0)


def test_an_unconverged_fit_warns():
    with pytest.warns(ConvergenceWarning, match="stopped after max_iter = 1 iterations"):
        SparseBayesRegressor(max_iter=1).fit(*draw(50, 20, 0.5)[:2])


@pytest.mark.public_door
@pytest.mark.parametrize(("parameters", "error", "message"), [
    ({"update": "newton"}, ValueError, "update must be one of 'em', 'mackay', 'one-by-one'"),
    ({"noise_var": 0.0}, ValueError, "noise_var must be finite and positive"),
    ({"prune": 1.0}, ValueError, "prune must be below 1"),
    ({"prune": -0.1}, ValueError, "prune must be finite and nonnegative"),
    ({"tol": 0}, ValueError, "tol"),
    ({"max_iter": 0}, ValueError, "max_iter"),
])
def test_bad_parameters_are_named(parameters, error, message):
    with pytest.raises(error, match=message):
        SparseBayesRegressor(**parameters).fit(*draw(20, 5, 0.1)[:2])
