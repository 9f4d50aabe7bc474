"""Tasks whose answers can be checked: sums written with reversed digits, and word problems that end with a number."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.language.finetune.sampling import Answers

CHARACTERS = "0123456789+-=. "
"""Characters of `Addition`, in the order of their tokens; the token after the last one is padding."""

_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Addition:
    """Sums or differences of two numbers, as characters: ``"37+85=221."`` for 37 + 85 = 122, lowest digit first.

    A difference below zero has ``-`` in the place of its highest digit, and the digits of its absolute value before it.

    Parameters
    ----------
    digits
        Digits of each number, zeros in front included.
    operation
        ``"+"`` or ``"-"``.

    Raises
    ------
    TypeError, ValueError
        If the digits are not 1, 2 or 3, or the operation is another.
    """

    digits: int = 2
    operation: str = "+"

    def __post_init__(self) -> None:
        _checks.count("digits", self.digits, low=1, high=3)
        _checks.one_of("operation", self.operation, ("+", "-"))

    @property
    def vocabulary(self) -> int:
        """Tokens, padding included."""
        return len(CHARACTERS) + 1

    @property
    def prompt_length(self) -> int:
        """Tokens up to and with the sign of equality."""
        return 2 * self.digits + 2

    @property
    def answer_length(self) -> int:
        """Tokens after it, the full stop included."""
        return self.digits + 2

    def problems(self) -> Int[Tensor, "count 2"]:
        """All pairs of numbers."""
        numbers = torch.arange(10**self.digits)
        return torch.cartesian_prod(numbers, numbers)

    def split(self, held_out: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """All problems in two random parts, of which the second has this many.

        Raises
        ------
        TypeError, ValueError
            If there are not that many and one more.
        """
        everything = self.problems()
        _checks.count("held_out", held_out, low=1, high=len(everything) - 1)
        order = torch.randperm(len(everything), generator=generator)
        return everything[order[held_out:]], everything[order[:held_out]]

    def prompts(self, problems: Int[Tensor, "count 2"]) -> Int[Tensor, "count tokens"]:
        """Tokens of the questions."""
        sign, equals = (torch.full((len(problems), 1), CHARACTERS.index(c)) for c in (self.operation, "="))
        first, second = (self._written(problems[:, i]).flip(1) for i in (0, 1))
        return torch.cat([first, sign, second, equals], 1)

    def gold(self, problems: Int[Tensor, "count 2"]) -> Int[Tensor, "count tokens"]:
        """Tokens of the right answers."""
        stop = torch.full((len(problems), 1), CHARACTERS.index("."))
        if self.operation == "+":
            total = problems.sum(1)
            top = total // 10**self.digits
        else:
            total = problems[:, 0] - problems[:, 1]
            top = torch.where(total < 0, CHARACTERS.index("-"), 0)
        return torch.cat([self._written(total.abs() % 10**self.digits), top[:, None], stop], 1)

    def answers(self, problems: Int[Tensor, "count 2"]) -> Answers:
        """The problems with their right answers."""
        return self.answered(problems, self.gold(problems))

    def answered(self, problems: Int[Tensor, "count 2"], answers: Int[Tensor, "count tokens"]) -> Answers:
        """The problems with any answers of the usual length."""
        return Answers.of(self.prompts(problems), answers)

    def reward(self, answers: Answers) -> Float[Tensor, "count"]:
        """1 for a right answer that ends where it should, else 0."""
        return self.correct(answers).float()

    def correct(self, answers: Answers) -> Bool[Tensor, "count"]:
        """Which answers are right."""
        written = answers.tokens[:, self.prompt_length:]
        if written.shape[1] != self.answer_length:
            raise ValueError(f"answers must have {self.answer_length} tokens after the prompt, got {written.shape[1]}")
        gold = self.gold(self._read(answers.tokens[:, :self.prompt_length]))
        return (written == gold).all(1)

    def encode(self, text: str) -> Int[Tensor, "tokens"]:
        """Tokens of a text.

        Raises
        ------
        ValueError
            If it has other characters.
        """
        odd = sorted(set(text) - set(CHARACTERS))
        if odd:
            raise ValueError(f"text must consist of {CHARACTERS!r}, got {odd[0]!r}")
        return torch.tensor([CHARACTERS.index(c) for c in text])

    def decode(self, tokens: Int[Tensor, "tokens"]) -> str:
        """Text of tokens, without padding."""
        return "".join(CHARACTERS[i] for i in tokens.tolist() if i < len(CHARACTERS))

    def _written(self, numbers: Tensor) -> Tensor:
        """Digits, lowest first."""
        return numbers[:, None] // 10 ** torch.arange(self.digits) % 10

    def _read(self, prompts: Tensor) -> Tensor:
        powers = 10 ** torch.arange(self.digits).flip(0)
        first, second = prompts[:, :self.digits], prompts[:, self.digits + 1:2 * self.digits + 1]
        return torch.stack([(first * powers).sum(1), (second * powers).sum(1)], 1)


def gsm8k_answer(text: str) -> Fraction | None:
    """The number that a worked answer ends with: what follows ``####``, else the last number in it.

    Commas inside numbers, dollar signs and a full stop at the end are no part of it; without a number it is ``None``.
    """
    _, found, tail = text.rpartition("####")
    numbers = _NUMBER.findall(tail if found else text)
    if not numbers:
        return None
    return Fraction((numbers[0] if found else numbers[-1]).replace(",", "").replace("$", ""))


def gsm8k_reward(text: str, answer: str) -> float:
    """1 if a written solution ends with the number of the reference's answer, else 0.

    Raises
    ------
    ValueError
        If the reference holds no number.
    """
    expected = gsm8k_answer(answer)
    if expected is None:
        raise ValueError(f"answer must hold a number, got {answer!r:.100}")
    return float(gsm8k_answer(text) == expected)
