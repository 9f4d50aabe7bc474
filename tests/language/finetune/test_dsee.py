"""Tuning, pruning, merging and saving with sparse low-rank updates."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from language.encoders import sentences, tiny_encoder
from language.finetune.models import IDS, TARGETS, build, logits
from sparsepriors import _files
from sparsepriors.language import DSEE, SentenceClassifier, classifier_accuracy, find_support, train_classifier
from sparsepriors.language.finetune.adapter import matrix

FAMILIES = list(TARGETS)
QUERY = "bert.encoder.layer.0.attention.self.query"


def tuned(family="bert", *, rank=2, nonzeros=5, seed=0, support="random", moved=True, **options):
    """A tuner whose updates are as if it had been trained."""
    tuner = DSEE(build(family), rank, nonzeros, 4.0, TARGETS[family], support=support,
                 generator=torch.Generator().manual_seed(seed), **options)
    g = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for p in tuner.trainable_parameters().values() if moved else ():
            p.add_(0.3 * torch.randn(p.shape, generator=g))
    return tuner


@pytest.mark.parametrize("family", FAMILIES)
def test_only_updates_and_the_head_are_trained_and_counted(family):
    tuner = tuned(family, moved=False)
    torch.testing.assert_close(logits(tuner.model), logits(build(family)))
    sizes = [(w.shape, 2, 5) for w in (layer.update() for layer in tuner.layers.values())]
    want = sum(r * (m + n) + entries for (m, n), r, entries in sizes)
    want += 24 * 3 + 3 if family == "bert" else 0
    assert sum(p.numel() for p in tuner.trainable_parameters().values()) == want
    assert list(tuner.trained) == (["classifier"] if family == "bert" else [])
    tuner.model(IDS).logits.sum().backward()
    touched = {name for name, p in tuner.model.named_parameters() if p.grad is not None}
    assert touched == set(tuner.trainable_parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_merging_keeps_what_the_model_says_and_leaves_a_plain_model(family):
    tuner = tuned(family)
    want = logits(tuner.model)
    model = tuner.merge()
    torch.testing.assert_close(logits(model), want, rtol=1e-4, atol=1e-4)
    assert {type(m) for m in model.modules()} == {type(m) for m in build(family).modules()}
    assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(ValueError, match="merged into the model already"):
        tuner.prune(0.5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("score", ["ABS", "WABS", "W", "NAB", "random"])
def test_counts_of_pruned_weights_are_exact_in_one_ranking_of_each_kind(family, score):
    tuner = tuned(family)
    before = logits(tuner.model)
    masks = tuner.prune(0.4, 0.7, score=score, generator=torch.Generator().manual_seed(0))
    targets = [masks[name] for name in tuner.layers]
    others = [m for name, m in masks.items() if name not in tuner.layers]
    for group, share in ((targets, 0.6), (others, 0.3)):
        whole = sum(m.numel() for m in group)
        assert sum(int(m.sum()) for m in group) == round(share * whole)
    assert len({float(m.float().mean()) for m in targets}) > 1 or family == "gpt2"
    assert tuner.sparsity()["targets"] == pytest.approx(0.4, abs=1e-3)
    assert tuner.sparsity()["others"] == pytest.approx(0.7, abs=1e-3)
    assert not any(name.endswith(("classifier", "lm_head")) for name in masks)
    assert not torch.equal(logits(tuner.model), before)
    tuner.reset_mask()
    assert torch.equal(logits(tuner.model), before)
    assert tuner.sparsity() == {"targets": 0, "others": 0, "all": 0}


def test_masks_are_those_of_the_stated_scores():
    tuner = tuned()
    layers = tuner.layers.values()
    W = torch.cat([matrix(layer.base).flatten() for layer in layers])
    UV = torch.cat([(layer.U @ layer.V).detach().flatten() for layer in layers])
    S = torch.cat([(layer.update(scaled=False) - layer.update(entries=False, scaled=False)).flatten()
                   for layer in layers])
    scale = 2.0
    stated = {"ABS": (scale * (UV + S)).abs(), "AB": (scale * UV).abs(), "WABS": (W + UV + scale * S).abs(),
              "WAB": (W + scale * UV).abs(), "W": W.abs(), "NABS": 1 / (scale * (UV + S)).abs(),
              "NAB": 1 / UV.abs()}
    for score, of_score in stated.items():
        masks = tuner.prune(0.3, 0, score=score)
        got = torch.cat([masks[name].flatten() for name in tuner.layers])
        least = of_score[got].min()
        assert (of_score[~got] <= least * (1 + 1e-5)).all(), score
        tuner.reset_mask()


def test_the_update_is_not_masked():
    tuner = tuned()
    name, layer = next(iter(tuner.layers.items()))
    masks = tuner.prune(0.5)
    gone = ~masks[name]
    assert not matrix(layer.base)[gone].any()
    merged = matrix(tuner.merge().get_submodule(name))
    torch.testing.assert_close(merged[gone], layer.update()[gone])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_adapter_makes_the_same_model_of_the_same_base(family, tmp_path):
    tuner = tuned(family)
    tuner.prune_neurons(0.25)
    tuner.prune_heads(1)
    tuner.prune(0.5, 0.3)
    path = tuner.save(tmp_path / "adapter.safetensors")
    again = DSEE.load(path, build(family))
    assert torch.equal(logits(again.model), logits(tuner.model))
    assert again.sparsity() == tuner.sparsity()
    assert set(again.trainable_parameters()) == set(tuner.trainable_parameters())
    assert {k: v.tolist() for k, v in again.state_dict().items()} == {k: v.tolist() for k, v in
                                                                        tuner.state_dict().items()}
    again.reset_mask()
    tuner.reset_mask()
    assert torch.equal(logits(again.model), logits(tuner.model))


def test_a_state_goes_back_into_the_tuner_that_it_came_from():
    tuner = tuned()
    tuner.prune(0.5)
    state, said = tuner.state_dict(), logits(tuner.model)
    tuner.reset_mask()
    with torch.no_grad():
        for p in tuner.trainable_parameters().values():
            p.zero_()
    tuner.load_state_dict(state)
    assert torch.equal(logits(tuner.model), said)


@pytest.mark.public_door
def test_a_state_of_another_base_or_of_other_layers_is_refused(tmp_path):
    path = tuned().save(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="other weights than this one has"):
        DSEE.load(path, build("bert", seed=1))
    other = DSEE(build("bert"), 2, 5, 4.0, ("query",), support="random")
    with pytest.raises(ValueError, match="the state is of the layers"):
        other.load_state_dict(tuned().state_dict())
    wide = DSEE(build("bert"), 3, 5, 4.0, support="random")
    with pytest.raises(ValueError, match=r"does not fit: U must have shape \(24, 3\), got \(24, 2\)"):
        wide.load_state_dict(tuned().state_dict())
    for key, value, message in (("mask/bert.nowhere", torch.zeros(72, dtype=torch.uint8), "a mask of bert.nowhere"),
                                (f"update/{QUERY}/indices", torch.full((2, 5), 99, dtype=torch.int32), "24 x 24"),
                                (f"update/{QUERY}/values", torch.zeros(4), r"values must have shape \(5,\)")):
        with pytest.raises(ValueError, match=message):
            tuned().load_state_dict({**tuned().state_dict(), key: value})
    cut, other_cut = tuned(), tuned()
    cut.prune_heads(1)
    other_cut.prune_heads(2)
    with pytest.raises(ValueError, match="other heads or neurons"):
        other_cut.load_state_dict(cut.state_dict())
    save_file(load_file(path), tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match="no DSEE adapter of this version"):
        DSEE.load(tmp_path / "bare.safetensors", build("bert"))
    (tmp_path / "broken.safetensors").write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        DSEE.load(tmp_path / "broken.safetensors", build("bert"))


@pytest.mark.parametrize("wrong", [{"rank": "4"}, {"rank": 0}, {"alpha": None}, {"targets": [1]}, {"trained": "head"},
                                   {"format": 2}])
def test_a_description_of_an_adapter_that_cannot_be_is_refused(tmp_path, wrong):
    path = DSEE(build("bert"), 2, 4, support="random").save(tmp_path / "own.safetensors")
    state, header = _files.read_described_tensors(path)
    about = json.loads(header["sparsepriors.dsee"]) | wrong
    _files.write_tensors(path, state, {"sparsepriors.dsee": json.dumps(about)})
    with pytest.raises(ValueError, match="no DSEE adapter of this version"):
        DSEE.load(path, build("bert"))


def test_training_a_classifier_learns_with_the_encoder_frozen_and_masks_stay():
    ids, labels = sentences(96)
    encoder = tiny_encoder()
    frozen = {name: p.clone() for name, p in encoder.named_parameters()}
    model = SentenceClassifier(encoder, 3, generator=torch.Generator().manual_seed(0))
    tuner = DSEE(model, 2, 4, support="random")
    generator = torch.Generator().manual_seed(0)
    train_classifier(model, ids, labels, epochs=6, batch=16, encoder_lr=1e-2, generator=generator)
    assert classifier_accuracy(model, ids, labels) > 0.8
    masks = tuner.prune(0.5)
    train_classifier(model, ids, labels, epochs=2, batch=16, encoder_lr=1e-2, generator=generator)
    assert classifier_accuracy(model, ids, labels) > 0.8
    for name, mask in masks.items():
        layer = tuner.layers[name].base if name in tuner.layers else model.get_submodule(name)
        assert not matrix(layer)[~mask].any()
    tuner.reset_mask()
    for name, p in model.encoder.named_parameters():
        if name.replace(".base", "") in frozen:
            assert torch.equal(p, frozen[name.replace(".base", "")])


def test_fit_trains_on_a_models_own_loss():
    tuner = tuned(moved=False)
    batches = [{"input_ids": IDS, "labels": torch.tensor([0, 1, 2])}] * 4
    seen = []
    done = tuner.fit(batches, epochs=10, lr=1e-2, head_lr=5e-2, generator=torch.Generator().manual_seed(0),
                     callback=seen.append)
    assert done.steps == len(seen) == 40
    assert sum(done.trace["loss"][-5:]) < 0.5 * sum(done.trace["loss"][:5])
    tuner.prune(0.2)   # trained, so that the update has a size
    with pytest.raises(ValueError, match="length of at least 1"):
        tuner.fit(iter(batches), epochs=1, generator=torch.Generator())
    with pytest.raises(ValueError, match="lr must be finite and positive"):
        tuner.fit(batches, epochs=1, lr=-1.0, generator=torch.Generator())


def test_supports_are_distinct_places_and_of_the_stated_kind():
    weight = build("bert").bert.encoder.layer[0].attention.self.query.weight.detach()
    for method in ("grebsmo", "random", "magnitude"):
        rows, columns = find_support(weight, 40, method)
        assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) == 40
    rows, columns = find_support(weight, 1, "magnitude")
    assert weight[rows, columns].abs() == weight.abs().max()
    assert find_support(weight, 0).shape == (2, 0)
    spiked = torch.outer(torch.linspace(-1, 1, 40), torch.linspace(0.5, 2, 30))
    spiked[7, 21] += 9
    spiked[30, 3] -= 9
    found = {tuple(place) for place in find_support(spiked, 2).T.tolist()}
    assert len(found & {(7, 21), (30, 3)}) < 2   # a rank that grows on explains single large entries as well
    with pytest.raises(ValueError, match="did you mean 'grebsmo'"):
        find_support(weight, 2, "grebsm")


@pytest.mark.public_door
def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"no layer is named 'q_proj'; the linear layers are .*key, query, value"):
        DSEE(build("bert"), targets=("q_proj",))
    with pytest.raises(TypeError, match="is Embedding, and only linear layers"):
        DSEE(build("bert"), targets=("word_embeddings",))
    with pytest.raises(TypeError, match="targets must be names"):
        DSEE(build("bert"), targets="query")
    with pytest.raises(TypeError, match="model must be a torch.nn.Module"):
        DSEE("bert")
    with pytest.raises(ValueError, match="24 x 24 cannot have rank = 25"):
        DSEE(build("bert"), 25, 3)
    with pytest.raises(ValueError, match="nonzeros = 577"):
        DSEE(build("bert"), 2, 577)
    with pytest.raises(ValueError, match="no module is named 'top'"):
        DSEE(build("bert"), 2, 3, support="random", trained=("top",))
    with pytest.raises(ValueError, match="support has no indices for"):
        DSEE(build("bert"), 2, 3, support={})
    model = build("bert")
    DSEE(model, 2, 3, support="random")
    with pytest.raises(ValueError, match="query is adapted already"):
        DSEE(model, 2, 3)
    fresh = tuned(moved=False)
    with pytest.raises(ValueError, match="which is zero before training"):
        fresh.prune(0.5)
    with pytest.raises(ValueError, match="which is zero before training"):
        fresh.prune_heads(1)
    fresh.prune(0.5, score="W")
    with pytest.raises(ValueError, match=r"pruned already; call reset_mask\(\) first"):
        fresh.prune(0.5, score="W")
    with pytest.raises(ValueError, match="before single weights"):
        fresh.prune_neurons(0.5)
    tuner = tuned()
    with pytest.raises(ValueError, match=r"ratio must be in \[0, 1\), got 1"):
        tuner.prune(1.0)
    with pytest.raises(ValueError, match="random scores need a generator"):
        tuner.prune(0.5, score="random")
    with pytest.raises(ValueError, match="did you mean 'ABS'"):
        tuner.prune(0.5, score="ABSS")
    with pytest.raises(ValueError, match="count must leave a head: .* has 4, got 4"):
        tuner.prune_heads(4)
    with pytest.raises(ValueError, match="random scores need a generator"):
        tuner.prune_heads(1, score="random")
    with pytest.raises(ValueError, match="layer.0.attention.self has none; use 'W'"):
        elsewhere = DSEE(build("bert"), 2, 3, targets=("*.intermediate.dense",), support="random")
        next(iter(elsewhere.layers.values())).values.data.fill_(1)
        elsewhere.prune_heads(1)
    with pytest.raises(ValueError, match=r"ratio must be in \(0, 1\), got 1"):
        tuner.prune_neurons(1.0)
    with pytest.raises(ValueError, match="no attention with layers named"):
        plain = DSEE(nn.Sequential(nn.Linear(4, 4)), 1, 1, targets=("0",), support="random")
        plain.layers["0"].values.data.fill_(1)
        plain.prune_heads(1)
