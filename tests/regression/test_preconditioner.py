"""Learnt coordinates describe the same predictions, make random supports cheap, and leave harmless designs alone."""

import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.estimator_checks import parametrize_with_checks

from sparsepriors.data.designs import DESIGNS, cluster_design, iid_design, tree_design, worst_case_signal
from sparsepriors.regression import SparseRegressor
from sparsepriors.regression.preconditioned import THRESHOLDS, PreconditionedLasso, thresholded_refit
from sparsepriors.regression.preconditioner import find_preconditioner, random_supports

F64 = torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), name=st.sampled_from(sorted(DESIGNS)))
def test_the_coordinates_predict_the_same_and_have_atoms_of_norm_one(seed, name):
    X = DESIGNS[name](30, 60, generator=seeded(seed))
    found = find_preconditioner(X, 3, trials=30, generator=seeded(seed))
    norms = found.atoms.norm(dim=0)
    torch.testing.assert_close(norms[found.alive], torch.ones_like(norms[found.alive]))
    w = torch.randn(2, 60, dtype=F64, generator=seeded(seed + 1))
    size = float((X @ w[0]).norm())
    assert float((found.inverse(w) @ found.atoms.mT * 30 ** 0.5 - w @ X.mT).norm()) <= 1e-6 * size
    u = torch.randn(60, dtype=F64, generator=seeded(seed + 2)) * found.alive
    along = X @ found.apply(u)
    assert float((along - 30 ** 0.5 * found.atoms @ u).norm()) <= 1e-5 * float(along.norm())


@pytest.mark.parametrize("name", ["clusters", "walk", "tree"])
def test_fresh_supports_become_cheap(name):
    X = DESIGNS[name](100, 300, generator=seeded(1))
    before, after = (find_preconditioner(X, 3, **options) for options in ({"max_rounds": 0}, {}))
    fresh = random_supports(torch.arange(300), 3, 300, seeded(7))
    assert after.converged
    assert len(after.eliminations) < 100
    assert float(after.cost(fresh).quantile(0.9)) <= 12
    assert float(before.cost(fresh).quantile(0.95)) > 3 * float(after.cost(fresh).quantile(0.95))


def test_a_harmless_design_is_left_alone():
    found = find_preconditioner(iid_design(100, 200, generator=seeded()), 4)
    assert found.report() == {"rounds": 0, "eliminations": 0, "redundant": 0, "failing": 0.0, "converged": 1.0}


def test_the_cost_is_the_norm_of_the_principal_signals():
    X = tree_design(40, 30, generator=seeded())
    found = find_preconditioner(X, 3, generator=seeded())
    support = torch.tensor([2, 9, 20])
    w = worst_case_signal(X, support)
    assert float(found.inverse(w).abs().sum()) <= float(found.cost(support[None])) * (1 + 1e-6)
    scaled = find_preconditioner(X * torch.logspace(-3, 3, 30, dtype=F64), 3, generator=seeded())
    torch.testing.assert_close(scaled.cost(support[None]) > 0, torch.tensor([True]))


def test_columns_given_twice_are_redundant_and_cost_nothing():
    X = cluster_design(40, 30, centres=3, generator=seeded())
    twice = torch.cat([X, X, torch.zeros(40, 1, dtype=F64)], dim=1)
    found = find_preconditioner(twice, 3)
    assert found.report()["rounds"] > 0
    assert found.report()["redundant"] > 1   # beside the column of zeros, the twin of a pivot at least
    assert not bool(found.atoms[:, 60].any())
    w = torch.zeros(61, dtype=F64)
    w[2], w[32] = 1.0, -1.0
    assert float((found.atoms @ found.inverse(w)).norm()) <= 1e-8


def test_what_cannot_be_reached_is_said():
    X = iid_design(50, 80, generator=seeded())
    found = find_preconditioner(X, 3, target=0.1, max_rounds=10)
    assert not found.converged
    assert found.failing == 1.0
    assert find_preconditioner(torch.zeros(5, 4, dtype=F64), 2).report()["redundant"] == 4


@pytest.mark.public_door
@pytest.mark.parametrize(("change", "error", "message"), [
    ({"X": torch.ones(4, 4)}, ValueError, "X must be a float64 matrix of at least two rows"),
    ({"X": torch.ones(1, 4, dtype=F64)}, ValueError, "at least two rows"),
    ({"X": torch.full((4, 4), torch.nan, dtype=F64)}, ValueError, "X holds NaN"),
    ({"k": 5}, ValueError, "k must be from 1 to 4, got 5"),
    ({"target": 0.0}, ValueError, "target must be finite and positive"),
    ({"delta": -0.1}, ValueError, "delta must be finite and nonnegative"),
    ({"rho": -0.1}, ValueError, "rho must be finite and nonnegative"),
    ({"tau": 0.9}, ValueError, r"tau must lie between 0 and 0\.7"),
    ({"trials": 0}, ValueError, "trials must be at least 1"),
    ({"max_rounds": -1}, ValueError, "max_rounds must be at least 0"),
])
def test_bad_input_is_named(change, error, message):
    words = {"X": torch.eye(4, dtype=F64), "k": 2, **change}
    with pytest.raises(error, match=message):
        find_preconditioner(words.pop("X"), words.pop("k"), **words)


@pytest.mark.public_door
@pytest.mark.parametrize(("supports", "message"), [
    (torch.tensor([0, 1]), r"supports must have shape \(trials, k\)"), (torch.tensor([[0, 4]]), "between 0 and 3"),
    (torch.arange(5)[None], "k from 1 to 4")])
