"""Paths through masks, against a count of paths and on networks that are cut on purpose."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.networks.models import MLP, model
from sparsepriors.networks.sparse import ERK, connectivity, select
from sparsepriors.priors.patterns import Unstructured


def random_masks(network: torch.nn.Module, density: float, seed: int) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    scores = {n: torch.rand(s.parameter.shape, generator=g) for n, s in select(network).items()}
    return ERK().masks(Unstructured(density), scores)


@given(density=st.floats(0.01, 0.4), seed=st.integers(0, 999))
def test_live_weights_are_those_on_a_path(density: float, seed: int) -> None:
    network = MLP(hidden=(12, 9), size=4, classes=3)
    masks = random_masks(network, density, seed)
    chain = list(masks.values())
    reached = [torch.ones(16, dtype=torch.bool)]
    for mask in chain:
        reached.append((mask & reached[-1]).any(dim=1))
    needed = [torch.ones(3, dtype=torch.bool)]
    for mask in reversed(chain):
        needed.insert(0, (mask & needed[0][:, None]).any(dim=0))
    expected = [int((m & reached[i] & needed[i + 1][:, None]).sum()) for i, m in enumerate(chain)]
    found = connectivity(network, masks, torch.zeros(1, 1, 4, 4))
    assert list(found.live.values()) == expected
    assert list(found.kept.values()) == [int(m.sum()) for m in chain]
    assert found.density == sum(expected) / sum(m.numel() for m in chain)
    assert found.collapsed == tuple(n for n, e in zip(masks, expected, strict=True) if e == 0)


@pytest.mark.parametrize(("name", "options", "side"), [
    ("cifar_resnet_20_4", {}, 8), ("mobilenet-v2", {"width": 0.25, "stem": "cifar"}, 16),
    ("resnet50", {"width": 4}, 32), ("small-conv", {"width": 4}, 8),
    ("vit", {"depth": 2, "size": 8}, 8), ("efficientnet-lite0", {}, 32)])
def test_a_dense_network_is_connected_and_left_as_it_was(name: str, options: dict[str, object], side: int) -> None:
    network = model(name, generator=torch.Generator().manual_seed(0), in_channels=1, **options)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    masks = {n: torch.ones_like(s.parameter, dtype=torch.bool) for n, s in select(network).items()}
    found = connectivity(network, masks, torch.zeros(1, 1, side, side))
    assert found.collapsed == ()
    assert network.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert not any(m._forward_hooks for m in network.modules())


def test_a_shortcut_keeps_a_residual_network_connected_around_an_empty_layer() -> None:
    network = model("cifar_resnet_8_4", generator=torch.Generator().manual_seed(0), in_channels=1)
    masks = {n: torch.ones_like(s.parameter, dtype=torch.bool) for n, s in select(network).items()}
    masks["layer1.0.conv1.weight"].zero_()
    found = connectivity(network, masks, torch.zeros(1, 1, 8, 8))
    assert set(found.collapsed) == {"layer1.0.conv1.weight", "layer1.0.conv2.weight"}
    masks["conv1.weight"].zero_()
    assert set(connectivity(network, masks, torch.zeros(1, 1, 8, 8)).collapsed) == set(masks)


@pytest.mark.public_door
def test_bad_masks_are_refused() -> None:
    network, x = MLP(hidden=(4,), size=2), torch.zeros(1, 1, 2, 2)
    with pytest.raises(TypeError, match="the mask of a must be a boolean"):
        connectivity(network, {"a": torch.zeros(2)}, x)
    with pytest.raises(ValueError, match="no such parameter"):
        connectivity(network, {"a": torch.zeros(2, dtype=torch.bool)}, x)
    with pytest.raises(ValueError, match=r"shape \(2,\), the model has \(4, 4\)"):
        connectivity(network, {"layers.0.weight": torch.zeros(2, dtype=torch.bool)}, x)
