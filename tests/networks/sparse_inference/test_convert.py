import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from sparsepriors.kernels import SpmmCosts
from sparsepriors.networks.models import efficientnet_lite0, model
from sparsepriors.networks.packed_linear import PackedLinear
from sparsepriors.networks.sparse_inference import (
    SparseConv1x1,
    SparseLinear,
    packed_linear,
    packed_nm_linear,
    sparsify_for_inference,
)
from sparsepriors.networks.sparse_inference.follow import watched
from sparsepriors.networks.sparse_inference.layers import ClampedConv
from sparsepriors.priors import NM, Unstructured

ALWAYS = SpmmCosts(call=0.0, weight=(0.0, 0.0, 0.0), read=0.0, write=0.0)
NEVER = SpmmCosts(dense_call=0.0, multiply=0.0, dense_move=0.0, linear_call=0.0)


@torch.no_grad()
def _pruned(network: nn.Module, sparsity: float = 0.9, seed: int = 0) -> nn.Module:
    """Small 1 x 1 and linear weights set to zero, batch normalisation with statistics of some images."""
    generator = torch.Generator().manual_seed(seed)
    for m in network.modules():
        if isinstance(m, nn.Linear) or (isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)):
            threshold = m.weight.abs().flatten().kthvalue(max(1, int(sparsity * m.weight.numel()))).values
            m.weight[m.weight.abs() <= threshold] = 0
        if isinstance(m, nn.BatchNorm2d) and m.running_mean is not None and m.running_var is not None:
            m.running_mean.copy_(torch.randn(m.num_features, generator=generator) / 10)
            m.running_var.copy_(0.5 + torch.rand(m.num_features, generator=generator))
            m.weight.copy_(0.5 + torch.rand(m.num_features, generator=generator))
            m.bias.copy_(torch.randn(m.num_features, generator=generator) / 10)
    return network.eval()


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return float((a - b).abs().max()) <= 1e-4 * float(b.abs().max())


@pytest.mark.parametrize(("name", "options"), [
    ("mobilenet-v1", {"width": 0.25, "stem": "cifar", "classes": 10}),
    ("mobilenet-v2", {"width": 0.35, "stem": "cifar", "classes": 10}), ("efficientnet-lite0", {"classes": 10}),
    ("resnet8", {"classes": 10}), ("vit", {"size": 16, "patch": 4, "width": 16, "depth": 2, "heads": 2})])
@torch.no_grad()
def test_a_converted_network_gives_the_answers_of_the_pruned_one(name, options):
    network = _pruned(model(name, generator=torch.Generator().manual_seed(1), **options))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    x = torch.randn(2, 1 if name == "vit" else 3, 16 if name == "vit" else 32, 16 if name == "vit" else 32)
    fast = sparsify_for_inference(network, x, costs=ALWAYS)
    assert _close(fast(x), network(x))
    other = torch.randn(3, *x.shape[1:])   # another batch than the example's
    assert _close(fast(other), network(other))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    packed = [m for m in fast.modules() if isinstance(m, SparseConv1x1)]
    dense = [c for c in fast.choices if c.why]
    assert len(packed) == len(fast.choices) - len(dense) > 0
    if "mobilenet" in name or "efficient" in name:
        assert not any(isinstance(m, nn.BatchNorm2d | nn.ReLU | nn.ReLU6) for m in fast.modules())
        assert all("its kernel is 3 x 3" in c.why or "its kernel is 5 x 5" in c.why for c in dense)


