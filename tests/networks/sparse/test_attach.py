"""Modules that share weights, or stand in a model twice: attached once, put back whole, and named in the books."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sparsepriors.networks.sparse import Selector, Sparsifier, preset


class Tied(nn.Module):
    """The output layer has the weight of the embedding, as language models do."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(8, 8), nn.Linear(8, 8, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.words(x))


def attached(model: nn.Module, name: str = "rigl", **options: object) -> Sparsifier:
    options |= {"every": 2, "density": 0.25} if name == "rigl" else {}
    return Sparsifier(model, preset(name, **options), torch.optim.SGD(model.parameters(), 0.1), total_steps=8,
                      generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["rigl", "sr-ste", "mdgf-exp"])
def test_one_module_under_two_names_is_attached_once_and_put_back(name: str) -> None:
    layer = nn.Linear(8, 8)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    sparsifier = attached(model, name)
    assert isinstance(layer.parametrizations, nn.ModuleDict)
    assert isinstance(layer.parametrizations["weight"], parametrize.ParametrizationList)
    assert len(layer.parametrizations["weight"]) == 1
    for step in range(8):
        sparsifier.optimizer.zero_grad()
        model(torch.randn(4, 8, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        sparsifier.optimizer.step()
    report = sparsifier.finalize()
    assert report.notes == ("0.weight is shared with 2 and masked once",)
    assert type(layer) is nn.Linear
    assert model[0] is model[2]
    assert int(torch.count_nonzero(layer.weight)) <= int(report.masks["0.weight"].sum())


@pytest.mark.parametrize("name", ["rigl", "sr-ste"])
def test_a_weight_that_an_embedding_uses_too_is_named_and_stays_one_weight(name: str) -> None:
    model = Tied()
    sparsifier = attached(model, name)
    assert sparsifier.notes == ("head.weight is also words.weight, which is not selected: there it is used as it is "
                                "stored, without the mask",)
    x = torch.arange(8)
    before = model(x).detach()
    report = sparsifier.finalize()
    assert model.head.weight is model.words.weight
    assert int(torch.count_nonzero(model.words.weight)) == int(report.masks["head.weight"].sum())
    # Where pruned weights are stored as zeros the embedding has seen them all along; straight through it has not.
    assert torch.equal(model(x), before) == (name == "rigl")


def test_a_sharing_layer_that_is_left_out_is_named() -> None:
    first, second = nn.Linear(8, 8), nn.Linear(8, 8)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    assert attached(model, "sr-ste", where=Selector(skip=("1",))).notes == (
        "0.weight is also 1.weight, which is not selected: there it is used as it is stored, without the mask",)
    plain = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    assert attached(plain).notes == ()
