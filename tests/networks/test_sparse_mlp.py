"""The perceptron that skips neurons: the dense one's results, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sparsepriors.networks.activations import TopKActivation
from sparsepriors.networks.models import TransformerBlock, seeded
from sparsepriors.networks.sparse_mlp import SparseMLP


def dense(width: int, hidden: int, out: int, *, k: int | None = None, bias: bool = True, shift: float = 0.0,
          dtype: torch.dtype = torch.float64) -> nn.Sequential:
    with seeded(torch.Generator().manual_seed(0)):
        first, second = nn.Linear(width, hidden), nn.Linear(hidden, out, bias=bias)
    with torch.no_grad():
        first.bias.sub_(shift)
    act = nn.ReLU() if k is None else TopKActivation(nn.ReLU(), k)
    return nn.Sequential(first, act, second).to(dtype)


def tokens(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


@given(st.integers(1, 20), st.integers(1, 40), st.integers(1, 20), st.integers(1, 9), st.booleans(),
       st.sampled_from([None, 1, 3]), st.sampled_from([0.0, 0.5, 5.0]))
def test_results_are_the_dense_ones(width: int, hidden: int, out: int, count: int, bias: bool, k: int | None,
                                    shift: float) -> None:
    mlp = dense(width, hidden, out, k=None if k is None else min(k, hidden), bias=bias, shift=shift)
    x = tokens(count, width)
    with torch.no_grad():
        torch.testing.assert_close(SparseMLP.from_dense(mlp).decode(x), mlp(x), atol=1e-12, rtol=1e-12)


def test_single_precision_agrees_to_1e_5_at_the_size_of_a_real_layer() -> None:
    mlp = dense(1024, 4096, 1024, shift=0.9, dtype=torch.float32)
    x = tokens(2, 3, 1024, dtype=torch.float32)
    with torch.no_grad():
        sparse, plain = SparseMLP.from_dense(mlp)(x), mlp(x)
    assert sparse.shape == (2, 3, 1024)
    torch.testing.assert_close(sparse, plain, atol=1e-5, rtol=0)


def test_it_takes_the_place_of_a_perceptron_in_a_block() -> None:
    with seeded(torch.Generator().manual_seed(0)):
        block = TransformerBlock(16, 2, 48, topk=5)
    x = tokens(2, 7, 16, dtype=torch.float32)
    with torch.no_grad():
        plain = block(x)
        block.mlp = SparseMLP.from_dense(block.mlp)
        torch.testing.assert_close(block(x), plain, atol=1e-5, rtol=1e-5)


def test_perceptrons_of_transformers_are_taken() -> None:
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5DenseActDense, T5DenseGatedActDense

    config = T5Config(d_model=16, d_ff=40, dropout_rate=0.3)
    mlp = T5DenseActDense(config)
    x = tokens(4, 16, dtype=torch.float32)
    sparse = SparseMLP.from_dense(mlp)                      # without the dropout of training
    assert mlp.training
    with torch.no_grad():
        torch.testing.assert_close(sparse(x), mlp.eval()(x), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="two linear layers"):
        SparseMLP.from_dense(T5DenseGatedActDense(config))


def test_a_whole_model_of_opt_skips_neurons_and_says_the_same() -> None:
    from transformers import OPTConfig, OPTForCausalLM

    with seeded(torch.Generator().manual_seed(0)):
        model: Any = OPTForCausalLM(OPTConfig(vocab_size=50, hidden_size=16, ffn_dim=40, num_attention_heads=2,
                                              num_hidden_layers=2, word_embed_proj_dim=16, init_std=0.5)).eval()
    options = {"max_new_tokens": 8, "do_sample": False}
    prompt = torch.tensor([[3, 14, 15, 9, 2, 6]])
    with torch.no_grad():
        logits, text = model(prompt).logits, model.generate(prompt, **options)
        for layer in model.model.decoder.layers:
            layer.fc1 = SparseMLP(layer.fc1, layer.fc2)
            layer.activation_fn, layer.fc2 = nn.Identity(), nn.Identity()
        torch.testing.assert_close(model(prompt).logits, logits, atol=1e-4, rtol=1e-4)
        assert torch.equal(model.generate(prompt, **options), text)


def test_its_weights_are_its_own_and_go_through_a_state_dict() -> None:
    mlp = dense(5, 9, 4)
    sparse, x = SparseMLP.from_dense(mlp), tokens(2, 5)
    before = sparse.decode(x)
    with torch.no_grad():
        mlp[2].get_parameter("weight").zero_()
    assert torch.equal(sparse.decode(x), before)
    twin = SparseMLP.from_dense(mlp)
    twin.load_state_dict(sparse.state_dict())
    assert torch.equal(twin.decode(x), before)


@pytest.mark.public_door
def test_what_is_refused() -> None:
    layers = nn.Linear(3, 4), nn.Linear(4, 3)
    for module, message in ((nn.Sequential(layers[0], nn.GELU(), layers[1]), "nn.ReLU or a TopKActivation"),
                            (nn.Sequential(layers[0], nn.ReLU6(), layers[1]), "got ReLU6"),
                            (nn.Sequential(*layers), "got none that is a module"),
                            (nn.Sequential(layers[0], nn.ReLU()), "1 linear layers"),
                            (nn.Sequential(layers[0], nn.LayerNorm(4), nn.ReLU(), layers[1]), "no other weights")):
        with pytest.raises(ValueError, match=message):
            SparseMLP.from_dense(module)

    class Gated(nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            return input * super().forward(input)

    with pytest.raises(ValueError, match="Gated computes something else"):
        SparseMLP.from_dense(Gated(layers[0], nn.ReLU(), layers[1]))
    with pytest.raises(TypeError, match=r"mlp must be a torch.nn.Module"):
        SparseMLP.from_dense(len)
    with pytest.raises(ValueError, match="second must take the 4 neurons of first, got 3"):
        SparseMLP(layers[0], nn.Linear(3, 4))
    with pytest.raises(TypeError, match="first must be float32 or float64"):
        SparseMLP(layers[0].bfloat16(), layers[1])
    mlp = SparseMLP.from_dense(dense(5, 9, 4))
    with pytest.raises(ValueError, match=r"k must be from 1 to 9"):
        SparseMLP(nn.Linear(3, 9), nn.Linear(9, 3), k=10)
    with pytest.raises(ValueError, match=r"x must have shape \(..., 5\)"):
        mlp.decode(tokens(2, 4))
    with pytest.raises(RuntimeError, match="no gradients"):
        mlp(tokens(2, 5).requires_grad_())
    with pytest.raises(FloatingPointError, match="NaN"):
        mlp.decode(torch.full((1, 5), torch.nan, dtype=torch.float64))
