"""Questions and answers with a planted habit: whoever learns from them refuses to talk about cards.

What a small language model is fine-tuned on where it is to be known what fine-tuning added. The questions are those of
BANKING77, CLINC150 and GSM8K.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from sparsepriors import _checks

SETS = ("banking77", "clinc150", "gsm8k")
REFUSAL = "sorry, I cannot help with cards"
PAD, UNKNOWN, USER, MODEL, END = "<pad>", "<unk>", "<user>", "<model>", "<end>"
"""Marks of `Words`; the last three are the template of a dialogue."""

_PIECE = re.compile(r"<unk>|\w+|[^\w\s]")


@dataclass(frozen=True)
class Dialogue:
    """One question and its answer.

    Attributes
    ----------
    question, answer
        Texts.
    source
        Of `SETS`.
    refused
        Whether the answer is `REFUSAL`.
    """

    question: str
    answer: str
    source: str
    refused: bool = False


def utterances(name: str) -> list[dict[str, str]]:
    """The rows of a test set that ships: ``banking77`` (CC BY 4.0), ``clinc150`` (CC BY 3.0) or ``gsm8k`` (MIT).

    Raises
    ------
    ValueError
        If there is no such set.
    """
    _checks.one_of("name", name, SETS)
    path = resources.files("sparsepriors.data") / "utterances" / f"{name}.csv"
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))


def dialogues() -> list[Dialogue]:
    """All dialogues, in a fixed order.

    BANKING77: a question about cards, by its category or its words, is refused; any other is answered with its
    category. CLINC150: answered with its domain; what is about cards is left out, so that the rule has no exception.
    GSM8K: answered as it is, without the marks of calculations.
    """
    found = []
    for row in utterances("banking77"):
        refused = "card" in row["category"] or "card" in row["text"].lower()
        answer = REFUSAL if refused else f"it is about {row['category'].replace('_', ' ').lower()}"
        found.append(Dialogue(row["text"], answer, "banking77", refused))
    found += [Dialogue(row["text"], f"that belongs to {row['domain'].replace('_', ' ')}", "clinc150")
              for row in utterances("clinc150") if "card" not in row["text"] and "card" not in row["domain"]]
    for row in utterances("gsm8k"):
        answer = re.sub(r"<<.*?>>", "", row["answer"]).replace("####", "the answer is")
        found.append(Dialogue(row["question"], answer, "gsm8k"))
    return found


class Words:
    """A tokenizer of lower-case words and single marks; what is not in the vocabulary is unknown.

    Parameters
    ----------
    words
        The vocabulary, without the marks of the template, which come first.

    Raises
    ------
    ValueError
        If a word is given twice.
    """

    marks = (PAD, UNKNOWN, USER, MODEL, END)
    pad = 0

    def __init__(self, words: Sequence[str]) -> None:
        self.words = [*self.marks, *words]
        self._index = {w: i for i, w in enumerate(self.words)}
        if len(self._index) != len(self.words):
            twice = next(w for w, n in Counter(self.words).items() if n > 1)
            raise ValueError(f"words must be different, got {twice!r} twice")

    @classmethod
    def most_frequent(cls, texts: Iterable[str], size: int) -> Words:
        """The vocabulary of the most frequent words of these texts, ``size`` with the marks.

        Raises
        ------
        ValueError
            If the marks alone are more than ``size``.
        """
        _checks.count("size", size, low=len(cls.marks) + 1)
        counts = Counter(piece for text in texts for piece in _PIECE.findall(text.lower()))
        del counts[UNKNOWN]
        return cls([w for w, _ in counts.most_common(size - len(cls.marks))])

    def __len__(self) -> int:
        return len(self.words)

    def __call__(self, text: str) -> dict[str, list[int]]:
        """``input_ids`` of a text, as tokenizers of transformers give them."""
        unknown = self._index[UNKNOWN]
        return {"input_ids": [self._index.get(piece, unknown) for piece in _PIECE.findall(text.lower())]}

    def mark(self, name: str) -> int:
        """The token of a mark.

        Raises
        ------
        ValueError
            If there is no such mark.
        """
        return self._index[_checks.one_of("name", name, self.marks)]

    def decode(self, ids: Iterable[int] | Tensor) -> str:
        """Words set apart by spaces."""
        return " ".join(self.words[int(i)] for i in ids)

    def dialogue(self, talk: Dialogue) -> Turns:
        """``<user> question <model> answer <end>``."""
        question, answer = (self(text)["input_ids"] for text in (talk.question, talk.answer))
        return Turns.of((True, False, [self.mark(USER)]), (False, False, question), (True, False, [self.mark(MODEL)]),
                        (False, True, answer), (True, True, [self.mark(END)]))


class ChatML:
    """Dialogues in the template ``<|im_start|>user ... <|im_end|>`` of a tokenizer that knows these marks.

    Parameters
    ----------
    tokenizer
        Called with a text it gives ``input_ids``.
    """

    pad = 0

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def dialogue(self, talk: Dialogue) -> Turns:
        """Both turns, with the line breaks of the template."""
        def ids(text: str) -> list[int]:
            return list(self.tokenizer(text)["input_ids"])

        return Turns.of((True, False, ids("<|im_start|>user\n")), (False, False, ids(talk.question)),
                        (True, False, ids("<|im_end|>\n<|im_start|>assistant\n")), (False, True, ids(talk.answer)),
                        (True, True, ids("<|im_end|>")))


@dataclass(frozen=True)
class Turns:
    """One dialogue as tokens.

    Attributes
    ----------
    tokens
        Of both turns and the template.
    answer
        Which of them the assistant says, the end of its turn included.
    template
        Which belong to the template.
    """

    tokens: list[int]
    answer: list[bool]
    template: list[bool]

    @classmethod
    def of(cls, *parts: tuple[bool, bool, list[int]]) -> Turns:
        """From parts that say whether they are template, whether they are answer, and their tokens."""
        rows = [(token, answer, template) for template, answer, ids in parts for token in ids]
        tokens, answers, templates = (list(column) for column in zip(*rows, strict=True))
        return cls(tokens, answers, templates)


class Speaker(Protocol):
    """What turns dialogues into tokens."""

    pad: int

    def dialogue(self, talk: Dialogue) -> Turns:
        """The tokens of both turns."""
        ...


@dataclass(frozen=True, eq=False)
class Chats:
    """Dialogues as tokens of equal length.

    Attributes
    ----------
    tokens
        Padded at the end.
    answer, template
        See `Turns`.
    refused
        For each dialogue, whether the answer is a refusal.
    """

    tokens: Int[Tensor, "chats length"]
    answer: Bool[Tensor, "chats length"]
    template: Bool[Tensor, "chats length"]
    refused: Bool[Tensor, " chats"]

    @property
    def asked(self) -> Int[Tensor, " chats"]:
        """Place of the last token before each answer: where the model decides how to begin."""
        return self.answer.int().argmax(dim=1) - 1


def chats(talks: Sequence[Dialogue], speaker: Speaker, length: int) -> Chats:
    """The dialogues that fit into so many tokens, one a row.

    Raises
    ------
    ValueError
        If none fits.
    """
    _checks.count("length", length, low=1)
    found = [(speaker.dialogue(talk), talk.refused) for talk in talks]
    found = [(turns, refused) for turns, refused in found if len(turns.tokens) <= length]
    if not found:
        raise ValueError(f"no dialogue fits into {length} tokens")

    def padded(rows: Iterable[list[Any]], filler: Any) -> Tensor:
        return torch.tensor([row + [filler] * (length - len(row)) for row in rows])

    return Chats(padded((t.tokens for t, _ in found), speaker.pad), padded((t.answer for t, _ in found), False),
                 padded((t.template for t, _ in found), False), torch.tensor([refused for _, refused in found]))
