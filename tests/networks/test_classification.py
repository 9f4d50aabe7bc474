"""Accuracy by hand and by properties."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sparsepriors.networks.classification import accuracy, cross_entropy


@given(n=st.integers(1, 20), batch=st.integers(1, 25), top=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_accuracy_is_the_share_of_labels_among_the_largest_logits(n: int, batch: int, top: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    logits = torch.rand(n, 4, generator=g)
    labels = torch.randint(0, 4, (n,), generator=g)
    right = sum(int(label) in row.argsort(descending=True)[:top].tolist()
                for row, label in zip(logits, labels, strict=True))
    assert accuracy(nn.Identity(), logits, labels, batch=batch, top=top) == right / n


def test_the_model_is_evaluated_and_left_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model[2].eval()
    inputs, labels = torch.randn(30, 4), torch.zeros(30, dtype=torch.int64)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = {accuracy(model, inputs, labels, batch=7) for _ in range(4)}
    assert len(found) == 1   # dropout would make them differ
    assert [m.training for m in model.modules()] == [True, True, True, False]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_inputs_are_prepared_batch_by_batch() -> None:
    sizes = []

    def prepare(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return x.float() / 255

    images = torch.tensor([[0, 255], [255, 0], [9, 8]], dtype=torch.uint8)
    assert accuracy(nn.Identity(), images, torch.tensor([1, 0, 1]), batch=2, prepare=prepare) == 2 / 3
    assert sizes == [2, 1]


def test_cross_entropy_is_that_of_the_labels(generator: torch.Generator) -> None:
    logits, labels = torch.randn(5, 3, generator=generator), torch.tensor([0, 1, 2, 0, 1])
    expected = -logits.log_softmax(1)[torch.arange(5), labels].mean()
    torch.testing.assert_close(cross_entropy(nn.Identity(), (logits, labels), generator), expected)


@pytest.mark.public_door
def test_bad_input_is_refused() -> None:
    x, y = torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match="one for each input"):
        accuracy(nn.Identity(), x, y[:2])
    with pytest.raises(ValueError, match="at least one"):
        accuracy(nn.Identity(), x[:0], y[:0])
    with pytest.raises(ValueError, match="batch"):
        accuracy(nn.Identity(), x, y, batch=0)
    with pytest.raises(ValueError, match="top must be from 1 to 4"):
        accuracy(nn.Identity(), x, y, top=5)
