"""``sparsepriors generate``: text as it comes, numbers after it, one line for every mistake."""

from __future__ import annotations

import json
import os
import signal

import pytest
from typer.testing import CliRunner

from sparsepriors.cli import _generate, _language, app
from sparsepriors.language import prune_blocks
from sparsepriors.language.stand_in import stand_in
from sparsepriors.priors import NM


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Random weights in the place of the real ones."""
    monkeypatch.setattr(_language, "load", lambda name, dtype, data_dir: stand_in(0, dtype=dtype))


def call(*arguments: object):
    return CliRunner().invoke(app, ["generate", "--dtype", "float32", *map(str, arguments)])


PROMPT = "It was a dark and stormy night. " * 5


def test_text_comes_first_and_the_numbers_after_it():
    result = call("--prompt", PROMPT, "--kv", "mustafar", "--sparsity", 0.7, "--max-new-tokens", 9)
    assert result.exit_code == 0, result.output
    facts = json.loads(call("--prompt", PROMPT, "--kv", "mustafar", "--sparsity", 0.7, "--max-new-tokens", 9,
                            "--json").stdout)
    assert result.stdout.rstrip("\n") == facts["text"].rstrip("\n")
    assert "9 tokens after a prompt of 160" in result.stderr
    assert (facts["kv"], facts["sparsity"], facts["new_tokens"], facts["prompt_tokens"]) == ("mustafar", 0.7, 9, 160)
    assert facts["cache_bytes"] == pytest.approx(facts["bytes_share"] * facts["dense_bytes"])
    assert facts["bytes_share"] < 1
    assert facts["tokens_per_s"] > 0


def test_draws_follow_the_seed_and_greedy_text_does_not():
    def text(*options):
        return json.loads(call("--prompt", PROMPT, "--json", "--max-new-tokens", 12, *options).stdout)["text"]

    assert text("--seed", 1) == text("--seed", 2)
    assert text("--temperature", 1, "--seed", 1) == text("--temperature", 1, "--seed", 1)
    assert text("--temperature", 1, "--seed", 1) != text("--temperature", 1, "--seed", 2)


def test_the_dense_cache_and_standard_input():
    result = CliRunner().invoke(app, ["generate", "--prompt", "-", "--kv", "dense", "--json", "--max-new-tokens", "3"],
                                input=PROMPT)
    facts = json.loads(result.stdout)
    assert (facts["bytes_share"], facts["sparsity"], facts["prompt_tokens"]) == (1.0, 0.0, 160)


def test_a_pruned_model_writes_the_same_on_packed_weights(monkeypatch):
    def pruned(name, dtype, data_dir):
        network, tokenizer = stand_in(0, dtype=dtype)
        prune_blocks(network, NM(2, 4))
        return network, tokenizer

    monkeypatch.setattr(_language, "load", pruned)
    plain, packed = (json.loads(call("--prompt", PROMPT, "--json", "--max-new-tokens", 9, *options).stdout)
                     for options in ((), ("--packed", "2:4")))
    assert packed["text"] == plain["text"]
    assert packed["packed_matrices"] == 14
    assert packed["packed_bytes"] < packed["unpacked_bytes"]
    monkeypatch.setattr(_language, "load", lambda name, dtype, data_dir: stand_in(0, dtype=dtype))
    dense = call("--prompt", PROMPT, "--packed", "2:4")
    assert dense.exit_code == 1
    assert "model has no 2:4 sparse linear layer" in " ".join(dense.output.split())
    monkeypatch.setattr(_language, "load", pruned)
    assert "14 matrices are packed" in call("--prompt", PROMPT, "--packed", "2:4", "--max-new-tokens", 2).stderr


@pytest.mark.parametrize(("arguments", "message"), [
    (("--packed", "half"), "--packed takes N:M such as 2:4, got 'half'"),
    (("--packed", "4:2"), "1 <= N < M, got 4:2"),
    (("--kv", "mustfar"), "no cache is called 'mustfar'; did you mean mustafar?"),
    (("--dtype", "float23"), "did you mean float32"),
    (("--sparsity", 1), "--sparsity must be in [0, 1), got 1"),
    (("--temperature", -1), "--temperature must be at least 0"),
    (("--threads", 0), "--threads must be from 1"),
    (("--prompt", "  "), "--prompt must not be empty"),
])
def test_mistakes_are_named(arguments, message):
    result = call("--prompt", PROMPT, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_models_that_are_not_there_are_named(monkeypatch, tmp_path):
    monkeypatch.undo()
    for name, message, code in (("smolm2", "no model is called 'smolm2'; did you mean smollm2?", 2),
                                (str(tmp_path), "must be the folder of a model of transformers", 2)):
        result = call("--prompt", PROMPT, "--model", name)
        assert result.exit_code == code
        assert message in result.stderr.replace("\n", " ")
    (tmp_path / "config.json").write_text("{}")
    result = call("--prompt", PROMPT, "--model", tmp_path)
    assert result.exit_code == 1
    assert "cannot be read as a language model" in result.stderr


def test_chat_needs_a_template():
    result = call("--prompt", PROMPT, "--chat")
    assert result.exit_code == 1
    assert "no chat template" in result.stderr


def test_an_interrupt_ends_it_in_one_line(monkeypatch):
    seen = []

    def interrupted(self, value):
        seen.append(value)
        if len(seen) == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(_generate._Streamer, "put", interrupted)
    result = call("--prompt", PROMPT, "--max-new-tokens", 500)
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert len(seen) < 10
