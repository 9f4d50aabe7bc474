"""The net covers the sparse ball, and its sums over supports are those of dense vectors."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from sparsepriors.regression.bandits import SparseCandidates, sparse_net, sparse_supports


@settings(max_examples=40)
@given(dim=st.integers(1, 6), sparsity=st.integers(1, 3), resolution=st.floats(0.15, 1.0), radius=st.floats(0.3, 1.5),
       seed=st.integers(0, 1000))
def test_every_sparse_parameter_has_a_candidate_nearby(dim: int, sparsity: int, resolution: float, radius: float,
                                                       seed: int) -> None:
    sparsity = min(sparsity, dim)
    net = sparse_net(dim, sparsity, resolution, radius=radius)
    all_of_them = torch.stack([net.dense(i, dim) for i in range(0, len(net), max(1, len(net) // 50))])
    assert int(all_of_them.count_nonzero(1).max()) <= sparsity
    assert float(torch.linalg.vector_norm(net.points, dim=-1).max()) <= radius + resolution + 1e-12
    g = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(50, sparsity, generator=g, dtype=torch.float64), dim=1)
    for size in (radius, radius * float(torch.rand((), generator=g))):
        assert float(torch.cdist(size * directions, net.points[0]).amin(1).max()) <= resolution * (1 + 1e-9)
    assert len(net) <= math.comb(dim, sparsity) * (
        1 + (radius + resolution) * math.sqrt(sparsity) / resolution) ** sparsity


@pytest.mark.parametrize("shared", [True, False])
def test_predictions_are_those_of_dense_vectors(shared: bool) -> None:
    g = torch.Generator().manual_seed(0)
    supports = sparse_supports(5, 2)
    points = torch.randn(1 if shared else len(supports), 7, 2, generator=g)
    candidates = SparseCandidates(supports, points)
    features = torch.randn(600, 5, generator=g)
    thetas = torch.stack([candidates.dense(i, 5) for i in range(len(candidates))])
    predicted = features @ thetas.mT
    torch.testing.assert_close(candidates.predict(features[3]).flatten(), predicted[3])
    torch.testing.assert_close(candidates.values(features).flatten(), predicted.amax(0))
    assert torch.equal(candidates.maximisers(features).flatten(), predicted.argmax(0))
    for i in (0, 30, 69):
        assert candidates.maximiser(i, features) == int(predicted[:, i].argmax())


def test_supports_are_all_of_them_once() -> None:
    supports = sparse_supports(7, 3)
    assert len({tuple(s) for s in supports.tolist()}) == math.comb(7, 3) == len(supports)
    assert bool((supports.diff(dim=1) > 0).all())


@pytest.mark.public_door
def test_a_net_too_large_is_refused_before_it_is_made() -> None:
    with pytest.raises(ValueError, match="max_candidates must not be less than the size of the net"):
        sparse_net(10_000, 4, 0.01)
    with pytest.raises(ValueError, match="got 100; a larger resolution"):
        sparse_net(20, 2, 0.3, max_candidates=100)
    with pytest.raises(ValueError, match="sparsity must be from 1 to 3"):
        sparse_net(3, 4, 0.1)
    with pytest.raises(ValueError, match="resolution must be finite and positive"):
        sparse_net(3, 1, 0.0)
    with pytest.raises(ValueError, match="sparsity must be from 1 to 3"):
        sparse_supports(3, 0)
    with pytest.raises(ValueError, match="supports must be integers"):
        SparseCandidates(torch.zeros(3, 2), torch.zeros(1, 4, 2))
    with pytest.raises(ValueError, match=r"points must have shape \(3 or 1, points, 2\), got \(2, 4, 2\)"):
        SparseCandidates(torch.zeros(3, 2, dtype=torch.long), torch.zeros(2, 4, 2))
