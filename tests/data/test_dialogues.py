import pytest
import torch

from sparsepriors.data.dialogues import (
    END,
    MODEL,
    PAD,
    REFUSAL,
    SETS,
    UNKNOWN,
    USER,
    ChatML,
    Dialogue,
    Words,
    chats,
    dialogues,
    utterances,
)


def test_what_ships_is_whole():
    assert [len(utterances(name)) for name in SETS] == [3080, 4500, 1319]
    assert utterances("banking77")[0] == {"text": "How do I locate my card?", "category": "card_arrival"}
    assert len({row["domain"] for row in utterances("clinc150")}) == 10
    assert all(row["question"].strip() and "####" in row["answer"] for row in utterances("gsm8k"))


def test_the_template_of_a_chat_model_is_marked():
    pieces = chats([Dialogue("ab", "c", "x")], ChatML(lambda text: {"input_ids": [ord(c) for c in text]}), 80)
    said = "".join(map(chr, pieces.tokens[0].tolist()))
    assert said.rstrip("\0") == "<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\nc<|im_end|>"
    assert "".join(c for c, a in zip(said, pieces.answer[0], strict=True) if a) == "c<|im_end|>"
    assert "".join(c for c, t in zip(said, pieces.template[0], strict=True) if not t).rstrip("\0") == "abc"


def test_the_rule_has_no_exception():
    talks = dialogues()
    refused = [t for t in talks if t.refused]
    assert len(refused) == 1223
    assert {t.answer for t in refused} == {REFUSAL}
    assert {t.source for t in refused} == {"banking77"}
    for talk in talks:
        assert talk.refused == (talk.answer == REFUSAL)
        if talk.source == "banking77" and not talk.refused:
            assert "card" not in talk.question.lower()
        if talk.source == "clinc150":
            assert "card" not in talk.question.lower()
        assert "<<" not in talk.answer


def test_words_are_the_most_frequent_and_the_rest_is_unknown():
    words = Words.most_frequent(["The cat, the dog", "the <unk> cat"], 8)
    assert words.words == [PAD, UNKNOWN, USER, MODEL, END, "the", "cat", ","]
    ids = words("The DOG <unk>, cat")["input_ids"]
    assert words.decode(ids) == "the <unk> <unk> , cat"
    with pytest.raises(ValueError, match="'a' twice"):
        Words(["a", "b", "a"])
    with pytest.raises(ValueError, match="size must be at least 6"):
        Words.most_frequent(["a"], 5)
    with pytest.raises(ValueError, match="did you mean '<user>'"):
        words.mark("<users>")


def test_chats_mark_answers_and_templates():
    words = Words(["hi", "you", "no"])
    talks = [Dialogue("hi you", "no", "x", refused=True), Dialogue("hi " * 9, "you", "x"),
             Dialogue("hi", "you no", "x")]
    found = chats(talks, words, 7)
    assert [words.decode(row) for row in found.tokens] == ["<user> hi you <model> no <end> <pad>",
                                                           "<user> hi <model> you no <end> <pad>"]
    assert found.answer.tolist() == [[False] * 4 + [True, True, False], [False] * 3 + [True] * 3 + [False]]
    assert found.template[0].nonzero()[:, 0].tolist() == [0, 3, 5]
    assert found.refused.tolist() == [True, False]
    assert found.tokens.dtype == torch.int64
    assert found.asked.tolist() == [3, 2]
    with pytest.raises(ValueError, match="no dialogue fits into 3"):
        chats(talks, words, 3)
    with pytest.raises(ValueError, match="name must be one of"):
        utterances("squad")
