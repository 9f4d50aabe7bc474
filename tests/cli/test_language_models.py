"""What the commands that read language models say of models and texts that they cannot use."""

import pytest
import torch
import typer
from tokenizers import Tokenizer, models
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sparsepriors.cli import _language

CONFIG = LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                     bos_token_id=1, eos_token_id=2)


def tokenizer():
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?")))


def message(capsys, call, code):
    with pytest.raises(typer.Exit) as stopped:
        call()
    assert stopped.value.exit_code == code
    return " ".join(capsys.readouterr().err.split())


def test_a_folder_is_loaded_without_a_word(tmp_path, capsys):
    LlamaForCausalLM(CONFIG).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    capsys.readouterr()
    network, found = _language.load(str(tmp_path), torch.bfloat16, None)
    assert network.dtype == torch.bfloat16
    assert not network.training
    assert found("a")["input_ids"] == [0]
    assert capsys.readouterr() == ("", "")


def test_truncated_weights_a_missing_tokenizer_and_an_encoder_are_told_apart(tmp_path, capsys):
    LlamaForCausalLM(CONFIG).save_pretrained(tmp_path / "a")
    assert "put it beside the weights: tokenizer.save_pretrained" in message(
        capsys, lambda: _language.load(str(tmp_path / "a"), torch.float32, None), 1)
    file = tmp_path / "a" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "a cannot be read as a language model" in message(
        capsys, lambda: _language.load(str(tmp_path / "a"), torch.float32, None), 1)
    (tmp_path / "a" / "config.json").write_text("{", encoding="utf-8")
    assert "not a readable JSON" in message(capsys, lambda: _language.load(str(tmp_path / "a"), torch.float32, None), 1)
    BertModel(BertConfig(vocab_size=32, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
                         intermediate_size=8)).save_pretrained(tmp_path / "b")
    assert "is a BertModel, which predicts no next token" in message(
        capsys, lambda: _language.load(str(tmp_path / "b"), torch.float32, None), 2)


@pytest.mark.parametrize(("name", "words"), [
    ("smolm2", "did you mean smollm2?"),
    ("./nowhere/model", "there is no folder ./nowhere/model"),
    ("somebody/some-model", "nothing is downloaded here. Fetch it first: hf download somebody/some-model"),
])
def test_names_that_lead_nowhere(name, words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert words in message(capsys, lambda: _language.folder(name), 2)
    (tmp_path / "empty").mkdir()
    assert "with its config.json" in message(capsys, lambda: _language.folder("empty"), 2)


def test_texts(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("some text", encoding="utf-8")
    assert _language.read_text(tmp_path / "a.txt") == "some text"
    (tmp_path / "b.txt").write_bytes("café".encode("latin-1"))
    assert "b.txt is not a text in UTF-8" in message(capsys, lambda: _language.read_text(tmp_path / "b.txt"), 1)
    (tmp_path / "c.txt").write_text(" \n", encoding="utf-8")
    assert "c.txt holds no text" in message(capsys, lambda: _language.read_text(tmp_path / "c.txt"), 1)
    assert "cannot be read: No such file" in message(capsys, lambda: _language.read_text(tmp_path / "d.txt"), 2)
