"""Frozen layers with a low-rank update and a few entries."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from sparsepriors.language import DSEELinear
from sparsepriors.language.finetune.adapter import matrix


def base(kind, rows=7, columns=5, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layer = nn.Linear(columns, rows) if kind == "linear" else Conv1D(rows, columns)
        nn.init.normal_(layer.bias)
    return layer


def adapted(kind="linear", rank=2, entries=6, seed=0, rows=7, columns=5):
    g = torch.Generator().manual_seed(seed)
    at = torch.randperm(rows * columns, generator=g)[:entries]
    layer = DSEELinear(base(kind, rows, columns, seed), rank, torch.stack([at // columns, at % columns]), alpha=8.0,
                       generator=g)
    with torch.no_grad():
        for p in (layer.U, layer.values):
            p.normal_(generator=g)
    return layer


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
@settings(max_examples=15)
@given(rank=st.integers(1, 5), entries=st.integers(0, 35), seed=st.integers(0, 30))
def test_forward_is_the_dense_matrix_and_merging_keeps_it(kind, rank, entries, seed):
    layer = adapted(kind, rank, entries, seed)
    x = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(seed))
    sparse = torch.zeros(7, 5)
    sparse[layer.indices[0], layer.indices[1]] = layer.values.detach()
    want = layer.base(x) + 8 / rank * x @ (layer.U @ layer.V + sparse).mT
    torch.testing.assert_close(layer(x), want)
    torch.testing.assert_close(layer.update(), 8 / rank * (layer.U @ layer.V + sparse).detach())
    torch.testing.assert_close(layer.update(entries=False, scaled=False), (layer.U @ layer.V).detach())
    got = layer(x)
    merged = layer.merged()
    assert merged is layer.base
    torch.testing.assert_close(merged(x), got)


def test_at_the_start_the_layer_is_its_base_and_only_the_update_learns():
    layer = DSEELinear(base("linear"), 3, torch.tensor([[0, 6], [4, 0]]), generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 5)
    assert torch.equal(layer(x), layer.base(x))
    layer(x).square().sum().backward()
    assert layer.base.weight.grad is None
    assert layer.base.bias.grad is None
    moved = [p.grad is not None and bool(p.grad.any()) for p in (layer.U, layer.values, layer.V)]
    assert moved == [True, True, False]   # the gradient of V has U as a factor, which is zero
    assert float(layer.V.detach().std()) == pytest.approx(0.02, rel=0.5)


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_gradients_are_those_of_the_dense_update(kind):
    layer = adapted(kind).double()
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    inputs = (x, layer.U, layer.V, layer.values)

    def call(x, U, V, values):
        return torch.func.functional_call(layer, {"U": U, "V": V, "values": values}, (x,))

    assert torch.autograd.gradcheck(call, inputs)


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_cutting_rows_and_columns_cuts_everything(kind):
    layer = adapted(kind, entries=12)
    x = torch.randn(3, 5)
    rows, columns = torch.tensor([5, 1, 2]), torch.tensor([0, 3, 4])
    kept = torch.zeros_like(x)
    kept[:, columns] = x[:, columns]
    want = layer(kept)[:, rows]
    layer.keep(rows, columns)
    torch.testing.assert_close(layer(x[:, columns]), want)
    assert (layer.U.shape, layer.V.shape, layer.update().shape) == ((3, 2), (2, 3), (3, 3))
    assert layer.U.requires_grad
    assert layer.values.requires_grad
    assert not layer.base.weight.requires_grad
    assert 0 < len(layer.values) < 12
    stated = (layer.base.out_features, layer.base.in_features) if kind == "linear" else (layer.base.nf, layer.base.nx)
    assert stated == (3, 3)


def test_merged_weights_keep_their_dtype():
    layer = DSEELinear(base("linear").to(torch.bfloat16), 2, torch.tensor([[1], [1]]))
    with torch.no_grad():
        layer.values.fill_(1.0)
    before = matrix(layer.base).clone()
    merged: Any = layer.merged()
    assert merged.weight.dtype == torch.bfloat16
    assert float(merged.weight.detach()[1, 1]) == pytest.approx(float(before[1, 1]) + 16, rel=0.01)
    assert int((matrix(merged) != before).sum()) == 1


def test_under_autocast_outputs_are_in_the_lower_precision():
    layer, x = adapted(), torch.randn(3, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), layer(x), rtol=0.05, atol=0.1)


@pytest.mark.public_door
def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match="Conv1D of transformers, got Conv2d"):
        DSEELinear(nn.Conv2d(2, 2, 1), 1)
    with pytest.raises(ValueError, match="rank must be from 1 to 5, got 6"):
        DSEELinear(base("linear"), 6)
    with pytest.raises(ValueError, match="a matrix of 7 x 5"):
        DSEELinear(base("linear"), 1, torch.tensor([[7], [0]]))
    with pytest.raises(ValueError, match="a place twice"):
        DSEELinear(base("linear"), 1, torch.tensor([[1, 1], [0, 0]]))
    with pytest.raises(ValueError, match=r"int64 of shape \(2, entries\)"):
        DSEELinear(base("linear"), 1, torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="alpha must be finite and positive"):
        DSEELinear(base("linear"), 1, alpha=0.0)
