"""Classifiers of sentences."""

import pytest
import torch

from language.encoders import sentences, tiny_encoder
from sparsepriors.language import (
    SentenceClassifier,
    class_means_head,
    classifier_accuracy,
    token_rows,
    train_classifier,
)
from sparsepriors.networks import Hook
from sparsepriors.networks.sparse import Selector, SparsePlan, preset
from sparsepriors.priors import Unstructured


def classifier(classes=3, **options):
    return SentenceClassifier(tiny_encoder(**options), classes, generator=torch.Generator().manual_seed(0)).eval()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_sentence_is_the_mean_over_its_own_tokens_whatever_fills_the_row():
    model, (ids, _) = classifier(), sentences(5)
    with torch.no_grad():
        got = model(ids)
        for row, logits in zip(ids, got, strict=True):
            alone = row[row != 0][None]
            hidden = model.encoder(input_ids=alone).last_hidden_state[0]
            torch.testing.assert_close(logits, model.head(hidden.mean(dim=0)))
        wider = torch.cat([ids, torch.zeros(5, 6, dtype=torch.int64)], dim=1)
        torch.testing.assert_close(model(wider), got)


def test_a_mask_of_ones_own_may_leave_out_any_token():
    model, (ids, _) = classifier(), sentences(4)
    mask = ids != 0
    mask[:, 1] = False
    with torch.no_grad():
        hidden = model.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        want = torch.stack([h[m].mean(dim=0) for h, m in zip(hidden, mask, strict=True)])
        torch.testing.assert_close(model.features(ids, mask), want)
        assert torch.isfinite(model(torch.zeros_like(ids))).all()


def test_training_learns_and_the_same_seed_gives_the_same_bits():
    ids, labels = sentences(96)
    models = [classifier(dropout=0.1) for _ in range(2)]
    seen = []
    found = [train_classifier(m, ids, labels, epochs=8, batch=16, encoder_lr=3e-3, head_lr=1e-2,
                              generator=generator(), callback=seen.append) for m in models]
    assert found[0].trace == found[1].trace
    assert found[0].steps == len(seen) / 2 == 48
    assert classifier_accuracy(models[0], ids, labels) > 0.9 > 0.6 > classifier_accuracy(classifier(), ids, labels)
    rates = found[0].trace["lr"]
    assert rates[0] == 1e-2
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(1e-2 / 48)


def test_what_is_frozen_stays_and_each_part_has_its_rate():
    ids, labels = sentences(32)
    model = classifier()
    model.encoder.requires_grad_(False)
    before = [p.clone() for p in model.encoder.parameters()]
    head = model.head.weight.detach().clone()
    train_classifier(model, ids, labels, epochs=1, batch=32, head_lr=1e-3, generator=generator())
    assert all(torch.equal(a, b) for a, b in zip(before, model.encoder.parameters(), strict=True))
    moved = float((model.head.weight.detach() - head).abs().max())
    assert moved == pytest.approx(1e-3, rel=0.01)   # the first step of AdamW is the learning rate


def test_autocast_keeps_the_weights_dtype_and_nearly_the_result():
    ids, labels = sentences(64)
    models = [classifier(), classifier()]
    for model, dtype in zip(models, (None, torch.bfloat16), strict=True):
        train_classifier(model, ids, labels, epochs=1, batch=16, generator=generator(), autocast=dtype)
    assert all(p.dtype == torch.float32 for p in models[1].parameters())
    gap = max(float((a - b).detach().abs().max()) for a, b in zip(*(m.parameters() for m in models), strict=True))
    assert 0 < gap < 0.05


def test_a_plan_trains_with_masks():
    ids, labels = sentences(64)
    model = classifier()
    train_classifier(model, ids, labels, epochs=1, batch=16, generator=generator(),
                     plan=SparsePlan(Unstructured(0.25), where=Selector(skip=("head",))))
    weight = model.get_parameter("encoder.encoder.layer.0.attention.self.query.weight")
    assert int((weight != 0).sum()) == round(0.25 * weight.numel())


