"""Blocks, the small vision transformer and the decoder: what they compute, how they begin, what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sparsepriors.networks.activations import TopKActivation
from sparsepriors.networks.models import TinyDecoderLM, TinyViT, TransformerBlock, seeded

SMALL: dict[str, Any] = {"context": 12, "width": 16, "depth": 2, "heads": 2, "hidden": 24}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def decoder(**options: Any) -> TinyDecoderLM:
    with seeded(generator()):
        return TinyDecoderLM(11, **SMALL | options)


def tokens(batch: int = 3, length: int = 12) -> Tensor:
    return torch.randint(0, 11, (batch, length), generator=generator())


def test_a_block_is_attention_and_perceptron_of_normalised_tokens() -> None:
    with seeded(generator()):
        block = TransformerBlock(8, 2, 12, causal=True).double()
    x = torch.randn(2, 5, 8, dtype=torch.float64, generator=generator())
    y = functional.layer_norm(x, (8,))
    q, k, v = (t.reshape(2, 5, 2, 4).transpose(1, 2) for t in block.attn.qkv(y).chunk(3, dim=-1))
    scores = (q @ k.mT / 2).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
    x = x + block.attn.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(2, 5, 8))
    fc1, fc2 = (block.get_submodule(f"mlp.{name}") for name in ("fc1", "fc2"))
    expected = x + fc2(fc1(functional.layer_norm(x, (8,))).clamp(min=0))
    torch.testing.assert_close(block(torch.randn(2, 5, 8, dtype=torch.float64, generator=generator())), expected)


@pytest.mark.parametrize("causal", [True, False])
def test_only_a_causal_block_hides_what_comes_later(causal: bool) -> None:
    with seeded(generator()):
        block = TransformerBlock(8, 2, 12, causal=causal)
    x = torch.randn(1, 6, 8, generator=generator())
    changed = x.clone()
    changed[:, 4:] *= -1
    assert torch.allclose(block(x)[:, :4], block(changed)[:, :4], atol=1e-6) == causal


def test_a_decoder_predicts_each_token_from_those_before_it() -> None:
    model, x = decoder(), tokens()
    logits = model(x)
    assert logits.shape == (3, 12, 11)
    torch.testing.assert_close(model(x[:, :7]), logits[:, :7], atol=1e-5, rtol=1e-4)
    twice = torch.full((1, 2), 4)
    assert not torch.allclose(*model(twice)[0])          # positions are told apart
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_decoder_begins_as_it_is_asked_to() -> None:
    model = decoder(width=64, hidden=256, bias=False, std=0.05)
    assert all(m.bias is None for m in model.modules() if isinstance(m, nn.Linear))
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            assert float(module.weight.detach().std()) == pytest.approx(0.05, rel=0.1)
    plain = decoder(width=64, hidden=256)
    assert float(plain.embed.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    first = plain.get_parameter("blocks.0.mlp.fc1.weight")
    assert float(first.detach().abs().max()) == pytest.approx(64**-0.5, rel=0.01)   # uniform, as PyTorch draws
    assert bool((decoder(std=0.05).head.bias == 0).all())


def test_half_of_the_neurons_are_active_before_training() -> None:
    with seeded(generator()):
        model = TinyViT(depth=2)
    shares = []
    for block in model.blocks:
        block.get_submodule("mlp.act").register_forward_hook(lambda m, x, a: shares.append((a > 0).double().mean()))
    model(torch.randn(8, 1, 28, 28, generator=generator()))
    assert all(0.45 < share < 0.55 for share in shares)


@pytest.mark.parametrize("k", [1, 5, 24])
def test_topk_bounds_the_neurons_of_every_token(k: int) -> None:
    model, plain = decoder(topk=k), decoder()
    plain.load_state_dict(model.state_dict())
    most = []
    for block in model.blocks:
        block.get_submodule("mlp.act").register_forward_hook(lambda m, x, a: most.append(int((a != 0).sum(-1).max())))
    out = model(tokens())
    assert max(most) <= k
    assert torch.equal(out, plain(tokens())) == (k == 24)


def test_gelu_is_an_option() -> None:
    assert isinstance(decoder(activation="gelu").get_submodule("blocks.1.mlp.act"), nn.GELU)
    assert isinstance(decoder(topk=3).get_submodule("blocks.1.mlp.act"), TopKActivation)


def test_a_tiny_vit_sees_where_patches_are_and_is_a_mean_without_positions() -> None:
    with seeded(generator()):
        model = TinyViT(size=8, depth=1)
    x = torch.randn(2, 1, 8, 8, generator=generator())
    moved = x.roll(4, -1)
    assert not torch.allclose(model(x), model(moved), atol=1e-5)
    nn.init.zeros_(model.pos_embed)
    torch.testing.assert_close(model(x), model(moved), atol=1e-5, rtol=1e-4)


@pytest.mark.public_door
def test_bad_sizes_and_tokens_are_refused() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"heads": 3}, "heads must divide width"), ({"hidden": 0}, "hidden"), ({"depth": 0}, "depth"),
        ({"context": 0}, "context"), ({"topk": 25}, "topk must be from 1 to 24"), ({"topk": 0}, "topk"),
        ({"activation": "rely"}, "did you mean 'relu'"), ({"std": 0.0}, "std"),
        ({"activation": "gelu", "topk": 3}, "nonneg=False")]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            decoder(**options)
    with pytest.raises(TypeError, match="width must be an integer"):
        decoder(width=8.0)
    for options, message in (({"patch": 5}, "patch must divide size"), ({"classes": 0}, "classes")):
        with pytest.raises(ValueError, match=message):
            TinyViT(**options)
    model = decoder()
    with pytest.raises(TypeError, match="tokens must be int64"):
        model(tokens().int())
    for bad in (tokens()[0], tokens(length=13), tokens()[:, :0]):
        with pytest.raises(ValueError, match="length from 1 to 12"):
            model(bad)
    with pytest.raises(ValueError, match="tokens must be from 0 to 10, got 0 to 11"):
        model(torch.tensor([[0, 11]]))


def test_a_decoder_that_reads_on_gives_the_logits_of_the_whole_text(generator):
    model = TinyDecoderLM(11, context=8, width=16, depth=2, heads=2, hidden=32)
    tokens = torch.randint(0, 11, (3, 8), generator=generator)
    past = [[] for _ in model.blocks]
    found = [model(tokens[:, :4], past), *(model(tokens[:, t:t + 1], past) for t in range(4, 8))]
    torch.testing.assert_close(torch.cat(found, 1), model(tokens))
    with pytest.raises(ValueError, match="length from 1 to 0"):
        model(tokens[:, :1], past)
    past = [[] for _ in model.blocks]
    model(tokens[:, :4], past)
    with pytest.raises(ValueError, match="one at a time, got 2"):
        model(tokens[:, 4:6], past)
