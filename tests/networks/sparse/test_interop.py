import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass,
    sparse_semi_structured_to_dense_cutlass,
)

from sparse_nets import batch, network, optimizer_of, plan_of, sparsifier_of, train
from sparsepriors.networks.sparse import interop
from sparsepriors.networks.sparse.interop import from_torch_prune, to_semi_structured, to_torch_prune
from sparsepriors.priors.patterns import NM


def finished(preset="rigl"):
    model = network("mlp")
    sparsifier = sparsifier_of(model, plan_of(preset), optimizer_of(model))
    train(sparsifier)
    return model, sparsifier.finalize().masks


def test_masks_survive_the_way_to_torch_prune_and_back():
    model, masks = finished()
    plain = copy.deepcopy(model)
    x, _ = batch(0)
    to_torch_prune(model, masks)
    assert prune.is_pruned(model)
    for name, mask in masks.items():
        layer = model.get_submodule(name.removesuffix(".weight"))
        assert torch.equal(layer.get_buffer("weight_mask").bool(), mask)
        assert torch.equal(layer.get_parameter("weight_orig"), plain.get_parameter(name))
    assert torch.equal(model(x), plain(x))
    back = from_torch_prune(model)
    assert back.keys() == masks.keys()
    assert all(torch.equal(back[n], m) for n, m in masks.items())
    assert not prune.is_pruned(model)
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in model.state_dict().items())


def test_masks_of_torch_prune_leave_no_negative_zero():
    layer = nn.Linear(4, 4)
    nn.init.constant_(layer.weight, -1.0)
    prune.random_unstructured(layer, "weight", amount=8)
    masks = from_torch_prune(layer)
    assert int(masks["weight"].sum()) == 8
    assert not bool(torch.signbit(layer.weight[~masks["weight"]]).any())


@pytest.mark.public_door
def test_masks_that_do_not_fit_are_refused_and_nothing_is_changed():
    model, masks = finished()
    for bad, error, message in (
            ({"9.weight": masks["1.weight"]}, ValueError, "9.weight"),
            ({"1.bias": masks["1.weight"]}, ValueError, "1.bias"),
            ({"1.weight": masks["3.weight"]}, ValueError, r"\(32, 64\), got \(32, 32\)"),
            ({"1.weight": masks["1.weight"].float()}, TypeError, "boolean")):
        with pytest.raises(error, match=message):
            to_torch_prune(model, {"3.weight": masks["3.weight"], **bad})
        assert not prune.is_pruned(model)
    attached = network("mlp")
    sparsifier_of(attached, plan_of("random"), optimizer_of(attached))
    with pytest.raises(ValueError, match="finalize first"):
        to_torch_prune(attached, masks)
    with pytest.raises(ValueError, match="no mask of torch.nn.utils.prune"):
        from_torch_prune(model)


def test_semi_structured_weights_are_refused_where_there_is_no_cuda():
    model, _ = finished("sr-ste")
    with pytest.raises(ValueError, match=r"need a CUDA device, 1.weight is on cpu"):
        to_semi_structured(model)
    with pytest.raises(ValueError, match="no linear layer has a 2:4 sparse weight"):
        to_semi_structured(network("mlp"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("shape", [(64, 64), (64, 192), (192, 64)])
def test_the_projection_is_what_the_semi_structured_format_holds(shape, dtype):
    # The packing itself is tensor code that runs anywhere; only the product with the packed weight needs CUDA.
    projected = NM(2, 4).project(torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 20).to(dtype)
    values, places = sparse_semi_structured_from_dense_cutlass(projected)
    assert values.shape == (shape[0], shape[1] // 2)
    assert torch.equal(sparse_semi_structured_to_dense_cutlass(values, places), projected)


class Pretended:
    """What packs on the GPU, without one: the values and places that PyTorch's own format has, and back again."""

    def __init__(self, fails_at: int = 0) -> None:
        self.calls, self.fails_at = 0, fails_at

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.fails_at:
            raise RuntimeError("out of memory")
        assert not weight.requires_grad
        return sparse_semi_structured_to_dense_cutlass(*sparse_semi_structured_from_dense_cutlass(weight))


def halved() -> nn.Sequential:
    """2:4 weights of every kind, those that the format takes first and fourth."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(128, 64), nn.Linear(64, 96), nn.Linear(64, 64), nn.Linear(192, 64, bias=False),
                          nn.Linear(64, 64), nn.Conv2d(64, 64, 1)).half()
    model[2].float()
    with torch.no_grad():
        for i in (0, 1, 2, 3):
            weight = model.get_parameter(f"{i}.weight")
            weight.copy_(NM(2, 4).project(weight.float()))
    return model


def test_what_goes_to_the_semi_structured_format_is_chosen_by_pattern_dtype_and_sides(monkeypatch):
    pretended = Pretended()
    monkeypatch.setattr(interop, "_on_cuda", lambda weight: True)
    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", pretended)
    model = halved()
    before = copy.deepcopy(model.state_dict())
    assert to_semi_structured(model) == ("0.weight", "3.weight")
    assert pretended.calls == 2
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["0.weight", "3.weight"]


def test_a_conversion_that_fails_leaves_every_weight_as_it_was(monkeypatch):
    monkeypatch.setattr(interop, "_on_cuda", lambda weight: True)
    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", Pretended(fails_at=2))
    model = halved()
    weights = list(model.parameters())
    with pytest.raises(RuntimeError, match="out of memory"):
        to_semi_structured(model)
    assert all(a is b for a, b in zip(weights, model.parameters(), strict=True))
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="semi-structured tensors need CUDA")
def test_semi_structured_weights_give_the_same_outputs():
    model = nn.Sequential(nn.Linear(128, 128, bias=False), nn.Linear(128, 64)).cuda().half()
    with torch.no_grad():
        for layer in model:
            layer.weight.copy_(NM(2, 4).project(layer.weight.float()))   # pyright: ignore[reportCallIssue,reportAttributeAccessIssue]
    x = torch.randn(64, 128, device="cuda", dtype=torch.float16)
    want = model(x)
    assert to_semi_structured(model) == ("0.weight", "1.weight")
    torch.testing.assert_close(model(x), want, rtol=1e-2, atol=1e-2)
