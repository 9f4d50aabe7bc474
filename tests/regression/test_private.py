import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.estimator_checks import parametrize_with_checks

from sparsepriors.regression import LDPIHT, MomentServer, NonInteractiveLDP, NotPositiveDefinite, PublicCovariance


def problem(n, d, k=2, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    theta = np.zeros(d)
    theta[rng.permutation(d)[:k]] = 1 / math.sqrt(k)
    X = scale * rng.standard_normal((n, d))
    return X, X @ theta + 0.5 * rng.standard_normal(n), theta


def quiet(model, *data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotPositiveDefinite)
        return model.fit(*data)


@pytest.mark.public_door
@parametrize_with_checks([NonInteractiveLDP(), LDPIHT(), LDPIHT(radius="published")])
def test_scikit_learn_s_contract(estimator, check):
    """All checks hold; that of a training score is passed over for poor scores, which noise on few users makes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


def test_many_users_give_the_coefficients():
    X, y, theta = problem(300_000, 6)
    at = {"epsilon": 4.0, "delta": 1e-3, "threshold": 0.0, "random_state": 0}
    moments = NonInteractiveLDP(**at).fit(X, y)
    better = NonInteractiveLDP(**at, tau_x=None).fit(X, y)
    public = NonInteractiveLDP(**at, tau_x=None).fit(X, y, np.random.default_rng(1).standard_normal((2000, 6)))
    rounds = LDPIHT(epsilon=4.0, k=2, random_state=0).fit(X, y)
    errors = [float(np.linalg.norm(m.coef_ - theta)) for m in (moments, better, public, rounds)]
    assert errors[0] < 0.7
    assert errors[1] < 0.4
    assert errors[2] < 0.15
    assert errors[3] < 0.04
    np.testing.assert_array_equal(rounds.coef_.nonzero()[0], theta.nonzero()[0])
    assert moments.predict(X).shape == (300_000,)
    assert rounds.n_iter_ == math.ceil(math.log2(300_000) / 2)


def test_the_automatic_threshold_keeps_the_support_and_little_else():
    X, y, theta = problem(400_000, 8)
    public = np.random.default_rng(1).standard_normal((5000, 8))
    found = [NonInteractiveLDP(4.0, 1e-3, random_state=s).fit(X, y, public).coef_ for s in range(5)]
    wrong = sum(int(((c != 0) != (theta != 0)).sum()) for c in found)
    assert wrong <= 2


def test_few_public_features_raise_the_threshold():
    """With no noise to speak of, what is left is the error of their covariance: bound over the root of their number."""
    X, y, _ = problem(50_000, 4)
    public = np.random.default_rng(1).standard_normal((40_000, 4))
    model = NonInteractiveLDP(1000.0, 0.5, radius=1.0, tau_x=1.0, tau_y=1.0, bound=30.0)
    few, many = (model.fit(X, y, public[:m]).threshold_ for m in (400, 40_000))
    assert many == pytest.approx(math.sqrt(2 * math.log(4)) * 30 / 200, rel=0.1)
    assert few / many == pytest.approx(10, rel=0.3)


@pytest.mark.parametrize("model", [NonInteractiveLDP(random_state=0), LDPIHT(random_state=0)])
def test_clipping_is_public_knowledge(model):
    """The data do not touch it: neither their size nor their values."""
    X, y, _ = problem(500, 4)
    names = ("radius_", "tau_x_", "tau_y_")
    before = [getattr(quiet(model, X, y), n) for n in names]
    assert before == [getattr(quiet(model, 1e6 * X**3, 1e3 * y), n) for n in names]
    scaled = quiet(model.set_params(x_scale=10.0, y_scale=3.0), X, y)
    assert scaled.tau_x_ == pytest.approx(10 * before[1])
    assert scaled.tau_y_ == pytest.approx(3 * before[2])
    assert scaled.radius_ == pytest.approx((10 if isinstance(model, NonInteractiveLDP) else 30) * before[0])


def test_automatic_clips_are_passed_once_in_sqrt_n_users():
    X, y, _ = problem(40_000, 5)
    model = quiet(NonInteractiveLDP(random_state=0, y_scale=math.sqrt(1.25)), X, y)
    for passed in ((np.linalg.norm(X, axis=1) > model.radius_).mean(), (np.abs(X) > model.tau_x_).mean(),
                   (np.abs(y) > model.tau_y_).mean()):
        assert passed == pytest.approx(1 / 200, rel=0.3)


def test_units_go_through():
    """Declared scales in other units give the same model in those units."""
    X, y, _ = problem(3000, 4)
    for model in (NonInteractiveLDP(4.0, 1e-2, random_state=3), LDPIHT(4.0, 2, random_state=3)):
        a = quiet(model, X, y).coef_
        # bound is in units of theta, that is of y over x
        b = quiet(model.set_params(x_scale=10.0, y_scale=5.0, bound=0.5,
                                   **({"step": 0.005} if isinstance(model, LDPIHT) else {})), 10 * X, 5 * y).coef_
        np.testing.assert_allclose(a, 2 * b, rtol=1e-6, atol=1e-9)


def test_clients_and_server_can_live_apart():
    X, y, _ = problem(300, 3)
    estimator = NonInteractiveLDP(30.0, 0.05, radius=4.0, tau_x=4.0, tau_y=4.0, threshold=0.0)
    mechanism = estimator.mechanism(300, 3)
    server, generator = MomentServer(3), torch.Generator().manual_seed(0)
    server.aggregate(mechanism.randomise(torch.from_numpy(x), float(t), generator) for x, t in zip(X, y, strict=True))
    model = estimator.estimate(mechanism, server)
    assert server.covariance is not None
    np.testing.assert_allclose(model.coef_, np.linalg.solve(server.covariance.numpy(), server.cross.numpy()))
    assert model.predict(X).shape == (300,)
    public = estimator.mechanism(300, 3, covariance=False)
    alone = MomentServer(3)
    alone.aggregate(public.total(torch.from_numpy(X), torch.from_numpy(y), generator))
    known = estimator.estimate(public, alone, PublicCovariance.of(X))
    np.testing.assert_allclose(known.coef_, np.linalg.solve(X.T @ X / 300, alone.cross))
    with pytest.raises(ValueError, match="public must be given, because the messages bring no covariance"):
        estimator.estimate(public, alone)


def test_an_indefinite_covariance_is_never_silent():
    X, y, _ = problem(200, 6)
    with pytest.warns(NotPositiveDefinite, match="above 0 to be inverted, got -.* left as it is"):
        NonInteractiveLDP(0.5, 1e-4, random_state=0).fit(X, y)
    with pytest.warns(NotPositiveDefinite, match=r"above 0\.2 to be inverted, got -.* raised to that"):
        clipped = NonInteractiveLDP(0.5, 1e-4, psd_fix="clip", floor=0.2, random_state=0).fit(X, y)
    assert np.linalg.eigvalsh(clipped.covariance_)[0] == pytest.approx(0.2)


def test_published_and_exact_noise_keep_one_promise():
    X, y, _ = problem(1000, 4)
    for noise, spent in (("exact", 1.0), ("published", 0.6)):
        report = quiet(NonInteractiveLDP(1.0, 1e-4, noise=noise, random_state=0), X, y).privacy_report_
        assert (report.epsilon, report.delta, report.interactive) == (1.0, 1e-4, False)
        assert report.exact_epsilon <= spent + 1e-9
    report = LDPIHT(1.0, random_state=0).fit(X, y).privacy_report_
    assert (report.epsilon, report.delta, report.exact_epsilon, report.interactive) == (1.0, 0.0, 1.0, True)


def test_every_user_is_heard_in_one_round(monkeypatch):
    heard = []
    from sparsepriors.regression.messages import GradientMechanism
    total = GradientMechanism.total

    def spy(self, X, y, coef, generator):
        heard.extend(y.tolist())
        return total(self, X, y, coef, generator)

    monkeypatch.setattr(GradientMechanism, "total", spy)
    LDPIHT(rounds=7, random_state=0).fit(problem(100, 3)[0], np.arange(100.0))
    assert heard == list(range(100))


@pytest.mark.public_door
@pytest.mark.parametrize(("model", "error", "message"), [
    (NonInteractiveLDP(epsilon=0.0), ValueError, "epsilon must be finite and positive, got 0"),
    (NonInteractiveLDP(delta=0.0), ValueError, "delta"),
    (NonInteractiveLDP(delta=1.0), ValueError, "delta must lie strictly between 0 and 1"),
    (NonInteractiveLDP(x_scale=-1.0), ValueError, "x_scale"),
    (NonInteractiveLDP(radius="best"), ValueError, "radius must be one of 'auto'"),
    (NonInteractiveLDP(tau_x="best"), ValueError, "tau_x must be one of 'auto'"),
    (NonInteractiveLDP(tau_y=0.0), ValueError, "tau_y"),
    (NonInteractiveLDP().set_params(tau_y=None), TypeError, "tau_y must be a number or 'auto', got None"),
    (NonInteractiveLDP(threshold=-1.0), ValueError, "threshold"),
    (NonInteractiveLDP(threshold="best"), ValueError, "threshold must be one of 'auto'"),
    (NonInteractiveLDP(psd_fix="abs"), ValueError, "psd_fix must be one of"),
    (NonInteractiveLDP(floor=0.0), ValueError, "floor"),
    (LDPIHT(epsilon=-1.0), ValueError, "epsilon"),
    (LDPIHT(k=4), ValueError, "k must be from 1 to 3, got 4"),
    (LDPIHT(rounds=51), ValueError, "a user for each of the 51 rounds, got n_samples = 50"),
    (LDPIHT(rounds=0), ValueError, "rounds must be at least 1"),
    (LDPIHT(rounds="best"), ValueError, "rounds must be one of 'auto'"),
    (LDPIHT(radius="best"), ValueError, "radius must be one of 'auto', 'published'"),
    (LDPIHT(radius="published", tau_x=None), ValueError, "tau_x and tau_y must be given for radius='published'"),
    (LDPIHT(step=0.0), ValueError, "step"),
    (LDPIHT(bound=0.0), ValueError, "bound"),
])
def test_bad_parameters_are_named(model: Any, error, message):
    X, y, _ = problem(50, 3)
    with pytest.raises(error, match=message):
        quiet(model, X, y)


@pytest.mark.public_door
def test_bad_data_are_named():
    X, y, _ = problem(50, 3)
    for model in (NonInteractiveLDP(), LDPIHT()):
        with pytest.raises(ValueError, match="Input X contains NaN"):
            model.fit(np.where(X > 1, np.nan, X), y)
    with pytest.raises(ValueError, match="public data must have 3 features, as X has, got 2"):
        NonInteractiveLDP().fit(X, y, X[:, :2])
    with pytest.raises(ValueError, match="public data must determine the covariance of 3 features, got 2 rows"):
        NonInteractiveLDP().fit(X, y, X[:2])
    with pytest.raises(ValueError, match="matrix must be square and symmetric"):
        PublicCovariance(torch.tensor([[1.0, 0.5], [0.0, 1.0]]), 10)
    with pytest.raises(ValueError, match="rows must be at least 1"):
        PublicCovariance(torch.eye(2), 0)
    with pytest.raises(ValueError, match="dim must be at most 4096"):
        NonInteractiveLDP().fit(np.zeros((2, 4097)), y[:2])


def test_the_published_radius_bounds_every_gradient():
    X, y, _ = problem(2000, 4, scale=5.0)
    model = LDPIHT(radius="published", k=3, bound=2.0, random_state=0).fit(X, y)
    tx, ty = model.tau_x_, model.tau_y_
    assert tx is not None
    assert ty is not None
    assert model.radius_ == pytest.approx(2 * tx * (math.sqrt(3) * tx * 2 + ty))
    coef = np.array([1.0, -1, 1, 0]) * 2 / math.sqrt(3)
    x = tx * np.sign(coef + 0.5)
    assert np.linalg.norm(x * (x @ coef + ty)) <= model.radius_ * (1 + 1e-9)
