"""Calibration, strange and adversarial inputs: by hand, against scikit-learn, and by properties."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional

from sparsepriors.networks import auroc, ece, fgsm, predict

seeds = st.integers(0, 10**6)


@given(n=st.integers(1, 60), bins=st.integers(1, 20), seed=seeds)
def test_calibration_error_is_the_sum_over_bins(n: int, bins: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    logits, labels = 3 * torch.randn(n, 4, generator=g), torch.randint(0, 4, (n,), generator=g)
    p = logits.double().softmax(1)
    expected = 0.0
    for b in range(bins):
        rows = [i for i in range(n) if b / bins < float(p[i].max()) <= (b + 1) / bins]
        if rows:
            right = sum(int(p[i].argmax()) == int(labels[i]) for i in rows) / len(rows)
            expected += len(rows) / n * abs(right - sum(float(p[i].max()) for i in rows) / len(rows))
    assert ece(logits, labels, bins=bins) == pytest.approx(expected, abs=1e-9)


@given(n=st.integers(1, 60), bins=st.integers(1, 20), seed=seeds)
def test_calibration_error_is_torchmetrics_s(n: int, bins: int, seed: int) -> None:
    calibration = pytest.importorskip("torchmetrics.functional.classification").multiclass_calibration_error
    g = torch.Generator().manual_seed(seed)
    logits, labels = 3 * torch.randn(n, 4, generator=g, dtype=torch.float64), torch.randint(0, 4, (n,), generator=g)
    peer = calibration(logits.softmax(1), labels, num_classes=4, n_bins=bins, norm="l1")
    assert ece(logits, labels, bins=bins) == pytest.approx(float(peer), abs=1e-6)


def test_a_calibrated_classifier_has_no_error_and_a_boastful_one_has_its_boast() -> None:
    logits = torch.tensor([[0.8, 0.2]]).log().expand(10, 2)
    labels = torch.tensor([0] * 8 + [1] * 2)
    assert ece(logits, labels) == pytest.approx(0, abs=1e-6)
    assert ece(50 * logits, labels) == pytest.approx(0.2, abs=1e-6)


@given(n=st.integers(1, 30), m=st.integers(1, 30), levels=st.integers(1, 8), seed=seeds)
def test_the_area_under_the_curve_is_scikit_learn_s(n: int, m: int, levels: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    inside, outside = (torch.randint(0, levels, (k,), generator=g).float() for k in (n, m))
    expected = roc_auc_score([1] * n + [0] * m, torch.cat([inside, outside]).numpy())
    assert auroc(inside, outside) == pytest.approx(expected)
    assert auroc(inside, outside) + auroc(outside, inside) == pytest.approx(1)


def test_an_attack_raises_the_loss_within_its_step(generator: torch.Generator) -> None:
    model = nn.Sequential(nn.Linear(6, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 3))
    model(torch.randn(50, 6, generator=generator))
    x, y = torch.rand(40, 6, generator=generator), torch.randint(0, 3, (40,), generator=generator)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    moved = fgsm(model, x, y, step=0.01)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    torch.testing.assert_close((moved - x).abs(), torch.full_like(x, 0.01), atol=1e-6, rtol=0)
    losses = [functional.cross_entropy(predict(model, z), y, reduction="none") for z in (x, moved)]
    assert (losses[1] > losses[0]).all()
    clamped = fgsm(model, x, y, step=0.5, low=0.0, high=1.0)
    assert clamped.min() >= 0
    assert clamped.max() <= 1


def test_a_linear_attack_is_the_sign_of_the_weight_difference() -> None:
    model = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 0.5]]))
    moved = fgsm(model, torch.zeros(1, 3), torch.tensor([0]), step=torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(moved, torch.tensor([[-0.1, 0.2, 0.0]]))


@pytest.mark.public_door
def test_bad_input_is_refused() -> None:
    logits, labels = torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match="one row for each label"):
        ece(logits, labels[:2])
    with pytest.raises(ValueError, match="logits holds NaN"):
        ece(logits / 0, labels)
    with pytest.raises(ValueError, match="bins must be at least 1"):
        ece(logits, labels, bins=0)
    with pytest.raises(ValueError, match="outside must be a vector"):
        auroc(torch.zeros(3), torch.zeros(0))
    with pytest.raises(ValueError, match="inside holds NaN"):
        auroc(torch.tensor([float("nan")]), torch.zeros(1))
    with pytest.raises(ValueError, match="step"):
        fgsm(nn.Linear(2, 2), logits, labels, step=-1.0)
    with pytest.raises(ValueError, match="inputs must be at least one"):
        predict(nn.Identity(), torch.zeros(0, 2))
