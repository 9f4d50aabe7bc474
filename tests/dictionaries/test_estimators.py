"""The estimator: scikit-learn's contract, a comparison with its online learning, and the ways in and out."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
from sklearn.decomposition import MiniBatchDictionaryLearning, sparse_encode
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import sparsepriors.dictionaries
from sparsepriors.dictionaries import SparseCoder
from sparsepriors.priors import CEL0, L1


@pytest.fixture(scope="module")
def signals() -> np.ndarray:
    rng = np.random.default_rng(0)
    atoms = rng.standard_normal((20, 16))
    codes = rng.standard_normal((3000, 20)) * (rng.random((3000, 20)) < 0.1)
    return (codes @ atoms + 0.1 * rng.standard_normal((3000, 16))).astype(np.float32)


@pytest.mark.public_door
@parametrize_with_checks([SparseCoder(CEL0(0.1), n_components=5, random_state=0),
                          SparseCoder(L1(0.1), n_components=3, learning_rate=1e-3, random_state=0)])
def test_scikit_learn_s_contract(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")   # what scikit-learn's own checks warn of
        check(estimator)


def test_at_equal_activity_it_is_no_worse_than_scikit_learn(signals):
    train, test = signals[:2500], signals[2500:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)   # of its coordinate descent
        theirs = MiniBatchDictionaryLearning(n_components=20, alpha=1.5, batch_size=250, max_iter=3, random_state=0,
                                             fit_algorithm="cd").fit(train)
        codes = sparse_encode(test, theirs.components_, algorithm="lasso_cd", alpha=1.5)
    active, error = float((codes != 0).sum(1).mean()), float(((test - codes @ theirs.components_) ** 2).mean())
    errors = {}
    for name, prior in (("l1", L1(0.5)), ("CEL0", CEL0(0.1))):
        ours = SparseCoder(prior, n_components=20, active=active, epochs=3, random_state=0).fit(train)
        found = ours.encode(test)
        assert (found != 0).sum(1).mean() == pytest.approx(active, rel=0.15)
        errors[name] = float(((test - ours.decode(found)) ** 2).mean())
    assert errors["l1"] < 1.1 * error
    assert errors["CEL0"] < 0.7 * error


def test_it_learns_batch_by_batch_survives_a_pickle_and_composes(signals):
    model = SparseCoder(CEL0(0.1), n_components=20, active=2.0, batch_size=100, random_state=0)
    model.partial_fit(signals[:1000])
    first = model.history_[0]["mse"]
    again = pickle.loads(pickle.dumps(model))  # noqa: S301 -- our own object
    for one in (model, again):
        one.partial_fit(signals[1000:])
    assert np.array_equal(model.components_, again.components_)
    assert len(model.history_) == 30
    assert model.history_[-1]["mse"] < first
    assert model.usage_.sum() == pytest.approx(2.0, rel=0.1)
    assert list(model.get_feature_names_out()[:2]) == ["sparsecoder0", "sparsecoder1"]
    pipe = make_pipeline(StandardScaler(), SparseCoder(n_components=20, random_state=0)).fit(signals)
    assert pipe.transform(signals[:3]).shape == (3, 20)


def test_a_step_is_kept_within_what_the_dictionary_allows(signals):
    long = SparseCoder(L1(0.5), n_components=20, step=5.0, random_state=0).fit(signals)
    auto = SparseCoder(L1(0.5), n_components=20, random_state=0).fit(signals)
    np.testing.assert_allclose(long.encode(signals[:50]), auto.encode(signals[:50]), atol=0.05)


def test_codes_that_still_move_are_told_of(signals):
    model = SparseCoder(L1(0.01), n_components=20, max_iter=2, random_state=0).fit(signals)
    with pytest.warns(ConvergenceWarning, match="still moving after max_iter = 2 steps"):
        model.encode(signals)


@pytest.mark.public_door
@pytest.mark.parametrize(("parameters", "error", "message"), [
    ({"prior": "l1"}, TypeError, "prior must be a Prior, got str"),
    ({"n_components": 0}, ValueError, "n_components must be at least 1"),
    ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
    ({"epochs": 0}, ValueError, "epochs must be at least 1"),
    ({"active": 100}, ValueError, "active must be below the number of units"),
    ({"learning_rate": -1.0}, ValueError, "rate must be finite and positive"),
])
def test_bad_parameters_are_named(signals, parameters, error, message):
    with pytest.raises(error, match=message):
        SparseCoder(**parameters).fit(signals)


def test_codes_of_another_width_are_refused(signals):
    model = SparseCoder(n_components=20, random_state=0).fit(signals)
    with pytest.raises(ValueError, match="X must have 20 columns, one for each unit, got 16"):
        model.decode(signals)
    with pytest.raises(AttributeError, match="has no attribute 'Coder'"):
        _ = sparsepriors.dictionaries.Coder
