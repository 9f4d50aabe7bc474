"""The meter of active neurons: exact counts on any module, padding, functions, and what it refuses."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from sparsepriors.language.analysis.activation import ActivationSparsity
from sparsepriors.networks.activations import TopKActivation
from sparsepriors.networks.models import MLP, SmallConv, TinyDecoderLM, VisionTransformer, seeded


class Given(nn.Module):
    """Returns its ReLU, as a module; leaves say what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.act(x)


class Functions(nn.Module):
    """Rectifies in all the ways that torch has."""

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(x) + torch.relu(x - 1) + x.relu()
        return x.clone().relu_() + functional.relu6(x)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 2**31))
def test_counts_are_those_of_all_tokens_whatever_the_batches(sizes: list[int], seed: int) -> None:
    x = torch.randn(sum(sizes), 3, 7, generator=generator(seed)).round()
    meter = ActivationSparsity(Given())
    with meter:
        for part in x.split(sizes):
            meter.model(part)
    active = x.reshape(-1, 7) > 0
    assert meter.percent_nonzero() == {"act": pytest.approx(100 * float(active.double().mean()))}
    torch.testing.assert_close(meter.neuron_frequency()["act"], active.double().mean(0))
    assert meter.dead() == {"act": int((~active.any(0)).sum())}
    assert meter.most() == {"act": int(active.sum(1).max())}
    assert meter.rows()[0]["tokens"] == len(active)
    meter.reset()
    with pytest.raises(RuntimeError, match="no activation was counted"):
        meter.percent_nonzero()


def test_the_model_computes_what_it_did_and_is_left_as_it_was() -> None:
    with seeded(generator()):
        model = TinyDecoderLM(9, context=8, width=8, depth=2, heads=2, hidden=12)
    x = torch.randint(0, 9, (2, 8), generator=generator())

    def gradients() -> list[Tensor]:
        return list(torch.autograd.grad(model(x).square().sum(), list(model.parameters())))

    plain = gradients()
    with ActivationSparsity(model) as meter:
        watched = gradients()
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
    assert list(meter.percent_nonzero()) == ["blocks.0.mlp.act", "blocks.1.mlp.act"]
    assert meter.mean_percent() == pytest.approx(sum(meter.percent_nonzero().values()) / 2)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    model(x)
    assert meter.rows()[0]["tokens"] == 16


def test_functions_that_modules_call_are_told_apart_by_place_and_call() -> None:
    with ActivationSparsity(nn.Sequential(Functions(), Functions())) as meter:
        meter.model(torch.ones(2, 3))
    names = ["relu()", "relu()[1]", "relu()[2]", "relu()[3]", "relu6()"]
    assert list(meter.percent_nonzero()) == [f"{i}.{name}" for i in (0, 1) for name in names]
    assert meter.percent_nonzero()["0.relu()[1]"] == 0      # of 1 - 1
    assert meter.percent_nonzero()["0.relu6()"] == 100
    with ActivationSparsity(MLP(size=4, hidden=(8, 5)), match="relu()[[]1]") as meter:
        meter.model(torch.randn(3, 1, 4, 4, generator=generator()))
    assert {r["place"]: r["neurons"] for r in meter.rows()} == {"relu()[1]": 5}


def test_an_activation_module_counts_once_and_after_its_top_k() -> None:
    model = nn.Sequential(TopKActivation(nn.ReLU(), 2), nn.ReLU())
    with ActivationSparsity(model) as meter:
        model(torch.tensor([[1.0, 2, 3, -4]]))
    assert meter.most() == {"0": 2, "1": 2}


def test_a_module_that_layers_share_is_counted_call_by_call() -> None:
    act = nn.ReLU()
    model = nn.Sequential(nn.Linear(4, 6), act, nn.Linear(6, 3), act)
    with ActivationSparsity(model) as meter:
        for count in (2, 5):
            model(torch.randn(count, 4, generator=generator()))
    assert [(r["place"], r["neurons"], r["tokens"]) for r in meter.rows()] == [("1", 6, 7), ("1[1]", 3, 7)]


def test_padding_is_left_out() -> None:
    x = torch.randn(2, 5, 4, generator=generator())
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    expected = {"act": pytest.approx(100 * float((x[mask.bool()] > 0).double().mean()))}
    model = Given()
    with ActivationSparsity(model) as meter:
        model(x, attention_mask=mask)
    assert meter.percent_nonzero() == expected
    with ActivationSparsity(model) as meter:
        meter.mask = mask.bool()
        model(x.flatten(0, 1))                             # some models merge batch and tokens
    assert meter.percent_nonzero() == expected
    with ActivationSparsity(model) as meter:
        model(x[:, 3:], attention_mask=mask)               # earlier tokens are cached
    assert meter.rows()[0]["tokens"] == 2
    with ActivationSparsity(model) as meter, pytest.raises(ValueError, match=r"mask must be \(batch, tokens\)"):
        model(x[:1], attention_mask=mask)
    with ActivationSparsity(model) as meter:
        model(x, attention_mask=torch.zeros_like(mask))
    with pytest.raises(RuntimeError, match="no activation was counted"):
        meter.mean_percent()
    with ActivationSparsity(model) as meter:
        model(x, attention_mask=torch.ones(2, 1, 5, 5))    # of attention, not of tokens
    assert meter.rows()[0]["tokens"] == 10


