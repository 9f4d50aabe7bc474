import math

import pytest
import torch

from dictionaries.paired_toy import TinyLM, ToyCoder, toy
from sparsepriors.dictionaries.activations import HookPoint
from sparsepriors.dictionaries.interventions import (
    CONTROLS,
    FIRST,
    Conversations,
    causal_kl,
    patch_latents,
    some_latents,
)


def pair_that_differs_in_one_direction():
    """Models that share all but what the chat model's first block adds: a constant along one direction."""
    base, chat = TinyLM(0), TinyLM(0)
    direction = torch.tensor([0.0, 1.0, 0, 0, 0])
    with torch.no_grad():
        # The bias of the block's map is inside a tanh; the embedding is what reaches the layer unchanged.
        chat.embed.weight += 2 * direction
        chat.first.mix.bias.sub_(chat.first.mix.weight @ (2 * direction))
    # Two latents read the constant from the difference of the models; only the second writes it.
    encoder = torch.zeros(2, 5, 2)
    encoder[0, 1], encoder[1, 1] = -0.5, 0.5
    decoder = torch.zeros(2, 2, 5)
    decoder[:, 0, 0] = 1
    decoder[1, 1] = 2 * direction
    return base, chat, ToyCoder(encoder, decoder, torch.zeros(2, 5))


def conversations(rows=6, length=15):
    tokens = torch.randint(11, (rows, length), generator=torch.Generator().manual_seed(1))
    answer = (torch.arange(length) >= 2).expand(rows, length)
    return Conversations(tokens, answer, tokens < 3)


def test_the_latent_that_holds_the_difference_closes_the_gap_and_another_does_not():
    base, chat, coder = pair_that_differs_in_one_direction()
    changes = {**CONTROLS, "right": some_latents([1]), "wrong": some_latents([0]), "half": some_latents([1], 0.5),
               "on template": some_latents([1], on_template_only=True)}
    found = causal_kl(base, chat, coder, conversations(), changes, layer="first", batch=4)
    assert found["none"].all > 0.05
    assert abs(found["right"].all) < 1e-5
    assert abs(found["all"].all) < 1e-5
    assert found["wrong"].all == pytest.approx(found["none"].all, rel=1e-5)
    assert 1e-4 < found["half"].all < found["none"].all
    assert 1e-4 < found["on template"].all < found["none"].all
    assert found["template"].all == pytest.approx(found["on template"].all, rel=1e-3)
    # The decoders write nothing of the shared part: it is all error, and the error of the chat model is its own.
    assert abs(found["error"].all) > 1e-3
    assert found["reconstruction"].all > found["none"].all


def test_the_divergence_is_that_of_the_definition():
    base, chat, coder = pair_that_differs_in_one_direction()
    data = conversations()
    found = causal_kl(base, chat, coder, data, {"none": CONTROLS["none"]}, layer="first", batch=6)["none"]
    with torch.no_grad():
        goal = chat(data.tokens).log_softmax(dim=-1)
        changed = chat.head(chat.second(base.first(base.embed(data.tokens)))).log_softmax(dim=-1)
    # The first answer token stands at place 2; it is predicted at place 1.
    kl = torch.nn.functional.kl_div(changed, goal, log_target=True, reduction="none").sum(dim=-1)[:, 1:-1]
    assert found.all == pytest.approx(float(kl.mean()), rel=1e-4)
    assert found.first == pytest.approx(float(kl[:, :FIRST].mean()), rel=1e-4)
    assert found.rest == pytest.approx(float(kl[:, FIRST:].mean()), rel=1e-4)
    short = Conversations(data.tokens[:, :8], data.answer[:, :8], data.template[:, :8])
    assert math.isnan(causal_kl(base, chat, coder, short, {"none": CONTROLS["none"]}, layer="first")["none"].rest)


def test_a_hook_point_gives_what_came_and_passes_on_what_it_is_told():
    model, tokens = TinyLM(0, tuples=True), conversations().tokens
    point = HookPoint(model, "first")
    seen, logits = point.run(tokens)
    assert torch.equal(seen, point.read(tokens))
    assert torch.equal(logits, model(tokens).detach())
    _, changed = point.run(tokens, seen + 1)
    assert torch.allclose(changed, model.head(model.second(seen + 1)[0]).detach(), atol=1e-5)
    assert torch.equal(model(tokens).detach(), logits)     # the hook is gone
    with pytest.raises(ValueError, match=r"replace must have shape \(6, 15, 5\), got \(6, 15, 4\)"):
        point.run(tokens, seen[:, :, :4])
    with pytest.raises(ValueError, match="side must be 'output'"):
        HookPoint(model, "first", side="input").run(tokens)


def test_patching_adds_the_difference_of_the_decoders():
    coder = toy()
    x = torch.randn(9, 2, 5, generator=torch.Generator().manual_seed(0))
    codes = coder.encode(x)
    for scale in (1.0, -0.5):
        expected = x[:, 0].clone()
        for j in (4, 2):
            expected += scale * codes[:, j, None] * (coder.decoder[1, j] - coder.decoder[0, j])
        assert torch.allclose(patch_latents(x, coder, [4, 2], scale), expected, atol=1e-5)
    rebuilt = coder.decode(codes)
    everything = CONTROLS["all"](coder, x, torch.zeros(9, dtype=torch.bool))
    bias = coder.decoder_bias
    assert torch.allclose(everything - x[:, 0], (rebuilt - bias)[:, 1] - (rebuilt - bias)[:, 0], atol=1e-4)


@pytest.mark.public_door
def test_bad_arguments_are_named():
    base, chat, coder = pair_that_differs_in_one_direction()
    data = conversations()
    with pytest.raises(ValueError, match="changes must name"):
        causal_kl(base, chat, coder, data, {}, layer="first")
    with pytest.raises(ValueError, match="name must be that of a submodule"):
        causal_kl(base, chat, coder, data, CONTROLS, layer="nowhere")
    with pytest.raises(ValueError, match="batch must be at least 1"):
        causal_kl(base, chat, coder, data, CONTROLS, layer="first", batch=0)
    with pytest.raises(ValueError, match="crosscoder must be of two models, got 3"):
        causal_kl(base, chat, toy(models=3), data, CONTROLS, layer="first")
    silent = Conversations(data.tokens, torch.zeros_like(data.answer), data.template)
    with pytest.raises(ValueError, match="at least one answer token"):
        causal_kl(base, chat, coder, silent, CONTROLS, layer="first")
    with pytest.raises(ValueError, match="empty list"):
        patch_latents(torch.ones(3, 2, 5), coder, [])
    with pytest.raises(ValueError, match="answer must have the shape of tokens"):
        Conversations(data.tokens, data.answer[:2], data.template)
    with pytest.raises(ValueError, match="tokens must be integers"):
        Conversations(data.tokens.float(), data.answer, data.template)
    with pytest.raises(TypeError, match="template must be a boolean tensor"):
        Conversations(data.tokens, data.answer, data.tokens)
    base.second = base.first
    chat.second = chat.first
    with pytest.raises(RuntimeError, match="it came 2 times"):
        causal_kl(base, chat, coder, data, CONTROLS, layer="first")
