"""Simulated problems with a product of supports."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
import torch

from sparsepriors.data.kronecker_sparse import kronecker_sparse


@pytest.mark.parametrize("coefficients", ["product", "free"])
def test_measurements_are_those_of_the_kronecker_product_at_the_stated_noise(coefficients, generator):
    found = kronecker_sparse(300, (4, 6, 5), (5, 6, 7), (2, 1, 3), 10.0, generator, coefficients=coefficients)
    noise = []
    for i in range(300):
        A = reduce(np.kron, (a[i].numpy() for a in found.factors))
        clean = A @ found.x[i].flatten().numpy()
        noise.append((found.y[i].flatten().numpy() - clean) / np.sqrt(found.noise_var[i].item()))
        assert np.mean(clean**2) / found.noise_var[i].item() == pytest.approx(10.0)
        where = reduce(np.kron, (s[i].numpy() for s in found.supports)).astype(bool)
        np.testing.assert_array_equal(found.x[i].flatten().numpy() != 0, where)
    assert np.std(noise) == pytest.approx(1.0, abs=0.01)
    assert [int(s.sum(1).unique()) for s in found.supports] == [2, 1, 3]
    flat = found.x.flatten(2)
    rank = torch.linalg.matrix_rank(flat, rtol=1e-9)
    assert bool((rank == 1).all()) == (coefficients == "product")
    assert found.first(3).y.shape == (3, 4, 6, 5)


def test_the_seed_decides():
    a, b = (kronecker_sparse(2, (3, 3), (4, 4), (1, 2), 5.0, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(a.y, b.y)


@pytest.mark.public_door
@pytest.mark.parametrize(("change", "error", "message"), [
    ({"n": -1}, ValueError, "n must be at least 0"),
    ({"rows": (3,)}, ValueError, "one entry for each axis, got 1, 2 and 2"),
    ({"rows": (0, 3)}, ValueError, r"rows\[0\] must be at least 1"),
    ({"columns": (4, 2.5)}, TypeError, r"columns\[1\] must be an integer"),
    ({"nonzeros": (5, 1)}, ValueError, r"nonzeros\[0\] must be from 1 to 4"),
    ({"snr_db": float("nan")}, ValueError, "snr_db must be finite"),
    ({"coefficients": "dense"}, ValueError, "coefficients must be one of"),
])
def test_bad_input_is_named(change, error, message):
    words = {"n": 1, "rows": (3, 3), "columns": (4, 4), "nonzeros": (1, 1), "snr_db": 5.0, **change}
    with pytest.raises(error, match=message):
        kronecker_sparse(generator=torch.Generator(), **words)
