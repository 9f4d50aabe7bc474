"""Answers of a policy: how likely it finds them, and new ones that it writes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from sparsepriors import _checks
from sparsepriors.networks.models import TinyDecoderLM


class Answers(NamedTuple):
    """Prompts with answers.

    Attributes
    ----------
    tokens
        ``(batch, length)``: prompts, each with its answer; shorter ones are padded at the end.
    mask
        ``(batch, length - 1)``: entry t is True where token t + 1 belongs to the answer.
    """

    tokens: Int[Tensor, "batch length"]
    mask: Bool[Tensor, "batch length-1"]

    @classmethod
    def of(cls, prompts: Int[Tensor, "batch prompt"], answers: Int[Tensor, "batch answer"]) -> Answers:
        """Prompts of one length, with answers of one length.

        Raises
        ------
        ValueError
            If there are not as many of one as of the other.
        """
        if prompts.ndim != 2 or answers.ndim != 2 or len(prompts) != len(answers) or not prompts.shape[1]:
            raise ValueError(f"prompts and answers must be matrices with as many rows, got shapes "
                             f"{tuple(prompts.shape)} and {tuple(answers.shape)}")
        tokens = torch.cat([prompts, answers], 1)
        mask = torch.arange(1, tokens.shape[1], device=tokens.device) >= prompts.shape[1]
        return cls(tokens, mask.expand(len(tokens), -1).clone())

    def rows(self, index: Tensor) -> Answers:
        """Some of them."""
        return Answers(self.tokens[index], self.mask[index])


def token_log_probs(policy: nn.Module, tokens: Int[Tensor, "batch length"], *,
                    temperature: float = 1.0) -> Float[Tensor, "batch length-1"]:
    """Log-probability of every token but the first, given those before it.

    Parameters
    ----------
    policy
        A causal language model that maps tokens to logits, or to an object with ``logits``.
    tokens
        Padded at the end, where the result means nothing.
    temperature
        Divides the logits: that of `sample_answers`, for the policy that wrote the answers.

    Raises
    ------
    TypeError, ValueError
        If the temperature is not positive.
    """
    _checks.positive("temperature", temperature)
    logits = _logits(policy, tokens[:, :-1])
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    return -functional.cross_entropy(precise.flatten(0, 1), tokens[:, 1:].flatten(),
                                     reduction="none").view(tokens.shape[0], -1)


@torch.no_grad()
def sample_answers(policy: nn.Module, prompts: Int[Tensor, "batch prompt"], length: int, *,
                   generator: torch.Generator | None = None, temperature: float = 1.0, group: int = 1,
                   end: int | None = None) -> Answers:
    """Let the policy answer, token by token, in evaluation mode.

    A `TinyDecoderLM` reads every token once; other policies read the whole text anew for each token.

    Parameters
    ----------
    policy
        See `token_log_probs`.
    prompts
        Of one length.
    length
        Tokens of an answer.
    generator
        Draws the tokens; not needed at temperature 0.
    temperature
        Divides the logits; 0 takes the likeliest token.
    group
        Answers to each prompt, in rows one after the other.
    end
        Token with which an answer ends; what is written after it does not count.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range, or there is no generator to draw with.
    """
    _checks.count("length", length, low=1)
    _checks.count("group", group, low=1)
    _checks.nonnegative("temperature", temperature)
    if temperature and generator is None:
        raise ValueError(f"temperature = {temperature} needs a generator")
    was_training = policy.training
    policy.eval()
    try:
        tokens, past = prompts, [[] for _ in policy.blocks] if isinstance(policy, TinyDecoderLM) else None
        for i in range(length):
            found = _logits(policy, tokens) if past is None else policy(tokens[:, -1:] if i else tokens, past)
            logits = found[:, -1].float()
            if not i:   # the prompt is read once for all answers to it
                logits, tokens = logits.repeat_interleave(group, 0), tokens.repeat_interleave(group, 0)
                past = None if past is None else [[x.repeat_interleave(group, 0) for x in kv] for kv in past]
            drawn = (logits.argmax(1, keepdim=True) if not temperature else
                     torch.multinomial(functional.softmax(logits / temperature, 1), 1, generator=generator))
            tokens = torch.cat([tokens, drawn], 1)
    finally:
        policy.train(was_training)
    answers = Answers.of(tokens[:, :prompts.shape[1]], tokens[:, prompts.shape[1]:])
    if end is None:
        return answers
    written = tokens[:, prompts.shape[1]:] == end
    before = written.cumsum(1) - written.long() == 0
    answers.mask[:, prompts.shape[1] - 1:] &= before
    return answers


def _logits(policy: nn.Module, tokens: Tensor) -> Tensor:
    found: Any = policy(tokens)
    return found if isinstance(found, Tensor) else found.logits
