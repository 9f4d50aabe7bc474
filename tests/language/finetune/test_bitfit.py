"""Fine-tuning of biases alone."""

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from language.encoders import sentences, tiny_encoder
from language.finetune.models import IDS, build
from sparsepriors.language import SentenceClassifier, bitfit, train_classifier


def asked(model):
    return {name: p.requires_grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_biases_and_the_head_are_trained_and_nothing_else_moves(family):
    model = build(family)
    head = {"classifier.weight"} if family == "bert" else set()
    want = head | {f"{name}.bias" for name, m in model.named_modules()
                   if isinstance(getattr(m, "bias", None), nn.Parameter)}
    found = bitfit(model)
    assert set(found) == want == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(found[name] is p for name, p in model.named_parameters() if p.requires_grad)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model(IDS).logits.square().sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved <= want
    keys = {name for name in want if "key" in name or "c_attn" in name}   # softmax ignores the bias of a key
    assert moved >= want - keys


def test_biases_are_the_published_share_of_bert_base():
    with torch.device("meta"):
        model = BertModel(BertConfig())
    share = sum(p.numel() for p in bitfit(model).values()) / sum(p.numel() for p in model.parameters())
    assert round(100 * share, 2) == 0.09


def test_targets_leave_the_biases_of_other_modules_frozen():
    found = bitfit(build("bert"), ("query", "*intermediate.dense"))
    rest = {name for name in found if not name.startswith("classifier")}
    assert rest == {f"bert.encoder.layer.{i}.{part}.bias" for i in range(2)
                    for part in ("attention.self.query", "intermediate.dense")}


def test_other_modules_can_be_trained_in_full():
    found = bitfit(build("bert"), ("query",), trained=("bert.pooler",))
    assert {name for name in found if "query" not in name} == {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}


def test_several_biases_of_one_module_count():
    model = nn.ModuleDict({"rnn": nn.GRU(3, 4), "attention": nn.MultiheadAttention(4, 2)})
    assert set(bitfit(model)) == {"rnn.bias_ih_l0", "rnn.bias_hh_l0", "attention.in_proj_bias",
                                  "attention.out_proj.bias"}


def test_a_classifier_learns_by_its_biases():
    encoder = tiny_encoder()
    ids, labels = sentences(48)
    model = SentenceClassifier(encoder, int(labels.max()) + 1, generator=torch.Generator().manual_seed(0))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    found = bitfit(model)
    training = train_classifier(model, ids, labels, epochs=2, batch=8, encoder_lr=1e-2,
                                generator=torch.Generator().manual_seed(0))
    assert training.trace["loss"][-1] < training.trace["loss"][0]
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert {"head.weight", "head.bias"} < moved <= set(found)


@pytest.mark.parametrize(("model", "options", "error", "message"), [
    (lambda: build("llama"), {}, ValueError, "LlamaForCausalLM has no biases to train outside of its head"),
    (lambda: nn.ModuleDict({"body": nn.Linear(2, 2, bias=False), "head": nn.Linear(2, 2)}), {}, ValueError,
     "ModuleDict has no biases"),
    (lambda: build("bert"), {"targets": ("q_proj",)}, ValueError,
     "no module named 'q_proj' has a bias; those that have are LayerNorm, dense, key, query, value"),
    (lambda: build("bert"), {"targets": ("word_embeddings",)}, ValueError, "no module named 'word_embeddings'"),
    (lambda: build("bert"), {"targets": "query"}, TypeError, "targets must be names of modules, got 'query'"),
    (lambda: build("bert"), {"targets": ()}, TypeError, r"targets must be names of modules, got \(\)"),
    (lambda: build("bert"), {"trained": ("top",)}, ValueError, "no module is named 'top'"),
])
def test_what_cannot_be_trained_is_refused_and_leaves_the_model_alone(model, options, error, message):
    model = model()
    before = asked(model)
    with pytest.raises(error, match=message):
        bitfit(model, **options)
    assert asked(model) == before