@torch.no_grad()
def test_a_pretrained_network_keeps_its_answers():
    network = efficientnet_lite0(pretrained=True)
    for m in network.modules():
        if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1):
            m.weight[m.weight.abs() <= m.weight.abs().flatten().kthvalue(m.weight.numel() * 7 // 10).values] = 0
    x = torch.randn(1, 3, 64, 64)
    fast = sparsify_for_inference(network, x)
    assert _close(fast(x), network(x))
    report = fast.report(repeats=1)
    assert report.gain is not None
    assert report.gain > 0
    text = str(report)
    assert "_blocks.3._expand_conv" in text
    assert f"{len(report.packed)} of 50 layers are packed" in text
    assert {layer["kernel"] for layer in report.to_dict()["layers"]} >= {"dense", "spmm 1 x 1"}


@torch.no_grad()
def test_costs_and_sparsity_decide():
    network = _pruned(model("mobilenet-v1", generator=torch.Generator().manual_seed(1), width=0.25, stem="cifar"), 0.7)
    x = torch.randn(1, 3, 16, 16)
    never = sparsify_for_inference(network, x, costs=NEVER)
    assert not never.report().packed
    assert {c.why for c in never.choices} == {"its kernel is 3 x 3", "dense is expected to be faster"}
    assert _close(never(x), network(x))
    strict = sparsify_for_inference(network, x, costs=ALWAYS, min_sparsity=0.8)
    assert {c.why for c in strict.choices} == {"its kernel is 3 x 3", "fewer than 80% of its weights are zero"}
    assert sum(isinstance(m, ClampedConv) for m in strict.modules()) == 27
    assert strict.report().gain is None


@torch.no_grad()
def test_state_dicts_go_from_one_conversion_to_another():
    network = _pruned(model("mobilenet-v2", generator=torch.Generator().manual_seed(1), width=0.35, stem="cifar"))
    x = torch.randn(1, 3, 16, 16)
    first, second = (sparsify_for_inference(network, x, costs=ALWAYS) for _ in range(2))
    for t in second.state_dict().values():
        if t.is_floating_point():
            t.zero_()
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(x), first(x))
    assert torch.equal(copy.deepcopy(first)(x), first(x))


@torch.no_grad()
def test_a_linear_packer_of_ones_own_is_asked_first():
    class Half(nn.Linear):
        pass

    asked = []

    def half(linear, rows, costs):
        asked.append((linear.in_features, rows, costs is ALWAYS))
        return Half(8, 4) if linear.in_features == 8 else None

    network = _pruned(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)))
    fast = sparsify_for_inference(network, torch.randn(5, 3, 6), costs=ALWAYS,
                                  linear=(half, lambda linear, rows, costs: SparseLinear.from_linear(linear)))
    assert [type(m) for m in fast.network.children()] == [SparseLinear, nn.ReLU, Half]
    assert asked == [(6, 15, True), (8, 15, True)]
    assert [layer.kernel for layer in fast.report().layers] == ["spmm 1 x 1", "Half"]


@torch.no_grad()
def test_patterns_take_their_own_kernel_and_leave_other_layers_to_the_next_packer():
    first, last = nn.Linear(16, 12), nn.Linear(12, 8)
    network = nn.Sequential(first, nn.GELU(), last).eval()
    for layer, pattern in ((first, NM(2, 4)), (last, Unstructured(0.3))):
        layer.weight.copy_(pattern.project(layer.weight))
    last.weight[0, :4] = 1.0   # four in a group
    x = torch.randn(40, 16)
    fast = sparsify_for_inference(network, x, costs=ALWAYS, linear=(packed_nm_linear(2, 4), packed_linear))
    assert [type(m) for m in fast.network.children()] == [PackedLinear, nn.GELU, SparseLinear]
    assert _close(fast(x), network(x))
    report = fast.report(repeats=1)
    assert [layer.kernel for layer in report.layers] == ["2:4", "spmm 1 x 1"]
    assert all(layer.gain for layer in report.layers)


