"""Methods of fine-tuning: what each draws and what it minimises."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sparsepriors import _checks
from sparsepriors.language.finetune.losses import clipped_policy_loss, dpo_loss, group_advantages, grpo_loss, sft_loss
from sparsepriors.language.finetune.sampling import Answers, sample_answers, token_log_probs
from sparsepriors.networks.batches import Shuffled
from sparsepriors.networks.train_loop import Batches

Loss = Callable[[nn.Module, Any, torch.Generator], Tensor]
Reward = Callable[[Answers], Float[Tensor, "batch"]]
"""What a verifier says of answers, prompts included: higher is better; passed is above 0."""


class Method(ABC):
    """How a policy is fine-tuned, but for learning rate and number of steps."""

    @abstractmethod
    def prepare(self, policy: nn.Module, generator: torch.Generator) -> tuple[Batches, Loss]:
        """Batches and loss for `networks.TrainLoop`, with the policy as it is now as reference where one is needed."""


@dataclass(frozen=True)
class SFT(Method):
    """Imitate given answers.

    Parameters
    ----------
    answers
        Prompts with the answers to imitate.
    batch_size
        Answers a step.
    """

    answers: Answers
    batch_size: int = 256

    def prepare(self, policy: nn.Module, generator: torch.Generator) -> tuple[Batches, Loss]:
        return _imitate(self.answers, self.batch_size)


@dataclass(frozen=True)
class RFT(Method):
    """Imitate the policy's own answers that a verifier passes.

    Parameters
    ----------
    prompts
        ``(count, tokens)``.
    reward
        The verifier.
    length, end
        See `sample_answers`.
    batch_size
        Answers a step.
    temperature
        Of the answers, and of the policy whose likelihood counts.
    online
        Draw the answers of each step anew from the policy as it then is, and keep to a clipped ratio (RAFT++); else one
        answer to every prompt is drawn before the first step.
    clip, epochs
        With ``online``: of the ratio, and steps that each draw of answers serves.
    """

    prompts: Int[Tensor, "count tokens"]
    reward: Reward
    length: int
    end: int | None = None
    batch_size: int = 256
    temperature: float = 1.0
    online: bool = False
    clip: float = 0.2
    epochs: int = 1

    def prepare(self, policy: nn.Module, generator: torch.Generator) -> tuple[Batches, Loss]:
        if self.online:
            batches = _Rollouts(policy, self.prompts, self.reward, self.length, self.end, self.batch_size, 1,
                                self.temperature, self.epochs)
            return batches, self._passed
        answers = sample_answers(policy, self.prompts, self.length, generator=generator, end=self.end,
                                 temperature=self.temperature)
        own = answers.rows(self.reward(answers) > 0)
        if len(own.tokens) < self.batch_size:
            raise ValueError(f"the verifier passed {len(own.tokens)} of {len(answers.tokens)} answers, fewer than a "
                             f"batch of {self.batch_size}: give more prompts, or a policy that is right more often")
        return _imitate(own, self.batch_size)

    def _passed(self, policy: nn.Module, batch: _Written, _: torch.Generator) -> Tensor:
        log_probs = token_log_probs(policy, batch.answers.tokens, temperature=self.temperature)
        old = log_probs if batch.old is None else batch.old
        passed = (batch.rewards > 0).to(log_probs.dtype)
        return clipped_policy_loss(log_probs, old, passed, batch.answers.mask, clip=self.clip)


@dataclass(frozen=True)
class DPO(Method):
    """Learn from pairs of answers, with the policy at the start as the reference.

    Parameters
    ----------
    chosen, rejected
        Answers to the same prompts, row by row.
    batch_size
        Answers a step, two to a pair.
    beta, normalise
        See `dpo_loss`.

    Raises
    ------
    ValueError
        If there is not one of each for every prompt, or the batch is odd.
    """

    chosen: Answers
    rejected: Answers
    batch_size: int = 256
    beta: float = 0.1
    normalise: bool = False

    def __post_init__(self) -> None:
        for name in ("chosen", "rejected"):
            _checks.instance(name, getattr(self, name), Answers)
        if len(self.chosen.tokens) != len(self.rejected.tokens):
            raise ValueError(f"chosen and rejected must be pairs, got {len(self.chosen.tokens)} and "
                             f"{len(self.rejected.tokens)}")
        if _checks.count("batch_size", self.batch_size, low=2) % 2:
            raise ValueError(f"batch_size must be even, two answers to a pair, got {self.batch_size}")

    def prepare(self, policy: nn.Module, generator: torch.Generator) -> tuple[Batches, Loss]:
        with torch.no_grad():
            references = [torch.cat([token_log_probs(policy, t) for t in side.tokens.split(self.batch_size)])
                          for side in (self.chosen, self.rejected)]
        return Shuffled(*self.chosen, *self.rejected, *references, batch_size=self.batch_size // 2), self._loss

    def _loss(self, policy: nn.Module, batch: tuple[Tensor, ...], _: torch.Generator) -> Tensor:
        tokens, mask, worse, worse_mask, reference, worse_reference = batch
        return dpo_loss(token_log_probs(policy, tokens), token_log_probs(policy, worse), reference, worse_reference,
                        mask, worse_mask, beta=self.beta, normalise=self.normalise)


@dataclass(frozen=True)
class GRPO(Method):
    """Reward the policy's own answers relative to others to the same prompt.

    Parameters
    ----------
    prompts, reward, length, end, temperature
        See `RFT`.
    batch_size
        Answers a step.
    group
        Answers to a prompt, at least 2; divides the batch.
    clip, beta
        See `grpo_loss`; with ``beta`` above 0 a copy of the policy at the start is kept as the reference.
    epochs
        Steps that each draw of answers serves; with 1 the ratio to the old policy is 1 and nothing is clipped.

    Raises
    ------
    TypeError, ValueError
        If the group does not divide the batch.
    """

    prompts: Int[Tensor, "count tokens"]
    reward: Reward
    length: int
    end: int | None = None
    batch_size: int = 256
    group: int = 8
    temperature: float = 1.0
    clip: float | None = 0.2
    beta: float = 0.0
    epochs: int = 1

    def __post_init__(self) -> None:
        _checks.count("group", self.group, low=2)
        if _checks.count("batch_size", self.batch_size, low=1) % self.group:
            raise ValueError(f"group must divide batch_size, got {self.group} and {self.batch_size}")

    def prepare(self, policy: nn.Module, generator: torch.Generator) -> tuple[Batches, Loss]:
        batches = _Rollouts(policy, self.prompts, self.reward, self.length, self.end, self.batch_size, self.group,
                            self.temperature, self.epochs)
        reference = copy.deepcopy(policy).requires_grad_(False).eval() if self.beta else None

        def loss(policy: nn.Module, batch: _Written, _: torch.Generator) -> Tensor:
            advantages = group_advantages(batch.rewards.view(-1, self.group)).flatten()
            tokens, mask = batch.answers
            with torch.no_grad():
                near = (None if reference is None else
                        token_log_probs(reference, tokens, temperature=self.temperature))
            log_probs = token_log_probs(policy, tokens, temperature=self.temperature)
            old = log_probs if batch.old is None else batch.old
            return grpo_loss(log_probs, old, advantages, mask, clip=self.clip, reference=near, beta=self.beta)

        return batches, loss


class _Written(NamedTuple):
    """Answers of the policy, what they earned, and how likely they were to it (``None``: to the policy as it is)."""

    answers: Answers
    rewards: Tensor
    old: Tensor | None


class _Rollouts:
    """Batches that the policy writes itself; each serves a number of steps."""

    def __init__(self, policy: nn.Module, prompts: Tensor, reward: Reward, length: int, end: int | None,
                 batch_size: int, group: int, temperature: float, epochs: int) -> None:
        _checks.positive("temperature", temperature)
        self.policy, self.prompts, self.reward, self.length, self.end = policy, prompts, reward, length, end
        self.batch_size = _checks.count("batch_size", batch_size, low=1)
        self.group, self.temperature, self.epochs = group, temperature, _checks.count("epochs", epochs, low=1)
        self._batch: _Written | None = None
        self._served = 0

    def next(self, generator: torch.Generator) -> _Written:
        if self._batch is None or self._served == self.epochs:
            self._batch, self._served = self._write(generator), 0
        self._served += 1
        return self._batch

    def _write(self, generator: torch.Generator) -> _Written:
        drawn = torch.randint(len(self.prompts), (self.batch_size // self.group,), generator=generator)
        answers = sample_answers(self.policy, self.prompts[drawn], self.length, generator=generator, end=self.end,
                                 temperature=self.temperature, group=self.group)
        if self.epochs == 1:
            return _Written(answers, self.reward(answers), None)
        with torch.no_grad():
            old = token_log_probs(self.policy, answers.tokens, temperature=self.temperature)
        return _Written(answers, self.reward(answers), old)

    def state_dict(self) -> dict[str, Any]:
        batch = self._batch
        return {"served": self._served, "batch": None if batch is None else [*batch.answers, batch.rewards, batch.old]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._served, kept = state["served"], state["batch"]
        self._batch = None if kept is None else _Written(Answers(*kept[:2]), *kept[2:])


def _imitate(answers: Answers, batch_size: int) -> tuple[Batches, Loss]:
    def loss(policy: nn.Module, batch: tuple[Tensor, ...], _: torch.Generator) -> Tensor:
        return sft_loss(token_log_probs(policy, batch[0]), batch[1])

    return Shuffled(*answers, batch_size=batch_size), loss
