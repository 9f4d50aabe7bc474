"""Lazy neurons: the smoke scale, twins on the same batches, labels at random, and the sign of the first gradient."""

from __future__ import annotations

import pytest
import torch

from sparsepriors.data import digits8
from sparsepriors.papers import _lazy_training
from sparsepriors.papers._lazy_cost import decoding, push
from sparsepriors.papers._lazy_training import Pictures, VisionSizes, noisy_labels, vision
from sparsepriors.papers.lazy_neuron import SIZES
from sparsepriors.runs import Scale

CPU = torch.device("cpu")
TINY = VisionSizes(patch=4, width=16, depth=1, hidden=32, batch=20, epochs=1)


@pytest.mark.slow
def test_the_smoke_scale_measures_every_claim_and_resumes_to_the_same_rows(smoke):
    rows, claims = smoke("lazy-neuron", "emergence", "topk")
    layers = [r for r in rows if "layer" in r]
    assert {r["arm"] for r in layers} == {"dense", "a quarter", "a sixteenth", "longer"}
    dense = [r for r in layers if r["arm"] == "dense"]
    assert all(45 <= r["percent_first"] <= 55 for r in dense)
    for model in ("text", "images"):
        first, last = ([r[k] for r in dense if r["model"] == model] for k in ("percent_first", "percent_last"))
        assert sum(last) < sum(first)
    hidden = SIZES[Scale.SMOKE].text.hidden
    assert all(r["percent_last"] <= 25 for r in layers if r["arm"] == "a quarter")
    assert next(r for r in rows if r["arm"] == "a quarter" and "most" in r)["most"] <= hidden // 4
    assert {r["arm"] for r in rows if "arm" in r} >= {"depth", "width", "weight decay", "random labels"}
    assert claims["top-k-bound"]["ours"] <= 1
    assert claims["decodes-alike"]["ours"] <= 1e-5


def test_twins_begin_with_the_same_weights_and_see_the_same_batches(monkeypatch):
    pictures = Pictures.draw(digits8(), 60, 40, seed=1, device=CPU)
    seen = []

    def loss(model, batch, generator):
        seen.append(batch)
        return _cross_entropy(model, batch, generator)

    _cross_entropy = _lazy_training.cross_entropy
    monkeypatch.setattr(_lazy_training, "cross_entropy", loss)
    for topk in (None, 4):
        found = vision(pictures, TINY, 1, topk)
        assert found["steps"] == [0, 1, 2, 3]
    dense, twin = seen[:3], seen[3:]
    assert all(torch.equal(a, b) for x, y in zip(dense, twin, strict=True) for a, b in zip(x, y, strict=True))
    weights = [dict(pictures.vit(TINY, 1, k).named_parameters()) for k in (None, 4)]
    assert all(torch.equal(w, weights[1][name]) for name, w in weights[0].items())


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_replaced_labels_are_of_all_classes(share, monkeypatch):
    pictures = Pictures.draw(digits8(), 1000, 40, seed=0, device=CPU)
    used = {}
    monkeypatch.setattr(_lazy_training, "fit", lambda model, loss, batches, *args, **options: used.update(
        labels=batches.tensors[1]))
    noisy_labels(pictures, TINY, 0, share, None)
    kept = float((used["labels"] == pictures.labels).double().mean())
    assert kept == pytest.approx(1 - share + share / 10, abs=0.03)


def test_the_first_gradient_is_what_the_expectation_says_and_is_positive_for_cross_entropy():
    found = push(256, 10, 3000, 0)
    assert found["squared"] == pytest.approx(1, abs=0.05)
    assert 0 < found["entropy"] < found["squared"]


def test_a_perceptron_that_skips_neurons_is_timed_beside_the_one_that_does_not():
    found = decoding(64, 256, 8, 0)
    assert found["error"] <= 1e-5
    assert min(found.values()) >= 0
