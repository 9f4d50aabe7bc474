import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from sparsepriors.regression import SoftOLS
from sparsepriors.regression.elementary import threshold_covariance


def problem(n, p, k=3, seed=0, noise=0.5):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    w = np.zeros(p)
    w[:k] = [1.0, -2.0, 1.5][:k]
    return X, X @ w + 3 + noise * rng.standard_normal(n), w


@pytest.mark.public_door
@parametrize_with_checks([SoftOLS(), SoftOLS(0.1, covariance_threshold=10.0)])
def test_scikit_learn_s_contract(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_without_a_threshold_it_is_least_squares(intercept, dtype):
    X, y, _ = problem(200, 10)
    X = (X + 2).astype(dtype)
    ours = SoftOLS(0.0, fit_intercept=intercept).fit(X, y.astype(dtype))
    theirs = LinearRegression(fit_intercept=intercept).fit(X.astype(float), y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-4 if dtype == np.float32 else 1e-10)
    assert ours.intercept_ == pytest.approx(theirs.intercept_, abs=1e-3)
    assert ours.coef_.dtype == dtype
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X.astype(float)), atol=1e-3)


def test_the_support_is_found_and_the_threshold_shrinks():
    X, y, w = problem(1000, 50)
    model = SoftOLS().fit(X, y)
    np.testing.assert_array_equal(model.coef_.nonzero()[0], w.nonzero()[0])
    np.testing.assert_allclose(model.coef_[:3], model.raw_coef_[:3] - model.threshold_ * np.sign(w[:3]))


def test_the_automatic_threshold_follows_the_noise_and_the_number_of_rows():
    small, large = (SoftOLS().fit(*problem(n, 20)[:2]).threshold_ for n in (1000, 16_000))
    assert small / large == pytest.approx(4, rel=0.15)
    assert SoftOLS().fit(*problem(1000, 20, noise=1.5)[:2]).threshold_ / small == pytest.approx(3, rel=0.01)
    assert small == pytest.approx(0.5 * math.sqrt(2 * math.log(20) / 1000), rel=0.15)


def test_scale_of_the_response_goes_through():
    X, y, _ = problem(300, 8)
    a, b = SoftOLS().fit(X, y), SoftOLS().fit(X, 10 * y)
    np.testing.assert_allclose(10 * a.coef_, b.coef_)


@pytest.mark.parametrize("rule", ["soft", "hard"])
def test_more_features_than_rows_need_a_thresholded_covariance(rule):
    X, y, w = problem(300, 400)
    level = 3.5 / math.sqrt(300) if rule == "hard" else 1.8 / math.sqrt(300)
    model = SoftOLS(0.6, covariance_threshold=level, rule=rule).fit(X, y)
    np.testing.assert_array_equal(model.coef_.nonzero()[0], w.nonzero()[0])
    assert SoftOLS(covariance_threshold=level, rule=rule).fit(X, y).threshold_ > 0
    with pytest.raises(ValueError, match=r"n must be above p = 400 .* got n_samples = 300; covariance_threshold"):
        SoftOLS().fit(X, y)


def test_a_path_is_the_fits_at_its_thresholds():
    X, y, _ = problem(200, 10)
    levels = [0.0, 0.1, 0.7]
    path = SoftOLS().fit(X, y).path(levels)
    for column, level in zip(path.T, levels, strict=True):
        np.testing.assert_allclose(column, SoftOLS(level).fit(X, y).coef_, atol=1e-12)
    with pytest.raises(ValueError, match="thresholds must be finite and nonnegative"):
        SoftOLS().fit(X, y).path([-1.0])


@settings(max_examples=40)
@given(seed=st.integers(0, 100), level=st.floats(0, 2))
def test_thresholding_keeps_the_diagonal_and_symmetry(seed, level):
    S = torch.randn(5, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    S = S + S.mT
    soft, hard = (threshold_covariance(S, level, rule) for rule in ("soft", "hard"))
    off = ~torch.eye(5, dtype=torch.bool)
    for found in (soft, hard):
        torch.testing.assert_close(found.diagonal(), S.diagonal())
        torch.testing.assert_close(found, found.mT)
        assert bool(((found != 0)[off] == (S.abs() > level)[off]).all())
    torch.testing.assert_close((S - soft)[off].abs(), S[off].abs().clamp(max=level))
    assert bool((hard[off][hard[off] != 0] == S[off][hard[off] != 0]).all())


@pytest.mark.public_door
@pytest.mark.parametrize(("parameters", "message"), [
    ({"threshold": -1.0}, "threshold must be finite and nonnegative"),
    ({"threshold": "best"}, "threshold must be one of 'auto'"),
    ({"covariance_threshold": -1.0}, "threshold must be finite and nonnegative"),
    ({"covariance_threshold": 0.1, "rule": "firm"}, "rule must be one of"),
])
def test_bad_parameters_are_named(parameters, message):
    with pytest.raises(ValueError, match=message):
        SoftOLS(**parameters).fit(*problem(50, 5)[:2])


def test_a_covariance_without_an_inverse_is_refused():
    X, y, _ = problem(50, 5)
    X[:, 1] = X[:, 0]
    with pytest.raises(ValueError, match=r"got one that is not \(n_samples = 50\); columns depend"):
        SoftOLS().fit(X, y)
    wide, b, _ = problem(20, 100)
    with pytest.raises(ValueError, match="a larger covariance_threshold may make it so"):
        SoftOLS(covariance_threshold=0.0).fit(wide, b)