def test_bad_supports_are_named(supports, message):
    with pytest.raises(ValueError, match=message):
        find_preconditioner(torch.eye(4, dtype=F64), 2).cost(supports)


@pytest.mark.public_door   # scikit-learn passes what annotations forbid, on purpose
@parametrize_with_checks([PreconditionedLasso(3, n_lams=3, cv=2, refit=True), PreconditionedLasso(3, lam="theory")])
def test_scikit_learn_s_contract(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")   # what scikit-learn's own checks warn of
        check(estimator)


@pytest.mark.parametrize("lam", ["theory", "cv", 0.02])
def test_cancelling_signals_are_predicted(lam):
    generator = seeded(2)
    X = cluster_design(100, 120, generator=generator)
    f = X @ worst_case_signal(X, torch.tensor([3, 13, 55]))
    y = f + 0.2 * torch.randn(100, dtype=F64, generator=generator) + 7
    ours = PreconditionedLasso(3, lam=lam, n_lams=12, eps=1e-2, cv=3, tol=1e-4).fit(X.numpy(), y.numpy())
    theirs = SparseRegressor(alpha=0.2 * (2 * np.log(120) / 100) ** 0.5).fit(X.numpy(), y.numpy())
    error, other = (np.square(m.predict(X.numpy()) - f.numpy() - 7).mean() for m in (ours, theirs))
    assert error < 0.1
    assert error < 0.3 * other
    assert ours.preconditioner_ is not None


def test_a_harmless_design_gives_the_lasso_of_standardised_columns():
    X = iid_design(80, 30, generator=seeded()).numpy()
    y = X[:, 0] - X[:, 1]
    norms = np.sqrt(np.square(X - X.mean(0)).mean(0))
    ours = PreconditionedLasso(3, lam=0.1, tol=1e-12).fit(X, y)
    lasso = SparseRegressor(alpha=0.1, tol=1e-12).fit(X / norms, y)
    np.testing.assert_allclose(ours.coef_ * norms, lasso.coef_, atol=1e-8)
    np.testing.assert_allclose(PreconditionedLasso(3, lam=0.1, tol=1e-12).fit(scipy.sparse.csr_array(X), y).coef_,
                               ours.coef_, atol=1e-10)


def test_a_known_noise_level_sets_the_strength():
    X = iid_design(50, 20, generator=seeded()).numpy()
    model = PreconditionedLasso(3, lam="theory", sigma=0.5).fit(X, X[:, 0])
    assert model.lam_ == pytest.approx(0.5 * (2 * np.log(20) / 50) ** 0.5)


@given(seed=st.integers(0, 99), share=st.sampled_from(THRESHOLDS), rows=st.integers(3, 12))
def test_a_refit_explains_what_the_atoms_that_are_left_can(seed, share, rows):
    generator = seeded(seed)
    atoms, y = (torch.randn(*shape, dtype=F64, generator=generator) for shape in ((rows, 6), (rows,)))
    u = torch.randn(6, dtype=F64, generator=generator) * (torch.rand(6, generator=generator) < 0.5)
    left = u.abs() > share * u.abs().max()
    again = thresholded_refit(atoms, y, u, share)
    assert (again is None) == (not 0 < 2 * int(left.sum()) < rows)
    if again is not None:
        assert not bool(again[~left].any())
        torch.testing.assert_close(atoms[:, left].mT @ (y - atoms @ again), torch.zeros(int(left.sum()), dtype=F64),
                                   atol=1e-9, rtol=0)


def test_a_refit_is_taken_where_the_folds_prefer_it():
    generator = seeded(5)
    X = cluster_design(100, 120, generator=generator)
    f = X @ worst_case_signal(X, torch.tensor([3, 13, 55]))
    y = f + 0.1 * torch.randn(100, dtype=F64, generator=generator) + 7
    plain, again = (PreconditionedLasso(3, refit=refit, n_lams=12, eps=1e-2, cv=3, tol=1e-4).fit(X.numpy(), y.numpy())
                    for refit in (False, True))
    assert plain.threshold_ is None
    assert again.threshold_ in THRESHOLDS
    errors = [float(np.square(m.predict(X.numpy()) - f.numpy() - 7).mean()) for m in (plain, again)]
    assert errors[1] < 0.7 * errors[0]
    noise = torch.randn(100, dtype=F64, generator=generator).numpy()
    assert PreconditionedLasso(3, refit=True, n_lams=1, cv=3).fit(X.numpy(), noise).threshold_ is None


@pytest.mark.public_door
@pytest.mark.parametrize(("parameters", "error", "message"), [
    ({"refit": 1}, TypeError, "refit must be a bool"),
    ({"refit": True, "lam": "theory"}, ValueError, "refit must be False unless lam is 'cv'"),
    ({"k": 0}, ValueError, "k must be at least 1"), ({"lam": "best"}, ValueError, "lam must be one of 'cv', 'theory'"),
    ({"lam": -1.0}, ValueError, "lam must be finite and positive"),
    ({"sigma": 0.0}, ValueError, "sigma must be finite"),
    ({"n_lams": 0}, ValueError, "n_lams must be at least 1"), ({"eps": 1.0}, ValueError, "eps must lie strictly"),
    ({"tol": 0.0}, ValueError, "tol must be finite"), ({"max_iter": 0}, ValueError, "max_iter must be at least 1"),
    ({"random_state": -1}, ValueError, "random_state must be at least 0")])
def test_parameters_are_checked(parameters, error, message):
    with pytest.raises(error, match=message):
        PreconditionedLasso(**parameters).fit(np.eye(4), np.arange(4.0))
