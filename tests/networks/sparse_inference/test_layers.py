import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn

from sparsepriors.networks.sparse_inference import SparseConv1x1, SparseLinear


def _conv(inputs: int, outputs: int, density: float, seed: int, *, bias: bool) -> nn.Conv2d:
    generator = torch.Generator().manual_seed(seed)
    conv = nn.Conv2d(inputs, outputs, 1, bias=bias).eval()
    with torch.no_grad():
        conv.weight[torch.rand(conv.weight.shape, generator=generator) >= density] = 0
    return conv


def _norm(channels: int, seed: int) -> nn.BatchNorm2d:
    generator = torch.Generator().manual_seed(seed)
    norm = nn.BatchNorm2d(channels).eval()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.weight.copy_(torch.randn(channels, generator=generator))
        norm.bias.copy_(torch.randn(channels, generator=generator))
        norm.running_mean.copy_(torch.randn(channels, generator=generator))
        norm.running_var.copy_(0.5 + torch.rand(channels, generator=generator))
    return norm


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([0.0, 0.3, 1.0]), st.booleans(), st.booleans(),
       st.sampled_from([None, nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-0.5, 0.25)]), st.sampled_from([1, 2, 4, "auto"]),
       st.integers(0, 99))
@torch.no_grad()
def test_convolution_normalisation_and_clamp_in_one(inputs, outputs, density, bias, normed, act, block, seed):
    torch.manual_seed(seed)
    conv, norm = _conv(inputs, outputs, density, seed, bias=bias), _norm(outputs, seed) if normed else None
    x = torch.randn(2, inputs, 5, 7)
    want = conv(x)
    for step in (norm, act):
        want = want if step is None else step(want)
    packed = SparseConv1x1.from_conv(conv, norm, act, block)
    assert torch.allclose(packed(x), want, atol=1e-5)


@given(st.lists(st.integers(0, 5), max_size=3), st.integers(0, 99))
@torch.no_grad()
def test_linear_layers_take_any_leading_axes(rows, seed):
    torch.manual_seed(seed)
    linear = nn.Linear(9, 6)
    linear.weight[linear.weight.abs() < 0.2] = 0
    x = torch.randn(*rows, 9)
    y = SparseLinear.from_linear(linear)(x)
    assert y.shape == (*rows, 6)
    assert torch.allclose(y, linear(x), atol=1e-5)


@torch.no_grad()
def test_state_dicts_and_copies_give_the_same_bits():
    conv = _conv(12, 9, 0.4, 0, bias=True)
    layer, x = SparseConv1x1.from_conv(conv, act=nn.ReLU6(), block=2), torch.randn(1, 12, 4, 4)
    want = layer(x)
    other = copy.deepcopy(conv)
    other.weight.mul_(3)
    again = SparseConv1x1.from_conv(other, act=nn.ReLU6(), block=2)
    assert not torch.equal(again(x), want)
    again.load_state_dict(load(save(layer.state_dict())))
    assert torch.equal(again(x), want)
    assert torch.equal(copy.deepcopy(layer)(x), want)
    assert "block=2, density=0.4" in repr(layer)


def test_damaged_indices_are_refused_when_they_are_loaded_and_never_followed():
    layer = SparseConv1x1.from_conv(_conv(12, 9, 0.4, 0, bias=True))
    state = {name: t.clone() for name, t in layer.state_dict().items()}
    state["columns"][0] = 1_000_000
    with pytest.raises(ValueError, match="columns must be from 0 to 11"):
        layer.load_state_dict(state)
    with pytest.raises(ValueError, match="columns must be from 0 to 11"):
        layer(torch.randn(1, 12, 4, 4))


@pytest.mark.public_door
def test_what_cannot_be_packed_is_refused():
    for conv, words in ((nn.Conv2d(4, 4, 3), "its kernel is 3 x 3"), (nn.Conv2d(4, 4, 1, stride=2), "stride is 2 x 2"),
                        (nn.Conv2d(4, 4, 1, groups=2), "it has 2 groups"), (nn.Conv2d(4, 4, 1, padding=1), "padding")):
        with pytest.raises(ValueError, match=words):
            SparseConv1x1.from_conv(conv)
    conv = _conv(4, 4, 0.5, 0, bias=False)
    with pytest.raises(TypeError, match="act must be ReLU, ReLU6 or Hardtanh, got GELU"):
        SparseConv1x1.from_conv(conv, act=nn.GELU())
    with pytest.raises(ValueError, match="norm must be in evaluation mode"):
        SparseConv1x1.from_conv(conv, nn.BatchNorm2d(4))
    with pytest.raises(TypeError, match="weight must be torch.float32"):
        SparseConv1x1.from_conv(copy.deepcopy(conv).double())
    with torch.no_grad():
        conv.weight[0] = math.nan
    with pytest.raises(ValueError, match="weight holds NaN"):
        SparseConv1x1.from_conv(conv)
