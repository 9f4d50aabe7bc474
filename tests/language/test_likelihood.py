"""Perplexity against its definition."""

from __future__ import annotations

import math

import pytest
import torch

from language.tiny import tiny_model, tokens
from sparsepriors.language import DenseCache, perplexity


@pytest.mark.parametrize("start", [0, 1, 7, 19])
def test_perplexity_is_the_exponential_of_the_mean_loss(start: int) -> None:
    model, windows = tiny_model(), tokens(3, 20)
    first = max(start, 1)
    with torch.no_grad():
        logs = model(windows).logits.log_softmax(-1)
    losses = -logs[:, :-1].gather(2, windows[:, 1:, None])[:, first - 1:, 0]
    found = perplexity(model, windows, start)
    assert found.value == pytest.approx(math.exp(losses.mean()), rel=1e-9)
    assert found.windows == pytest.approx(losses.mean(dim=1).tolist(), rel=1e-9)
    assert found.tokens == 3 * (20 - first)
    if start:
        assert perplexity(model, windows, start, cache=DenseCache(model.config)).value == pytest.approx(found.value)


@pytest.mark.public_door
def test_bad_windows_are_refused() -> None:
    model, cache = tiny_model(), DenseCache(tiny_model().config)
    with pytest.raises(TypeError, match="windows must be an integer tensor"):
        perplexity(model, torch.rand(2, 5))
    with pytest.raises(ValueError, match="start must be from 0 to 19"):
        perplexity(model, tokens(1, 20), 20)
    with pytest.raises(ValueError, match="start must be from 1 to 19"):
        perplexity(model, tokens(1, 20), 0, cache=cache)
