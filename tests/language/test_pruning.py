"""Decoders pruned block by block."""

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, Gemma3ForCausalLM, Gemma3TextConfig, GPT2Config, GPT2LMHeadModel

from sparsepriors.language import decoder_blocks, perplexity, prune_blocks, pruning
from sparsepriors.language.stand_in import stand_in
from sparsepriors.networks import MagnitudePruning, Selector, SparseGPT, Wanda, prune
from sparsepriors.priors import NM, Unstructured

WINDOWS = torch.randint(0, 256, (3, 20), generator=torch.Generator().manual_seed(0))


def model(**options):
    return stand_in(**options)[0]


@pytest.mark.parametrize("method", [MagnitudePruning(), Wanda(), SparseGPT()], ids=repr)
def test_all_linear_layers_of_the_blocks_are_in_the_pattern_and_nothing_else_changes(method):
    dense, net = model(), model()
    seen = []
    found = prune_blocks(net, NM(2, 4), WINDOWS, method=method, callback=lambda i, n: seen.append((i, n)))
    assert seen == [(1, 2), (2, 2)]
    assert len(found.masks) == 14
    assert found.report.density == 0.5
    weights, before = dict(net.named_parameters()), dict(dense.named_parameters())
    for name, w in weights.items():
        if name in found.masks:
            assert not w[~found.masks[name]].any()
            assert ((w != 0).reshape(-1, 4).sum(dim=1) <= 2).all()
        else:
            assert torch.equal(w, before[name])
    assert torch.isfinite(net(WINDOWS).logits).all()
    assert not any(m._forward_pre_hooks for m in net.modules())


def test_magnitude_needs_no_text_and_is_what_prune_does():
    a, b = model(), model()
    found = prune_blocks(a, Unstructured(0.4), method=MagnitudePruning())
    prune(b, Unstructured(0.4), where=Selector(only=("layers",)))
    assert found.report.density == pytest.approx(0.4, abs=1e-3)
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q)


def test_each_block_sees_what_the_pruned_one_before_it_gives():
    net = model()
    prune_blocks(net, NM(2, 4), WINDOWS, method=Wanda(), where=Selector(only=("0",)))
    seen = []
    layer = net.model.layers[1].self_attn.q_proj
    hook = layer.register_forward_pre_hook(lambda m, args: seen.append(args[0].flatten(0, -2)))
    with torch.no_grad():
        net(WINDOWS)
    hook.remove()
    moments = seen[0].mT @ seen[0]
    want = Wanda().prune(layer.weight, moments, NM(2, 4))[0]
    again = model()
    prune_blocks(again, NM(2, 4), WINDOWS, method=Wanda())
    torch.testing.assert_close(again.model.layers[1].self_attn.q_proj.weight.detach(), want)


def test_the_text_matters_to_sparsegpt_and_it_keeps_the_model_closer():
    dense = model()
    with torch.no_grad():
        want = dense(WINDOWS).logits
    away = {}
    for method in (MagnitudePruning(), SparseGPT()):
        net = model()
        prune_blocks(net, NM(2, 4), WINDOWS, method=method)
        with torch.no_grad():
            away[type(method).__name__] = float((net(WINDOWS).logits - want).square().mean())
    assert away["SparseGPT"] < 0.8 * away["MagnitudePruning"]


@pytest.mark.parametrize("method", [MagnitudePruning(), Wanda(), SparseGPT()], ids=repr)
def test_what_the_method_asks_for_is_measured_once_for_layers_that_share_an_input(method, monkeypatch):
    shapes, sums = [], []

    def keep_largest(self, weight, moments, pattern):
        shapes.append(moments.ndim)
        return pattern.project(weight), pattern.mask(weight.abs())

    monkeypatch.setattr(type(method), "_prune", keep_largest)
    gram = pruning._gram
    monkeypatch.setattr(pruning, "_gram", lambda rows: (sums.append(rows.shape), gram(rows))[1])
    prune_blocks(model(), NM(2, 4), WINDOWS, method=method)
    assert set(shapes) == {2 if isinstance(method, SparseGPT) else 1}
    assert len(sums) == (2 * 4 * len(WINDOWS) if isinstance(method, SparseGPT) else 0)   # 7 layers, 4 inputs


@pytest.mark.parametrize("method", [Wanda(), SparseGPT()], ids=repr)
def test_a_layer_that_is_not_called_keeps_its_largest_weights(method):
    net = model()
    net.model.layers[1].idle = nn.Linear(8, 4)
    want = NM(2, 4).project(net.model.layers[1].idle.weight.detach())
    prune_blocks(net, NM(2, 4), WINDOWS, method=method)
    assert torch.equal(net.model.layers[1].idle.weight, want)


@pytest.mark.parametrize("width", [1, 3, 512])
def test_half_of_the_second_moments_is_enough(width):
    x = torch.randn(9, 10, dtype=torch.float64)
    torch.testing.assert_close(pruning._gram(x, width), x.mT @ x)


