"""Heads and neurons that are cut out leave what the others say as it was."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from language.finetune.models import IDS, TARGETS, build, logits
from sparsepriors.language import DSEE, transformer_flops
from sparsepriors.language.finetune.adapter import matrix
from sparsepriors.language.finetune.structure import attentions, hidden_layers, neuron_scores

FAMILIES = list(TARGETS)
GROUPS = {"bert": 4, "gpt2": 4, "llama": 2}


def tuned(family, seed=0, moved=True):
    tuner = DSEE(build(family), 2, 5, 4.0, TARGETS[family], support="random",
                 generator=torch.Generator().manual_seed(seed))
    g = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for p in tuner.trainable_parameters().values() if moved else ():
            p.add_(0.3 * torch.randn(p.shape, generator=g))
    return tuner


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_of_a_model_are_found(family):
    model = build(family)
    found = attentions(model)
    assert [a.size for a in found] == [6, 6]
    assert len(hidden_layers(model)) == 2
    tuner = tuned(family)
    assert attentions(tuner.model) == found
    assert hidden_layers(tuner.model) == hidden_layers(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_without_heads_says_what_it_says_when_their_outputs_are_nothing(family):
    cut, whole = tuned(family), tuned(family)
    cut.prune_heads(1)
    kept = {a.name: cut._kept[f"heads:{a.name}"] for a in attentions(cut.model)}
    for attention in attentions(whole.model):
        output = matrix(whole.model.get_submodule(attention.output))
        groups = output.mT.unflatten(0, (GROUPS[family], -1))
        gone = torch.ones(len(groups), dtype=torch.bool)
        gone[kept[attention.name]] = False
        assert int(gone.sum()) == 1
        groups[gone] = 0
    torch.testing.assert_close(logits(cut.model), logits(whole.model), rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in cut.model.parameters()) < sum(p.numel() for p in whole.model.parameters())


@pytest.mark.parametrize("score", ["ABS", "W", "WABS"])
def test_the_heads_of_least_score_go(score):
    tuner = tuned("bert")
    wanted = {}
    for i in range(2):
        sums = torch.zeros(4)
        for name in ("query", "value"):
            m = tuner.layers[f"bert.encoder.layer.{i}.attention.self.{name}"]
            size = m.update(scaled=False).abs() * (score != "W") + matrix(m.base).abs() * (score != "ABS")
            sums += size.reshape(4, -1).sum(dim=1)
        wanted[f"heads:bert.encoder.layer.{i}.attention.self"] = sums.argsort()[2:].sort().values.tolist()
    tuner.prune_heads(2, score=score)
    assert {k: v.tolist() for k, v in tuner._kept.items()} == wanted


def test_cutting_twice_counts_heads_of_the_whole_model():
    once, twice = tuned("bert"), tuned("bert")
    once.prune_heads(2, score="W")
    for _ in range(2):
        twice.prune_heads(1, score="W")
    assert {k: v.tolist() for k, v in once._kept.items()} == {k: v.tolist() for k, v in twice._kept.items()}
    assert torch.equal(logits(once.model), logits(twice.model))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_neurons_of_shortest_rows_go_and_the_others_say_what_they_said(family):
    cut, whole = tuned(family), tuned(family)
    cut.prune_neurons(0.25)
    for hidden in hidden_layers(whole.model):
        scores = neuron_scores(whole.model, hidden)
        output = matrix(whole.model.get_submodule(hidden.output))
        gone = scores.argsort()[:round(0.25 * len(scores))]
        output[:, gone] = 0
        assert cut._kept[f"neurons:{hidden.name}"].numel() == len(scores) - len(gone)
    torch.testing.assert_close(logits(cut.model), logits(whole.model), rtol=1e-4, atol=1e-5)


def test_a_cut_model_trains_on():
    tuner = tuned("bert")
    tuner.prune_heads(2)
    tuner.prune_neurons(0.5)
    batches = [{"input_ids": IDS, "labels": torch.tensor([0, 1, 2])}] * 4
    before = {name: p.clone() for name, p in tuner.trainable_parameters().items()}
    tuner.fit(batches, epochs=1, lr=1e-2, generator=torch.Generator().manual_seed(0))
    assert all((p != before[name]).any() or not p.numel() for name, p in tuner.trainable_parameters().items())
    assert len(before) == 4 * 3 + 2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cut", [False, True])
def test_operations_are_those_that_torch_counts(family, cut):
    tuner = tuned(family)
    if cut:
        tuner.prune_heads(1)
        tuner.prune_neurons(0.25)
    found = transformer_flops(tuner.model, IDS)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        tuner.model(IDS)
    entries = 2 * IDS.numel() * sum(len(layer.values) for layer in tuner.layers.values())   # torch counts none of them
    assert found.dense - entries == counter.get_total_flops()
    assert found.sparse == found.dense


def test_pruned_weights_are_no_operations_of_a_sparse_kernel():
    tuner = tuned("bert")
    before = transformer_flops(tuner.model, IDS)
    masks = tuner.prune(0.5, skip=("pooler",))
    after = transformer_flops(tuner.model, IDS)
    assert after.dense == before.dense
    removed = sum(int((~m).sum()) for m in masks.values())
    assert before.sparse - after.sparse == 2 * IDS.numel() * removed
    assert not any("pooler" in name for name in masks)


@pytest.mark.public_door
def test_models_without_parts_are_refused():
    with pytest.raises(ValueError, match="no attention with layers named query, key, value or"):
        attentions(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="no perceptron with layers named gate_proj, up_proj, down_proj or"):
        hidden_layers(nn.Linear(3, 3))
    model = build("bert")
    model.bert.encoder.layer[0].attention.self.attention_head_size = 7
    with pytest.raises(ValueError, match="heads of 7 numbers do not fill the 24 of bert.encoder.layer.0"):
        attentions(model)
    del model.bert.encoder.layer[0].attention.self.attention_head_size
    model.bert.encoder.layer[0].attention.self.num_attention_heads = 5
    with pytest.raises(ValueError, match="24 numbers and 5 heads"):
        attentions(model)
