import math

import numpy as np
import pytest
import torch

from sparsepriors.papers._ldp_measures import ARMS, ROUNDS, SIZES
from sparsepriors.papers._ldp_users import NOISE, Pictures, Users
from sparsepriors.runs import Scale


def test_the_smoke_scale_measures_every_claim_and_resumes_to_the_same_rows(smoke):
    rows, claims = smoke("ldp-regression", "errors")
    sizes = SIZES[Scale.SMOKE]
    table = {(r["arm"], r["d"], r["n"], r["epsilon"]): r for r in rows if r.get("d") in sizes.dims and
             "correlation" not in r and "features" not in r}
    d, n = sizes.dims[0], sizes.counts[-1]
    error = {arm: table[arm, d, n, 4.0]["error"] for arm in (*ARMS, *ROUNDS)}
    assert error["rounds"] < error["public"] < error["moments published"]
    assert error["moments one clip"] < error["moments published"]
    for arm in ARMS:
        spent = table[arm, d, n, 4.0]["exact_epsilon"]
        assert spent < 4 if "published" in arm else spent == pytest.approx(4)
    assert claims["audit-rounds"]["ours"] <= 2


def test_users_are_the_same_whenever_they_are_drawn():
    users = Users(5, 2, seed=3, chunk=1000)
    X, y = users.first(2500)
    assert X.shape == (2500, 5)
    np.testing.assert_array_equal(X[1000:2000], users.draw(1)[0].numpy())
    np.testing.assert_array_equal(users.first(500, skip=2)[1], y[2000:])
    theta = users.theta.numpy()
    assert np.linalg.norm(theta) == pytest.approx(1)
    assert np.count_nonzero(theta) == 2
    assert np.std(y - X @ theta) == pytest.approx(NOISE, rel=0.1)
    assert users.error(theta) == pytest.approx(0)
    assert users.error(theta + 1) == pytest.approx(math.sqrt(5))
    assert not torch.equal(users.draw(-1, 1000)[0], users.draw(0)[0])


def test_neighbours_are_correlated_as_asked():
    X, _ = Users(4, 2, seed=0, chunk=50_000, correlation=0.3).draw(0)
    expected = 0.3**(torch.arange(4.0)[:, None] - torch.arange(4.0)).abs()
    torch.testing.assert_close(torch.corrcoef(X.mT), expected, atol=0.02, rtol=0)
    torch.testing.assert_close(X.std(0), torch.ones(4), atol=0.02, rtol=0)


def test_pictures_are_whitened_by_public_ones():
    users = Pictures.of("digits8", 2, 2, seed=3)
    assert users.d == 16
    covariance = users.public.mT @ users.public / len(users.public)
    torch.testing.assert_close(covariance, torch.eye(16), atol=1e-3, rtol=0)
    assert float(users.X.square().mean(dim=0).median()) == pytest.approx(1, rel=0.2)   # corners vary rarely and much
    assert float((users.responses() - users.X @ users.theta).std()) == pytest.approx(NOISE, rel=0.1)
