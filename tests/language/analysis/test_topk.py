"""Top-k in the place of activation functions: bounded neurons, the same weights, and the way back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sparsepriors.language.analysis.activation import ActivationSparsity
from sparsepriors.language.analysis.topk import convert_topk
from sparsepriors.networks.models import MLP, TinyViT, VisionTransformer, seeded


def network() -> TinyViT:
    with seeded(torch.Generator().manual_seed(0)):
        return TinyViT(size=8, width=16, depth=3, heads=2, hidden=32)


IMAGES = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_converted_model_is_one_that_was_built_so_and_undone_it_is_what_it_was() -> None:
    model = network()
    with seeded(torch.Generator().manual_seed(0)):
        built = TinyViT(size=8, width=16, depth=3, heads=2, hidden=32, topk=4)
    plain, names = model(IMAGES), list(model.state_dict())
    done = convert_topk(model, 4)
    assert done.places == tuple(f"blocks.{i}.mlp.act" for i in range(3))
    assert torch.equal(model(IMAGES), built(IMAGES))
    assert list(model.state_dict()) == names
    with ActivationSparsity(model) as meter:
        model(IMAGES)
    assert max(meter.most().values()) <= 4
    done.undo()
    assert torch.equal(model(IMAGES), plain)
    convert_topk(model, 3)
    done.undo()                                             # undone before: nothing changes
    assert not torch.equal(model(IMAGES), plain)


def test_all_neurons_change_nothing_and_some_layers_can_be_left_out() -> None:
    model = network()
    plain = model(IMAGES)
    with convert_topk(model, 32):
        assert torch.equal(model(IMAGES), plain)
    with convert_topk(model, 1, match="blocks.[12].*") as done:
        assert len(done.places) == 2
        with ActivationSparsity(model) as meter:
            model(IMAGES)
    most = meter.most()
    assert most["blocks.0.mlp.act"] > 1 == most["blocks.1.mlp.act"]
    assert torch.equal(model(IMAGES), plain)


def test_a_module_that_layers_share_is_replaced_at_every_place() -> None:
    act = nn.ReLU()
    model = nn.Sequential(nn.Linear(64, 6), act, nn.Linear(6, 5), act)
    plain = model(IMAGES.flatten(1))
    with convert_topk(model, 2) as done, ActivationSparsity(model) as meter:
        model(IMAGES.flatten(1))
    assert done.places == ("1", "3")
    assert meter.most() == {"1": 2, "3": 2}
    assert model[1] is model[3] is act
    assert torch.equal(model(IMAGES.flatten(1)), plain)


def test_a_second_conversion_changes_k_and_keeps_the_mode() -> None:
    model = network().eval()
    convert_topk(model, 9)
    convert_topk(model, 2)
    act: Any = model.get_submodule("blocks.0.mlp.act")
    assert act.k == 2
    assert isinstance(act.activation, nn.ReLU)
    assert not act.training


def test_smooth_activations_keep_their_largest_moduli_when_asked() -> None:
    model = VisionTransformer(size=8, depth=1)
    with pytest.raises(ValueError, match="nonneg=False"):
        convert_topk(model, 3)
    with convert_topk(model, 3, nonneg=False), ActivationSparsity(model) as meter:
        model(IMAGES)
    assert meter.most() == {"blocks.0.mlp.act": 3}


@pytest.mark.public_door
def test_what_is_refused() -> None:
    model = network()
    for k in (0, -1):
        with pytest.raises(ValueError, match="k must be at least 1"):
            convert_topk(model, k)
    with pytest.raises(TypeError, match="k must be an integer"):
        convert_topk(model, 0.5)
    with pytest.raises(ValueError, match=r"got 'mlp'; there are blocks.0.mlp.act, blocks.1"):
        convert_topk(model, 3, match="mlp")
    with pytest.raises(ValueError, match="functions that modules call cannot be replaced"):
        convert_topk(MLP(size=8), 3)
    with pytest.raises(TypeError, match="model must be"):
        convert_topk(IMAGES, 3)
    with convert_topk(model, 33), pytest.raises(ValueError, match="at most the number of neurons, got 33 of 32"):
        model(IMAGES)
