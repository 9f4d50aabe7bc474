import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsepriors.data.designs import DESIGNS, SPECTRA, spectra, tree_design, walk_design, worst_case_signal

F64 = torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", DESIGNS)
def test_the_seed_determines_a_design(name):
    X = DESIGNS[name](30, 50, generator=seeded(3))
    assert X.shape == (30, 50)
    assert torch.equal(X, DESIGNS[name](30, 50, generator=seeded(3)))
    assert bool(torch.isfinite(X).all())


def test_clusters_and_mixtures_repeat_their_centres():
    X = DESIGNS["clusters"](500, 40, centres=10, spread=1e-3, generator=seeded())
    assert float((X[:, 3] - X[:, 13]).std()) == pytest.approx(1e-3 * math.sqrt(2), rel=0.2)
    assert float((X[:, 3] - X[:, 4]).std()) > 1
    mixed = DESIGNS["mixed"](500, 40, centres=4, generator=seeded())
    assert float((mixed[:, 20] - mixed[:, 24]).std()) < 2e-3
    assert float((mixed[:, 0] - mixed[:, 4]).std()) > 1


def test_walks_and_trees_step_as_they_say():
    X = walk_design(4000, 5, step=0.02, generator=seeded())
    assert float((X[:, 3] - X[:, 2]).std()) == pytest.approx(0.02, rel=0.05)
    X = tree_design(4000, 16, ratio=0.25, generator=seeded())
    for child, parent, depth in ((1, 0, 1), (4, 1, 2), (6, 2, 2), (15, 7, 4)):
        assert float((X[:, child] - X[:, parent]).std()) == pytest.approx(0.25 ** depth, rel=0.05)


def test_geometric_directions_fade():
    s = torch.linalg.svdvals(DESIGNS["geometric"](200, 300, rank=20, decades=0.5, generator=seeded()))
    assert float(s[20]) < 1e-10 * float(s[0])
    assert 1e3 < float(s[0] / s[10]) < 1e7


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), k=st.integers(1, 5))
def test_the_worst_signal_has_unit_energy_and_the_largest_coefficients(seed, k):
    X = walk_design(20, 12, generator=seeded(seed))
    support = torch.randperm(12, generator=seeded(seed))[:k]
    w = worst_case_signal(X, support)
    assert set(w.nonzero()[:, 0].tolist()) <= set(support.tolist())
    assert float((X @ w).square().mean()) == pytest.approx(1.0, rel=1e-8)
    other = torch.zeros_like(w).index_copy(0, support, torch.randn(k, dtype=F64, generator=seeded(seed + 1)))
    other = other / (X @ other).square().mean().sqrt()
    assert float(other.norm()) <= float(w.norm()) * (1 + 1e-8)


@pytest.mark.parametrize("name", SPECTRA)
def test_spectra_ship_with_the_package(name):
    X, y = spectra(name)
    assert X.shape == {"gasoline": (60, 401), "yarn": (28, 268)}[name]
    assert y.shape == X.shape[:1]
    X = X - X.mean(dim=0)
    near = (X[:, 1:] * X[:, :-1]).sum(0) / (X[:, 1:].norm(dim=0) * X[:, :-1].norm(dim=0))
    assert float(near.median()) > 0.99


@pytest.mark.public_door
@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: DESIGNS["iid"](0, 3, generator=seeded()), ValueError, "n must be at least 1"),
    (lambda: DESIGNS["clusters"](3, 3, centres=0, generator=seeded()), ValueError, "centres must be at least 1"),
    (lambda: DESIGNS["clusters"](3, 3, spread=0.0, generator=seeded()), ValueError, "spread must be finite and pos"),
    (lambda: DESIGNS["geometric"](3, 3, rank=0, generator=seeded()), ValueError, "rank must be at least 1"),
    (lambda: DESIGNS["geometric"](3, 3, decades=-1.0, generator=seeded()), ValueError, "decades must be finite"),
    (lambda: DESIGNS["walk"](3, 3, step=0.0, generator=seeded()), ValueError, "step must be finite and positive"),
    (lambda: DESIGNS["tree"](3, 3, ratio=1.0, generator=seeded()), ValueError, "ratio must lie strictly between"),
    (lambda: DESIGNS["mixed"](3, 1, generator=seeded()), ValueError, "d must be at least 2"),
    (lambda: spectra("milk"), ValueError, "name must be one of 'gasoline', 'yarn'"),
    (lambda: worst_case_signal(torch.ones(3), torch.tensor([0])), ValueError, "X must be a real matrix"),
    (lambda: worst_case_signal(torch.eye(3), torch.tensor([0.0])), TypeError, "support must be a vector of int64"),
    (lambda: worst_case_signal(torch.eye(3), torch.tensor([0, 0])), ValueError, "support must hold different numbers"),
    (lambda: worst_case_signal(torch.eye(3), torch.tensor([3])), ValueError, "between 0 and 2"),
    (lambda: worst_case_signal(torch.ones(2, 4), torch.arange(3)), ValueError, "no more entries than X has rows, 2"),
    (lambda: worst_case_signal(torch.ones(3, 3), torch.tensor([0, 1])), ValueError, "depend on one another"),
])
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
