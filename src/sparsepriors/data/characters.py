"""Text as characters: a tokenizer, and the plays that small language models learn from."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources

from sparsepriors import _checks

PARTS = ("train", "valid")
"""Names that `tiny_shakespeare` takes."""


class Characters:
    """A tokenizer with a token for each character of an alphabet, numbered in its order.

    Parameters
    ----------
    alphabet
        The characters, each once.

    Raises
    ------
    TypeError, ValueError
        If it is no text, is empty or has a character twice.
    """

    def __init__(self, alphabet: str) -> None:
        if not isinstance(alphabet, str):
            raise TypeError(f"alphabet must be a str, got {type(alphabet).__name__}")
        if not alphabet or len(set(alphabet)) != len(alphabet):
            raise ValueError(f"alphabet must be at least one character, each once, got {alphabet!r:.100}")
        self.alphabet = alphabet
        self._numbers = {c: i for i, c in enumerate(alphabet)}

    @classmethod
    def of(cls, text: str) -> Characters:
        """The characters of a text, in the order of their code points."""
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        """How many tokens there are."""
        return len(self.alphabet)

    def __call__(self, text: str) -> dict[str, list[int]]:
        """``input_ids`` of a text, as tokenizers of transformers give them.

        Raises
        ------
        ValueError
            If a character is not in the alphabet.
        """
        try:
            return {"input_ids": [self._numbers[c] for c in text]}
        except KeyError as e:
            raise ValueError(f"text must consist of the {len(self)} characters of the alphabet, got {e.args[0]!r}"
                             ) from None

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids.

        Raises
        ------
        ValueError
            If a number is not that of a token.
        """
        return "".join(self.alphabet[_checks.count("ids", int(i), high=len(self) - 1)] for i in ids)


def tiny_shakespeare(part: str = "train") -> str:
    """The first 90 % (``"train"``) or the last 10 % (``"valid"``) of a million characters of Shakespeare's plays.

    65 different characters; public domain.

    Raises
    ------
    ValueError
        If there is no such part.
    """
    _checks.one_of("part", part, PARTS)
    path = resources.files("sparsepriors.data") / "shakespeare" / "input.txt"
    text = path.read_bytes().decode("ascii")
    cut = len(text) * 9 // 10
    return text[:cut] if part == "train" else text[cut:]
