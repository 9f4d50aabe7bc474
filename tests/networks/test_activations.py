"""Top-k of an activation: a projection with gradients through what it keeps, and finding activation functions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sparsepriors.networks.activations import TopKActivation, activation_modules, rectifies, smooth
from sparsepriors.priors import TopK


@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 9))
def test_it_is_the_projection_of_the_prior_and_its_gradient_passes_where_it_keeps(seed: int, rows: int, k: int) -> None:
    x = torch.randn(rows, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(seed), requires_grad=True)
    kept = TopKActivation(nn.ReLU(), k)(x)
    assert torch.equal(kept, TopK(k).activate(x, {}))
    kept.sum().backward()
    assert torch.equal(x.grad, (kept > 0).double())


def test_fewer_positive_values_than_k_stay_alone() -> None:
    x = torch.tensor([[3.0, -1.0, -2.0, 1.0, -5.0]])
    assert torch.equal(TopKActivation(nn.ReLU(), 4)(x), torch.tensor([[3.0, 0, 0, 1.0, 0]]))
    assert torch.equal(TopKActivation(nn.Identity(), 2, nonneg=False)(x), torch.tensor([[3.0, 0, 0, 0, -5.0]]))


def test_activation_functions_are_found_by_name_and_not_inside_of_others() -> None:
    model = nn.ModuleDict({"a": nn.ReLU(), "b": nn.Sequential(nn.Linear(2, 2), nn.GELU()),
                           "c": TopKActivation(nn.ReLU(), 1)})
    assert list(activation_modules(model)) == ["a", "b.1", "c"]
    assert list(activation_modules(model, "b.*")) == ["b.1"]
    assert list(activation_modules(model, ("a", "c*"))) == ["a", "c"]
    assert rectifies(model["c"])
    assert smooth(nn.SiLU())
    assert not rectifies(nn.Linear(1, 1))
    assert not smooth(nn.Linear(1, 1))


def test_the_activations_of_transformers_are_known() -> None:
    from transformers.activations import ACT2FN

    exact = {name for name in ACT2FN if rectifies(ACT2FN[name])}
    assert exact == {"relu", "relu2", "relu6"}
    unknown = {name for name in ACT2FN if not smooth(ACT2FN[name])} - exact
    assert unknown == {"linear", "sigmoid", "tanh"}


@pytest.mark.public_door
def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="k must be at least 1"):
        TopKActivation(nn.ReLU(), 0)
    with pytest.raises(TypeError, match=r"activation must be a torch.nn.Module"):
        TopKActivation(torch.relu, 1)
    with pytest.raises(ValueError, match="GELU has negative values"):
        TopKActivation(nn.GELU(), 1)
    with pytest.raises(ValueError, match="at most the number of neurons, got 4 of 3"):
        TopKActivation(nn.ReLU(), 4)(torch.ones(1, 3))
    with pytest.raises(TypeError, match="model must be"):
        activation_modules(len)
