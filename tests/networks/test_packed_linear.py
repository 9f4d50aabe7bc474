import copy

import pytest
import torch
from safetensors.torch import load_model, save_model
from torch import nn

from sparsepriors.kernels import pack_linear_nm
from sparsepriors.networks import PackedLinear, pack_nm_model, prune
from sparsepriors.priors import NM


def sparse_linear(inputs: int, outputs: int, *, bias: bool = True, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    linear = nn.Linear(inputs, outputs, bias=bias)
    with torch.no_grad():
        linear.weight.copy_(NM(2, 4).project(linear.weight))
    return linear


def llama():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=88, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, tie_word_embeddings=False)
    return transformers.LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(8,), (3, 8), (2, 3, 8)])
def test_it_computes_what_the_layer_did(bias, shape):
    linear = sparse_linear(8, 20, bias=bias)
    packed = PackedLinear.from_linear(linear, 2, 4)
    x = torch.randn(shape)
    torch.testing.assert_close(packed(x), linear(x))
    assert torch.equal(packed.dense_weight(), linear.weight)
    assert packed.nbytes == packed.packed.nbytes
    assert "pattern=2:4" in repr(packed)


def test_all_linear_layers_of_a_language_model_give_the_logits_of_the_masked_dense_one():
    model = llama()
    prune(model, NM(2, 4))
    packed = copy.deepcopy(model)
    report = pack_nm_model(packed, 2, 4)
    assert len(report) == 2 * 7 + 1
    assert all(layer.packed for layer in report)
    assert sum(isinstance(m, PackedLinear) for m in packed.modules()) == len(report)
    assert sum(layer.nbytes for layer in report) < 0.6 * sum(layer.dense_bytes for layer in report)
    tokens = torch.randint(64, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(packed(tokens).logits, model(tokens).logits, rtol=1e-4, atol=1e-5)
        generated = [m.generate(tokens[:1], max_new_tokens=8, do_sample=False, pad_token_id=0) for m in (model, packed)]
    assert torch.equal(*generated)


def test_state_dicts_and_safetensors_round_trip(tmp_path):
    net, other, assign, file = (nn.Sequential(PackedLinear.from_linear(sparse_linear(8, 20, seed=s), 2, 4), nn.ReLU())
                                for s in range(4))
    x = torch.randn(3, 8)
    assert not torch.equal(net(x), other(x))
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(x), other(x))
    assign.load_state_dict(net.state_dict(), assign=True)
    assert torch.equal(net(x), assign(x))
    save_model(net, str(tmp_path / "net.safetensors"))
    load_model(file, str(tmp_path / "net.safetensors"))
    assert torch.equal(net(x), file(x))


def test_dtypes_change_as_those_of_a_model_do():
    linear = sparse_linear(8, 20)
    packed = PackedLinear.from_linear(linear, 2, 4)
    half = copy.deepcopy(packed).to(torch.bfloat16)
    assert torch.equal(half.dense_weight(), linear.weight.bfloat16())
    assert half.bias is not None
    assert half.bias.dtype == torch.float32
    x = torch.randn(3, 8).bfloat16()
    assert half(x).dtype == torch.bfloat16
    torch.testing.assert_close(half(x), linear.bfloat16()(x), rtol=0.02, atol=0.02)
    assert torch.equal(half.float().dense_weight(), half.dense_weight().float())
    assert packed.half().values.dtype == torch.float32
    torch.testing.assert_close(packed(x.float()), half(x.float()), rtol=0.02, atol=0.02)


def test_layers_that_cannot_be_packed_stay_and_say_why():
    class Own(nn.Linear):
        pass

    shared = sparse_linear(8, 8)
    net = nn.ModuleDict({"good": sparse_linear(8, 4), "dense": nn.Linear(8, 4), "odd": nn.Linear(6, 4),
                         "own": Own(8, 4), "one": shared, "two": nn.Linear(8, 8)})
    net["two"].weight = shared.weight
    report = {layer.name: layer for layer in pack_nm_model(net, 2, 4, dtype=torch.bfloat16)}
    assert isinstance(net["good"], PackedLinear)
    assert net["good"].values.dtype == torch.bfloat16
    assert {name: layer.why_not for name, layer in report.items()} == {
        "good": "", "dense": "has groups of 4 nonzeros", "odd": "6 inputs are no multiple of 4", "own": "is a Own",
        "one": "shares its weight", "two": "shares its weight"}
    assert report["dense"].nbytes == report["dense"].dense_bytes == (8 * 4 + 4) * 4
    assert report["good"].nbytes == net["good"].nbytes == 4 * 16 * 2 + 2 * 8 + 16 + 4 * 4


@pytest.mark.public_door
@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: PackedLinear(nn.Linear(8, 4)), TypeError, "packed must be a PackedNM, got Linear"),
    (lambda: PackedLinear.from_linear(nn.Conv1d(4, 4, 1), 2, 4), TypeError, "linear must be a torch.nn.Linear"),
    (lambda: PackedLinear.from_linear(nn.Linear(8, 4), 2, 4), ValueError, "weight is not 2:4 sparse"),
    (lambda: pack_nm_model(nn.Linear(8, 4), 2, 4), TypeError, "a module that holds linear layers, got Linear"),
    (lambda: pack_nm_model(nn.Sequential(nn.ReLU()), 2, 4), ValueError, "no 2:4 sparse linear layer: no linear layer"),
    (lambda: pack_nm_model(nn.Sequential(nn.Linear(8, 4)), 2, 4), ValueError, "0: has groups of 4 nonzeros"),
    (lambda: pack_nm_model(nn.Sequential(nn.Linear(8, 4)), 2, 40), ValueError, "m must be from 1 to 32"),
])
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_module_follows_new_buffers():
    layer = PackedLinear.from_linear(sparse_linear(8, 20), 2, 4)
    other = pack_linear_nm(sparse_linear(8, 20, seed=1).weight, 2, 4)
    layer.values, layer.places, layer.bias = other.values, other.places, None
    assert torch.equal(layer.dense_weight(), other.dense())