class _Odd(nn.Module):
    """Convolutions whose output has another reader than the normalisation that follows, in several ways."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d, self.e = (nn.Conv2d(4, 4, 1) for _ in range(5))
        self.norm0, self.norm1, self.norm2, self.norm3, self.norm4 = (nn.BatchNorm2d(4) for _ in range(5))
        self.act = nn.ReLU(inplace=True)
        self.idle = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        a = self.a(x)
        b = self.norm0(a) + a               # read twice
        b = self.norm1(functional.relu(self.b(b)))   # read by a function first
        c = self.norm2(self.norm2(self.c(b)))     # a normalisation that runs twice
        d = self.act(self.norm3(self.d(c)))          # folded: normalisation and activation in place
        e = self.e(d)
        return {"y": self.norm4(e), "e": e}          # also an output


@torch.no_grad()
def test_nothing_is_folded_that_another_reads():
    network = _Odd()
    _pruned(network, 0.5)
    x = torch.randn(2, 4, 5, 5)
    seen = watched(network, (x,), {})
    assert set(seen.next.items()) == {(network.d, network.norm3), (network.norm3, network.act),
                                      (network.norm1, network.c), (network.act, network.e)}
    fast = sparsify_for_inference(network, x, costs=ALWAYS)
    for name, want in network(x).items():
        assert _close(fast(x)[name], want)
    assert {c.name: c.why for c in fast.choices}["idle"] == "the example does not reach it"
    keywords = sparsify_for_inference(network, {"x": x}, costs=ALWAYS)
    assert torch.equal(keywords(x=x)["y"], fast(x)["y"])


@torch.no_grad()
def test_a_layer_of_two_places_is_packed_in_both():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(4, 4, 1)
            self.second = self.first

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x))

    network = _pruned(Twice(), 0.5)
    x = torch.randn(2, 4, 5, 5)
    fast = sparsify_for_inference(network, x, costs=ALWAYS)
    assert isinstance(fast.network.first, SparseConv1x1)
    assert fast.network.first is fast.network.second
    assert _close(fast(x), network(x))


@pytest.mark.public_door
def test_bad_input():
    conv, x = nn.Conv2d(4, 4, 1), torch.randn(1, 4, 2, 2)
    network = nn.Sequential(conv).eval()
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got str"):
        sparsify_for_inference("net", x)
    with pytest.raises(ValueError, match="min_sparsity must be from 0 to 1, got 2"):
        sparsify_for_inference(network, x, min_sparsity=2)
    with pytest.raises(ValueError, match="model must be in evaluation mode"):
        sparsify_for_inference(copy.deepcopy(network).train(), x)
    with pytest.raises(ValueError, match="on the CPU, got parameters on meta"):
        sparsify_for_inference(copy.deepcopy(network).to("meta"), x)
    with pytest.raises(ValueError, match="repeats must be at least 1"):
        sparsify_for_inference(network, x).report(repeats=0)
    with torch.no_grad():
        conv.weight.zero_()[0] = math.inf
    with pytest.raises(ValueError, match="layer '0': weight holds NaN or infinite"):
        sparsify_for_inference(network, x)
    linear = nn.Linear(4, 4)
    half = nn.Sequential(linear).eval().bfloat16()
    with torch.no_grad():
        linear.weight.zero_()
    found = sparsify_for_inference(half, torch.ones(2, 4, dtype=torch.bfloat16), costs=ALWAYS)
    assert found.choices[0].why == "its weights are torch.bfloat16"


@torch.no_grad()
def test_a_language_model_generates_the_same_tokens():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                                      vocab_size=100)
    language: Any = transformers.LlamaForCausalLM(config).eval()
    _pruned(language.model)
    tokens = torch.randint(0, 100, (1, 20), generator=torch.Generator().manual_seed(0))
    fast = sparsify_for_inference(language, {"input_ids": tokens}, costs=ALWAYS)
    assert sum(not c.why for c in fast.choices) == 14
    assert _close(fast(input_ids=tokens).logits, language(input_ids=tokens).logits)
    packed: Any = fast.network
    same = [m.generate(tokens, max_new_tokens=3, do_sample=False, pad_token_id=0) for m in (packed, language)]
    assert torch.equal(*same)