def test_smooth_activations_need_a_threshold_and_the_measure_says_so() -> None:
    model = VisionTransformer(size=8, depth=1)
    with pytest.raises(ValueError, match="threshold must be given for GELU at blocks.0.mlp.act"):
        ActivationSparsity(model)
    x = torch.randn(3, 1, 8, 8, generator=generator())
    shares = []
    for threshold in (0.0, 0.05, 1e3):
        with ActivationSparsity(model, threshold=threshold) as meter:
            model(x)
        shares.append(meter.mean_percent())
        assert meter.measure == f"|a| > {threshold:g}"
    assert shares[0] == 100 > shares[1] > shares[2] == 0

    class Gelu(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return functional.gelu(x)

    with ActivationSparsity(Gelu()) as meter, pytest.raises(ValueError, match=r"threshold must be given for gelu at"):
        meter.model(x)


@pytest.mark.parametrize("name", ["relu", "gelu_new", "silu"])
def test_perceptrons_of_transformers_are_seen(name: str) -> None:
    from transformers import (
        BertConfig,
        BertModel,
        LlamaConfig,
        LlamaModel,
        OPTConfig,
        OPTModel,
        T5Config,
        T5EncoderModel,
    )

    sizes: dict[str, Any] = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    models = {
        "encoder.layer.{}.intermediate.intermediate_act_fn": BertModel(BertConfig(
            **sizes, intermediate_size=24, hidden_act=name)),
        "layers.{}.mlp.act_fn": LlamaModel(LlamaConfig(**sizes, intermediate_size=24, hidden_act=name)),
        "decoder.layers.{}.activation_fn": OPTModel(OPTConfig(**sizes, ffn_dim=24, activation_function=name,
                                                              word_embed_proj_dim=16)),
        "encoder.block.{}.layer.1.DenseReluDense.act": T5EncoderModel(T5Config(
            vocab_size=20, d_model=16, d_ff=24, num_layers=2, num_heads=2, feed_forward_proj=name))}
    ids = torch.randint(0, 20, (2, 6), generator=generator())
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    for place, model in models.items():
        with ActivationSparsity(model.eval(), match="*act*", threshold=None if name == "relu" else 0.01) as meter:
            model(input_ids=ids, attention_mask=mask)
        rows = [r for r in meter.rows() if "pooler" not in r["place"]]
        assert [r["place"] for r in rows] == [place.format(i) for i in (0, 1)]
        assert all(r["tokens"] == 10 and r["neurons"] == 24 and 0 < r["percent_nonzero"] < 100 for r in rows)


def test_maps_of_convolutions_have_their_neurons_on_axis_one() -> None:
    model = SmallConv(depth=2, width=4)
    with ActivationSparsity(model, axis=1) as meter:
        model(torch.randn(2, 1, 8, 8, generator=generator()))
    assert [(r["neurons"], r["tokens"]) for r in meter.rows()] == [(4, 2 * 64), (8, 2 * 16)]


def test_an_error_inside_of_the_model_leaves_the_meter_usable() -> None:
    class Fails(Given):
        def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
            if len(x) == 1:
                raise KeyError("one")
            return functional.relu(super().forward(x))

    model = nn.Sequential(Fails())
    meter = ActivationSparsity(model)
    with pytest.raises(KeyError), meter:
        model(torch.ones(1, 2))
    with meter:
        model(torch.ones(2, 2))
    assert list(meter.percent_nonzero()) == ["0.act", "0.relu()"]
    with meter, pytest.raises(RuntimeError, match="counting already"), meter:
        pass
    assert "0.relu()" in meter.to_text()


def test_a_module_that_catches_the_error_of_another_owns_what_it_calls() -> None:
    class Raises(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyError("always")

    class Catches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Raises()

        def forward(self, x: Tensor) -> Tensor:
            with contextlib.suppress(KeyError):
                self.inner(x)
            return functional.relu(x)

    with ActivationSparsity(Catches()) as meter:
        meter.model(torch.ones(1, 2))
    assert list(meter.percent_nonzero()) == ["relu()"]


@pytest.mark.public_door
def test_what_is_refused() -> None:
    with pytest.raises(TypeError, match="model must be a torch.nn.Module"):
        ActivationSparsity(functional.relu)
    with pytest.raises(ValueError, match="threshold must be finite and nonnegative"):
        ActivationSparsity(Given(), threshold=-1.0)
    with pytest.raises(TypeError, match="axis must be an integer"):
        ActivationSparsity(Given(), axis=1.0)
    compiled = Given()
    compiled.compile(backend="eager")
    wrapped: Any = torch.compile(Given(), backend="eager")
    for model in (compiled, wrapped, nn.Sequential(wrapped)):
        with pytest.raises(TypeError, match="neither compiled nor scripted"):
            ActivationSparsity(model)
    with ActivationSparsity(Given(), match="blocks.*") as meter:
        meter.model(torch.ones(1, 2))
    with pytest.raises(RuntimeError, match=r"match 'blocks.\*'; activation functions: act"):
        meter.dead()
    with ActivationSparsity(Given()) as meter:
        with pytest.raises(ValueError, match="activations at act must be finite"):
            meter.model(torch.tensor([[torch.nan]]))
        meter.model(torch.ones(1, 2))
        with pytest.raises(ValueError, match="equally many neurons"):
            meter.model(torch.ones(1, 3))
