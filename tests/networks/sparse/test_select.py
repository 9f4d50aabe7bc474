import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as torch_prune

from sparsepriors.networks.sparse import Selector, select


def network():
    return nn.ModuleDict({
        "stem": nn.Conv2d(3, 4, 3), "norm": nn.BatchNorm2d(4), "words": nn.Embedding(5, 6),
        "block": nn.ModuleDict({"query": nn.Linear(4, 4), "value": nn.Linear(4, 4)}), "head": nn.Linear(4, 2)})


def test_linear_and_convolutional_weights_are_selected_by_default():
    assert list(select(network())) == ["stem.weight", "block.query.weight", "block.value.weight", "head.weight"]


@pytest.mark.parametrize(("selector", "expected"), [
    (Selector(skip=("stem", "head")), ["block.query.weight", "block.value.weight"]),
    (Selector(skip=("block.value",)), ["stem.weight", "block.query.weight", "head.weight"]),
    (Selector(only=("block",)), ["block.query.weight", "block.value.weight"]),
    (Selector(only=("block",), skip=("qu*",)), ["block.value.weight"]),
])
def test_names_match_whole_layers_or_their_parts(selector, expected):
    assert list(select(network(), selector)) == expected
    assert Selector.from_dict(selector.to_dict()) == selector


def test_any_predicate_serves():
    assert list(select(network(), lambda name, module, weight: weight.ndim == 4)) == ["stem.weight"]


def test_a_shared_weight_is_selected_once():
    model = network()
    model["block"]["value"].weight = model["block"]["query"].weight  # pyright: ignore[reportIndexIssue]
    found = select(model)
    assert "block.value.weight" not in found
    assert found["block.query.weight"].shared == ("block.value",)


def test_a_bare_layer_has_a_bare_name():
    assert list(select(nn.Linear(2, 2))) == ["weight"]


@pytest.mark.public_door
def test_bad_selections_are_refused():
    with pytest.raises(ValueError, match=r"'bloc'; near: block"):
        select(network(), Selector(skip=("bloc",)))
    with pytest.raises(ValueError, match="no layer is selected"):
        select(network(), lambda name, module, weight: False)
    with pytest.raises(ValueError, match="none"):
        select(nn.BatchNorm1d(3))
    with pytest.raises(TypeError, match="skip"):
        Selector(skip="stem")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="model"):
        select(torch.zeros(2, 2))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("other", [
    lambda m: torch_prune.l1_unstructured(m, "weight", 1), parametrizations.weight_norm])
def test_weights_that_another_tool_computes_are_refused(other):
    model = network()
    other(model["head"])
    with pytest.raises(ValueError, match="'head' is not a parameter of its own"):
        select(model)