def test_conv1d_of_gpt2_is_a_linear_layer_and_is_put_back():
    def gpt2():
        torch.manual_seed(0)
        return GPT2LMHeadModel(GPT2Config(vocab_size=256, n_embd=32, n_layer=2, n_head=2, n_positions=64,
                                          initializer_range=0.3, bos_token_id=1, eos_token_id=2)).eval()

    dense = gpt2()
    with torch.no_grad():
        want = dense(WINDOWS).logits
    away = {}
    for method in (MagnitudePruning(), SparseGPT()):
        net = gpt2()
        found = prune_blocks(net, NM(2, 4), WINDOWS, method=method)
        assert [type(m) for m in net.modules()] == [type(m) for m in dense.modules()]
        assert len(found.masks) == 8
        mask = found.masks["transformer.h.1.mlp.c_fc.weight"]
        assert mask.shape == (128, 32)   # outputs first
        assert not net.get_parameter("transformer.h.1.mlp.c_fc.weight").detach().mT[~mask].any()
        with torch.no_grad():
            away[type(method).__name__] = float((net(WINDOWS).logits - want).square().mean())
    assert 0 < away["SparseGPT"] < away["MagnitudePruning"]


def test_blocks_of_several_kinds_are_called_as_the_model_calls_them(monkeypatch):
    torch.manual_seed(0)
    net = Gemma3ForCausalLM(Gemma3TextConfig(
        vocab_size=256, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        intermediate_size=32, sliding_window=4, layer_types=["sliding_attention", "full_attention", "full_attention"],
        bos_token_id=1, eos_token_id=2, pad_token_id=0)).eval()
    want, found = [], []
    hook = net.get_submodule("model.layers.2.mlp.down_proj").register_forward_pre_hook(
        lambda m, args: want.append(args[0].flatten(0, -2).square().sum(0)))
    with torch.no_grad():
        for window in WINDOWS:
            net(window[None])
    hook.remove()

    def keep_all(self, weight, moments, pattern):
        found.append(moments)
        return weight, torch.ones_like(weight, dtype=torch.bool)

    monkeypatch.setattr(Wanda, "_prune", keep_all)
    prune_blocks(net, NM(2, 4), WINDOWS, method=Wanda())
    torch.testing.assert_close(found[-1], sum(want))


def test_parameters_that_no_linear_layer_holds_are_said_to_stay():
    net = model()
    net.model.layers[0].experts = nn.ParameterDict({"up": nn.Parameter(torch.randn(2, 4, 4))})
    notes = prune_blocks(net, NM(2, 4)).report.notes
    assert "1 parameters of the blocks with more than two axes, such as 0.experts.up" in notes[-1]


def test_an_encoder_is_pruned_as_well():
    net = BertModel(BertConfig(vocab_size=256, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                               intermediate_size=64)).eval()
    found = prune_blocks(net, Unstructured(0.3, dims=1), WINDOWS, method=Wanda())
    assert len(found.masks) == 12
    assert found.report.density == pytest.approx(0.3, abs=0.02)


def test_training_mode_and_half_precision_stay():
    net = model(dtype=torch.bfloat16).train()
    found = prune_blocks(net, NM(1, 4), WINDOWS, method=SparseGPT())
    assert all(m.training for m in net.modules())
    assert all(p.dtype == torch.bfloat16 for p in net.parameters())
    assert found.report.density == 0.25
    assert perplexity(net.eval(), WINDOWS).tokens == 57


@pytest.mark.public_door
def test_refusals_name_the_cause_and_change_nothing():
    net = model()
    before = [p.clone() for p in net.parameters()]
    with pytest.raises(ValueError, match="windows must be given: Wanda"):
        prune_blocks(net, NM(2, 4), method=Wanda())
    with pytest.raises(TypeError, match="windows must be an integer tensor"):
        prune_blocks(net, NM(2, 4), torch.rand(2, 8), method=Wanda())
    with pytest.raises(TypeError, match="method must be a LayerPruner"):
        prune_blocks(net, NM(2, 4), method="wanda")
    with pytest.raises(ValueError, match=r"layers\.0\.self_attn\.q_proj\.weight of shape \(192, 48\) does not fit"):
        prune_blocks(net, NM(2, 5))
    with pytest.raises(ValueError, match="no layer is named 'q_porj'"):
        prune_blocks(net, NM(2, 4), where=Selector(skip=("q_porj",)))
    with pytest.raises(ValueError, match="no linear layer of the blocks"):
        prune_blocks(net, NM(2, 4), where=Selector(only=("lm_head",)))
    with pytest.raises(TypeError, match="has 0 lists of config"):
        decoder_blocks(nn.Linear(3, 3))
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module"):
        decoder_blocks("model")
    for p, q in zip(net.parameters(), before, strict=True):
        assert torch.equal(p, q)
    with torch.no_grad():
        net.model.layers[1].mlp.up_proj.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.up_proj\.weight holds NaN"):
        prune_blocks(net, NM(2, 4))
