"""``sparsepriors inspect``: three accounts of a checkpoint, as tables, JSON and a page; one line for every mistake."""

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

from sparsepriors import _files
from sparsepriors.cli import app
from sparsepriors.priors import NM

CONFIG = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
          "num_attention_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": True}


def call(*arguments):
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


def said(result):
    return " ".join(result.output.split())


@pytest.fixture
def pair(tmp_path):
    """A model with 2:4 weights in its gates, in shards, and one in which half of the rows of a matrix moved."""
    torch.manual_seed(0)
    net = LlamaForCausalLM(LlamaConfig(**CONFIG))
    letters = Tokenizer(models.WordLevel({c: i for i, c in enumerate("?ab ")}, unk_token="?"))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=letters).save_pretrained(tmp_path / "a")
    with torch.no_grad():
        for block in net.model.layers:
            gate = block.get_parameter("mlp.gate_proj.weight")
            gate.copy_(NM(2, 4).project(gate))
        net.save_pretrained(tmp_path / "a", max_shard_size="20KB")
        net.get_parameter("model.layers.1.self_attn.q_proj.weight")[::2] += 1.0
    net.save_pretrained(tmp_path / "b")
    (tmp_path / "text.txt").write_text("ab ba " * 60, encoding="utf-8")
    assert len(list((tmp_path / "a").glob("*.safetensors"))) > 1
    return tmp_path


def test_weights_differences_and_activations_in_every_form(pair):
    arguments = (pair / "a", pair / "b", "--text", pair / "text.txt", "--length", 32, "--ranks")
    result = call(*arguments, "--json", "--html", pair / "page.html")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    gates = [row for row in found["weights"]["rows"] if row["matrix"] == "mlp.gate_proj.weight"]
    assert [(row["layer"], row["pattern"], row["zeros"]) for row in gates] == [(0, "2:4", 0.5), (1, "2:4", 0.5)]
    assert found["weights"]["total"]["matrices"] == 14
    moved = next(row for row in found["update"]["rows"] if row["name"] == "model.layers.1.self_attn.q_proj.weight")
    assert (moved["exact_sparsity"], moved["rank"]) == (0.5, 1)
    assert found["update"]["by_matrix"]["self_attn.q_proj.weight"] == 0.75
    seen = found["activations"]
    assert seen["measure"] == "|a| > 0.1"   # SiLU has no zeros of its own
    assert [row["layer"] for row in seen["rows"]] == [0, 1]
    assert all(0 < row["percent_nonzero"] < 100 for row in seen["rows"])
    page = (pair / "page.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 5
    assert "src=" not in page
    text = said(call(*arguments))
    assert "mlp.gate_proj 2 3,072 50.00 %" in text
    assert "of full rank" in text
    assert "activations are inactive on 352 tokens" in text


def test_what_is_looked_at_can_be_chosen(pair):
    result = call(pair / "a", pair / "b", "--modules", "q_proj,*.0.mlp.*", "--each", "--json")
    found = json.loads(result.stdout)
    names = [row["name"] for row in found["weights"]["rows"]]
    assert len(names) == 2 + 3
    assert sorted(names) == sorted(row["name"] for row in found["update"]["rows"])
    assert said(call(pair / "a", "--modules", "*.0.mlp.*", "--each")).count("model.layers.0.mlp") == 3


def test_an_encoder_is_read_too(pair):
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, hidden_act="relu",
                         intermediate_size=16)).save_pretrained(pair / "bert")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (pair / "bert" / file).write_bytes((pair / "a" / file).read_bytes())
    result = call(pair / "bert", "--text", pair / "text.txt", "--length", 16, "--json")
    assert result.exit_code == 0, result.output
    seen = json.loads(result.stdout)["activations"]
    assert any(row["neurons"] == 16 for row in seen["rows"])


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (("a", "--modules", "q_porj"), 1, "no tensor is named 'q_porj'; near: q_proj"),
    (("a", "--modules", " , "), 2, "--modules takes names"),
    (("a", "--near", "0"), 2, "--near must be finite and above 0, got 0"),
    (("a", "--near", "nan"), 2, "--near must be finite and above 0, got nan"),
    (("a", "--html", "a/config.json/page.html"), 1, "cannot write a/config.json/page.html: "),
    (("a", "norms.safetensors"), 1, "differ (model.embed_tokens.weight: only before"),
    (("a", "norms.safetensors"), 1, "--skip-mismatch leaves them out"),
    (("norms.safetensors",), 1, "holds no weight matrix"),
    (("a", "half"), 1, "give --dtype to cast both"),
    (("cut.safetensors",), 1, "cut.safetensors is not a readable safetensors file"),
    (("old.bin",), 2, "convert other formats first"),
    (("someone/model",), 2, "nothing is downloaded here"),
    (("smolm2",), 2, "did you mean smollm2?"),
    (("a", "--text", "nowhere.txt"), 2, "nowhere.txt cannot be read"),
    (("a", "--text", "text.txt", "--length", "1000"), 1, "fewer than one window of --length 1000"),
    (("b", "--text", "text.txt"), 1, "the tokenizer of b is missing"),
    (("norms.safetensors", "--text", "text.txt"), 2, "--text needs a model and its tokenizer"),
    (("a", "norms.safetensors", "--modules", "q_proj", "--skip-mismatch"), 1, "no tensor that both have fits q_proj"),
    (("a", "--html", "a"), 2, "a is a folder; --html names the page"),
    (("lost",), 2, "names model-2.safetensors, which is not there"),
])
def test_mistakes_get_one_line(pair, monkeypatch, arguments, code, words):
    monkeypatch.chdir(pair)
    _files.write_tensors("norms.safetensors", {"model.norm.weight": torch.ones(32)})
    (pair / "cut.safetensors").write_bytes(next((pair / "a").glob("*.safetensors")).read_bytes()[:200])
    (pair / "old.bin").write_bytes(b"x")
    LlamaForCausalLM(LlamaConfig(**CONFIG)).half().save_pretrained(pair / "half")
    (pair / "lost").mkdir()
    _files.write_json("lost/model.safetensors.index.json", {"weight_map": {"x": "model-2.safetensors"}})
    before = sorted(p.name for p in pair.iterdir())
    result = call(*arguments)
    assert result.exit_code == code, result.output
    assert words in said(result)
    assert "Traceback" not in result.output
    assert sorted(p.name for p in pair.iterdir()) == before


def test_other_tensors_can_be_left_out(pair):
    _files.write_tensors(pair / "one.safetensors", {"model.norm.weight": torch.ones(32)})
    result = call(pair / "a", pair / "one.safetensors", "--skip-mismatch")
    assert result.exit_code == 0, result.output
    assert "tensors left out, such as model.embed_tokens.weight (only before)" in said(result)