def test_accuracy_counts_rows_in_any_order():
    model, (ids, labels) = classifier(), sentences(50)
    with torch.no_grad():
        want = float((model(ids).argmax(dim=1) == labels).double().mean())
    assert classifier_accuracy(model, ids, labels, batch=7) == pytest.approx(want)
    assert classifier_accuracy(model.train(), ids, labels) == pytest.approx(want)
    assert model.training


def test_rows_of_tokens_are_cut_and_filled_up():
    class Letters:
        pad_token_id: int | None = 0

        def __call__(self, texts, truncation, max_length):
            assert truncation
            return {"input_ids": [[ord(c) - 96 for c in text][:max_length] for text in texts]}

    assert token_rows(Letters(), ["ab", "abcdef"], 4).tolist() == [[1, 2, 0, 0], [1, 2, 3, 4]]
    with pytest.raises(ValueError, match="texts must be at least one"):
        token_rows(Letters(), [], 4)
    Letters.pad_token_id = None
    with pytest.raises(ValueError, match="pad must be given"):
        token_rows(Letters(), ["a"], 4)
    assert token_rows(Letters(), ["a", "ab"], 4, pad=9).tolist() == [[1, 9], [1, 2]]


@pytest.mark.public_door
def test_bad_arguments_are_named():
    ids, labels = sentences(8)
    with pytest.raises(TypeError, match="config.hidden_size, got Linear"):
        SentenceClassifier(torch.nn.Linear(2, 2), 3)
    with pytest.raises(ValueError, match="classes must be at least 2"):
        SentenceClassifier(tiny_encoder(), 1)
    encoder = tiny_encoder()
    encoder.config.pad_token_id = None
    with pytest.raises(ValueError, match="pad must be given"):
        SentenceClassifier(encoder, 3)
    with pytest.raises(ValueError, match="one for each of 8 sentences"):
        train_classifier(classifier(), ids, labels[:7], epochs=1, batch=4, generator=generator())
    with pytest.raises(ValueError, match="head_lr must be finite and positive"):
        train_classifier(classifier(), ids, labels, epochs=1, batch=4, head_lr=0.0, generator=generator())
    with pytest.raises(ValueError, match="batch_size must be from 1 to 8"):
        train_classifier(classifier(), ids, labels, epochs=1, batch=9, generator=generator())
    with pytest.raises(ValueError, match="labels must be one for each sentence"):
        classifier_accuracy(classifier(), ids, labels[:7])


def test_a_head_of_class_means_chooses_the_nearest_mean():
    model, (ids, labels) = classifier(), sentences(60)
    class_means_head(model, ids, labels, batch=7)
    with torch.no_grad():
        x = model.features(ids)
        means = torch.stack([x[labels == k].mean(dim=0) for k in range(3)])
        logits = model(ids)
        assert torch.equal(logits.argmax(dim=1), torch.cdist(x, means).argmin(dim=1))
        class_means_head(model, ids, labels, sharpness=0.4)
        torch.testing.assert_close(model(ids), 2 * logits)
    with pytest.raises(ValueError, match="each of 3 classes, got shape .* and 2 classes"):
        class_means_head(model, ids[labels > 0], labels[labels > 0])


def test_rounds_share_the_epochs_rewind_and_begin_their_rates_anew():
    ids, labels = sentences(64)
    model = classifier()
    before, seen = model.get_parameter("encoder.encoder.layer.0.output.dense.weight").detach().clone(), []

    class Masks(Hook):
        def __init__(self, sparsifier):
            self.sparsifier = sparsifier

        def after_step(self, loop):
            seen.append((loop.step, self.sparsifier.density))

    where = Selector(only=("encoder.encoder.layer.*",))
    done = train_classifier(model, ids, labels, epochs=3, batch=16, generator=generator(),
                            plan=preset("imp", density=0.25, rounds=3, where=where), attach=lambda s: [Masks(s)])
    assert done.steps == 12
    assert done.trace["lr"] == pytest.approx([1e-2 * f for f in (1, 0.75, 0.5, 0.25)] * 3)
    assert [round(d, 2) for _, d in seen] == [1.0] * 3 + [0.5] * 4 + [0.25] * 5
    kept = model.get_parameter("encoder.encoder.layer.0.output.dense.weight") != 0
    assert 0 < int(kept.sum()) < before.numel()
