"""Characters as tokens, and the text that ships."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.data import Characters, tiny_shakespeare, token_windows


@given(st.text(min_size=1))
def test_a_text_comes_back(text: str) -> None:
    characters = Characters.of(text)
    ids = characters(text)["input_ids"]
    assert characters.decode(ids) == text
    assert len(characters) == len(set(text)) == len(set(ids))
    assert max(ids) == len(characters) - 1


def test_the_plays_are_whole_and_cut_into_windows() -> None:
    train, valid = tiny_shakespeare(), tiny_shakespeare("valid")
    assert len(train) + len(valid) == 1_115_394
    assert len(train) == 1_003_854
    assert train.startswith("First Citizen:\nBefore we proceed")
    characters = Characters.of(train + valid)
    assert len(characters) == 65
    windows = token_windows(characters, valid, 64, 3, skip=2)
    assert windows.dtype == torch.int64
    assert characters.decode(windows.flatten().tolist()) == valid[128:320]


@pytest.mark.public_door
def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="each once"):
        Characters("aba")
    with pytest.raises(TypeError, match="alphabet must be a str"):
        Characters(["a"])
    with pytest.raises(ValueError, match="3 characters of the alphabet, got 'x'"):
        Characters("abc")("abx")
    with pytest.raises(ValueError, match="ids must be from 0 to 2"):
        Characters("abc").decode([3])
    with pytest.raises(ValueError, match="part must be one of"):
        tiny_shakespeare("test")
