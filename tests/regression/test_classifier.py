import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from sparsepriors.priors import L1, MCP
from sparsepriors.regression import SparseClassifier, logistic_regression


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((90, 40))
    scores = np.stack([X[:, 0], X[:, 1] - X[:, 2], 2 * X[:, 3]], axis=1)
    return X, np.array(["a", "b", "c"])[scores.argmax(axis=1)]


@pytest.mark.public_door
@parametrize_with_checks([SparseClassifier(alpha=0.02)])
def test_scikit_learn_s_contract(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")   # what scikit-learn's own checks warn of
        check(estimator)


def test_two_classes_agree_with_scikit_learn(data):
    X, y = data[0], data[1] == "a"
    s = np.random.default_rng(1).random(90) + 0.1
    s *= 90 / s.sum()
    ours = SparseClassifier(alpha=0.02, tol=1e-10).fit(X, y, s)
    theirs = LogisticRegression(l1_ratio=1.0, C=1 / (0.02 * 90), solver="saga", tol=1e-10, max_iter=100000).fit(X, y, s)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-5)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-5)
    sparse = SparseClassifier(alpha=0.02, tol=1e-10).fit(scipy.sparse.csr_matrix(X), y, s)
    np.testing.assert_allclose(sparse.coef_, ours.coef_, atol=1e-6)


def test_more_classes_are_set_against_the_rest(data):
    X, y = data
    model = SparseClassifier(MCP(gamma=3.0), alpha=0.05).fit(X, y)
    assert model.coef_.shape == (3, 40)
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)
    assert model.score(X, y) > 0.8
    with pytest.warns(ConvergenceWarning, match="SparseClassifier stopped after max_iter = 1"):
        SparseClassifier(alpha=0.01, max_iter=1).fit(X, y)


@pytest.mark.public_door
@pytest.mark.parametrize(("labels", "intercept", "message"), [
    ([0.0, 1.0, 1.0], False, "labels must be a vector of 1 and -1"),
    ([1.0, 1.0, 1.0], True, "must hold both 1 and -1"),
    ([1.0, -1.0], False, "an entry for each row of A"),
])
def test_bad_labels_are_named(labels, intercept, message):
    with pytest.raises(ValueError, match=message):
        logistic_regression(torch.ones(3, 2), torch.tensor(labels), L1(), intercept=intercept)


@pytest.mark.public_door
def test_bad_parameters_are_named(data):
    with pytest.raises(TypeError, match="prior must be a Prior, got int"):
        SparseClassifier(3).fit(*data)
    with pytest.raises(ValueError, match="got 1 class: a"):
        SparseClassifier().fit(data[0][:3], ["a"] * 3)
