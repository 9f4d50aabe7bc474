"""The trainings that the experiment on updates compares: a small model that half adds, fine-tuned many ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from sparsepriors.language.analysis.overlaps import overlap
from sparsepriors.language.analysis.rounding import predicted_floor
from sparsepriors.language.analysis.update_masks import UpdateMask
from sparsepriors.language.analysis.updates import trajectory, update_mask, update_report
from sparsepriors.language.finetune import (
    DPO,
    GRPO,
    RFT,
    SFT,
    Addition,
    Answers,
    Method,
    finetune,
    sample_answers,
    snapshot,
)
from sparsepriors.language.finetune.tasks import CHARACTERS
from sparsepriors.networks.models import TinyDecoderLM
from sparsepriors.networks.schedules import trapezoid
from sparsepriors.networks.train_loop import Hook, TrainLoop

METHODS = ("sft-out", "sft-in", "rft", "grpo", "dpo-in", "dpo-out")
"""Imitated subtractions, imitated additions, own right additions, rewarded additions, pairs of additions and of
subtractions."""

EXPONENTS = (8, 6, 5, 4)
"""Of the tolerances, as powers of a tenth."""

_STOP = CHARACTERS.index(".")
_LONG = 0.99   # a norm that was clipped to 1 is a little below it


@dataclass(frozen=True)
class ArmSizes:
    """How much is trained at a scale.

    Attributes
    ----------
    digits, width, depth, heads
        The task, and the model.
    rate, batch, target, most, every
        Pre-training: learning rate, examples a step, the accuracy at which it ends, steps at most, and steps between
        two looks at the accuracy.
    held_out, watched
        Problems for the final accuracy, and how many of them are looked at on the way.
    steps, warmup, answers, group
        Fine-tuning: steps, steps of warm-up, answers a step, answers to a prompt.
    rates
        Learning rates of the sweep: as reinforcement learning is run, the one of the comparison, as imitation is run.
    own
        Problems that the start answers before it is trained on its answers.
    snapshots
        Steps between two copies of the weights on the way.
    """

    digits: int
    width: int
    depth: int
    heads: int
    rate: float
    batch: int
    target: float
    most: int
    every: int
    held_out: int
    watched: int
    steps: int
    warmup: int
    answers: int
    group: int
    rates: tuple[float, float, float]
    own: int
    snapshots: int


@dataclass(frozen=True, eq=False)
class Bench:
    """Task, data and start of one seed."""

    sizes: ArmSizes
    seed: int

    def generator(self, use: int) -> torch.Generator:
        """A generator of this seed for one use, so that no use depends on another."""
        return torch.Generator().manual_seed(1000 * self.seed + use)

    @cached_property
    def task(self) -> Addition:
        """What the start was trained on."""
        return Addition(self.sizes.digits)

    @cached_property
    def problems(self) -> tuple[Tensor, Tensor, Tensor]:
        """Two halves to train on, and the held-out problems."""
        train, test = self.task.split(self.sizes.held_out, generator=self.generator(0))
        half = len(train) // 2
        return train[:half], train[half:], test

    def policy(self, weights: Mapping[str, Tensor] | None = None) -> TinyDecoderLM:
        """A model in float32 with these weights, or fresh ones."""
        s = self.sizes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = TinyDecoderLM(self.task.vocabulary, context=self.task.prompt_length + self.task.answer_length - 1,
                                  width=s.width, depth=s.depth, heads=s.heads, hidden=4 * s.width, activation="gelu",
                                  bias=False, std=0.05)
        if weights is not None:
            model.load_state_dict({n: w.float() for n, w in weights.items()})
        return model

    def final(self, trained: Mapping[str, Tensor]) -> TinyDecoderLM:
        """The model that a training left."""
        return self.policy(part(trained, "final"))

    def pretrain(self) -> dict[str, Tensor]:
        """Train a fresh model until it is right often enough; its weights in bfloat16."""
        model, bench, s = self.policy(), self, self.sizes
        train = torch.cat(self.problems[:2])
        method = SFT(self.task.answers(train), s.batch)
        batches, loss = method.prepare(model, self.generator(1))

        class Until(Hook):
            def after_step(self, loop: TrainLoop) -> None:
                if loop.step % s.every == 0 and bench.accuracy(model, s.watched) >= s.target:
                    loop.stop("accuracy")

        optimizer = torch.optim.AdamW(model.parameters(), lr=s.rate, weight_decay=0.01)
        TrainLoop(model, optimizer, loss, batches, steps=s.most, hooks=[Until()],
                  generator=self.generator(2)).fit()
        return snapshot(model)

    def accuracy(self, model: TinyDecoderLM, count: int | None = None) -> float:
        """Share of held-out problems that greedy decoding gets right to the last character."""
        problems = self.problems[2][:count]
        answers = sample_answers(model, self.task.prompts(problems), self.task.answer_length, temperature=0.0)
        return float(self.task.correct(answers).double().mean())

    def own(self, start: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Answers that the start gives at temperature 1 to problems of the first half."""
        generator = self.generator(3)
        drawn = torch.randint(len(self.problems[0]), (self.sizes.own,), generator=generator)
        prompts = self.task.prompts(self.problems[0][drawn])
        answers = sample_answers(self.policy(start), prompts, self.task.answer_length, generator=generator)
        return {"problems": self.problems[0][drawn], "tokens": answers.tokens}

    def method(self, name: str, half: int, own: Mapping[str, Tensor]) -> Method:
        """One of `METHODS` on a half of the problems; own answers come from the first."""
        task, s, problems = self.task, self.sizes, self.problems[half]
        if name == "grpo":
            return GRPO(task.prompts(problems), task.reward, task.answer_length, _STOP, s.answers, s.group)
        if name == "sft-in":
            return SFT(task.answers(problems), s.answers)
        if name in ("rft", "dpo-in"):
            given = Answers.of(*own["tokens"].split([task.prompt_length, task.answer_length], 1))
            right = task.correct(given)
            if name == "rft":
                return RFT(task.prompts(own["problems"]), task.reward, task.answer_length, _STOP, s.answers)
            return DPO(task.answers(own["problems"][~right]), given.rows(~right), s.answers)
        other = Addition(s.digits, "-")
        if name == "sft-out":
            return SFT(other.answers(problems), s.answers)
        return DPO(other.answers(problems), other.answered(problems, other.gold(problems.roll(1, 0))), s.answers)

    def train(self, start: Mapping[str, Tensor], method: Method, rate: float, *, draw: int = 0,
              mask: UpdateMask | None = None, snapshots: bool = False, clip: float | None = 1.0,
              dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Fine-tune from the start: final weights in float32 under ``final/``, copies in bfloat16 under ``step-N/``.

        ``clip`` is the largest norm of the gradients, ``dtype`` that of the weights and moments while they are trained.
        """
        model, found, s = self.policy(start).to(dtype), dict[str, Tensor](), self.sizes
        norms: list[Tensor] = []

        class Norms(Hook):
            def after_backward(self, loop: TrainLoop) -> None:
                squares = [p.grad.float().square().sum() for p in model.parameters() if p.grad is not None]
                norms.append(torch.stack(squares).sum().sqrt())

        class Copies(Hook):
            def after_step(self, loop: TrainLoop) -> None:
                if loop.step % s.snapshots == 0:
                    found.update({f"step-{loop.step:04d}/{n}": w for n, w in snapshot(model).items()})

        done = finetune(model, method, steps=s.steps, lr=rate, warmup=s.warmup, mask=mask, clip=clip,
                        generator=self.generator(10 + draw), hooks=[Norms(), Copies()] if snapshots else [Norms()])
        found |= {f"final/{n}": w for n, w in snapshot(model, torch.float32).items()}
        return found | {"loss": torch.tensor(done.trace["loss"]), "norm": torch.stack(norms)}

    def rates(self, rate: float) -> list[float]:
        """Learning rate of every step."""
        s = self.sizes
        factor = trapezoid(s.steps, warmup=s.warmup, decay=s.steps - s.warmup)
        return [rate * factor(step) for step in range(s.steps)]

    def measure(self, start: Mapping[str, Tensor], trained: Mapping[str, Tensor], rate: float) -> dict[str, Any]:
        """What a training changed, as it is published in bfloat16 and in float32, beside the floor of rounding."""
        final = part(trained, "final")
        in_bf16 = update_report(start, final, torch.bfloat16)
        in_fp32 = update_report({n: w.float() for n, w in start.items()}, final, tol=0.0)
        floor = predicted_floor(start, self.rates(rate))
        moved = _mean([(final[n].double() - w.double()).abs() for n, w in start.items()])
        close = {f"within_1e_{n}": update_report(start, final, torch.bfloat16, 10.0**-n).sparsity for n in EXPONENTS}
        return {"bf16": in_bf16.exact_sparsity, "close": close, "fp32": in_fp32.exact_sparsity,
                "fp32_inner": in_fp32.without().exact_sparsity, "bf16_inner": in_bf16.without().exact_sparsity,
                "floor": floor.sure, "nominal_floor": floor.nominal, "drift": floor.nominal_drift,
                "travel": moved / floor.nominal_drift,
                "by_matrix": in_bf16.by_matrix, "accuracy": self.accuracy(self.final(trained)),
                "loss": float(trained["loss"][-10:].mean()),
                "long_gradients": float((trained["norm"] > _LONG).double().mean())}


def _mean(parts: list[Tensor]) -> float:
    """The mean over all entries of several tensors."""
    return sum(float(x.sum()) for x in parts) / sum(x.numel() for x in parts)


def same_model(start: Mapping[str, Tensor], full: Mapping[str, Tensor], alone: Mapping[str, Tensor],
               mask: UpdateMask) -> dict[str, float]:
    """How near the training of a subnetwork comes to that of everything, in bfloat16, all over and inside the mask."""
    one, two = ({n: w.to(torch.bfloat16) for n, w in part(x, "final").items()} for x in (full, alone))
    found = {"same": update_report(one, two).exact_sparsity}
    found |= {f"within_1e_{n}": update_report(one, two, tol=10.0**-n).sparsity for n in (5, 4)}
    inside = torch.cat([(one[n] == two[n])[mask[n]] for n in mask])
    moved = sum(float((one[n].double() - start[n].double()).square().sum()) for n in mask)
    left = sum(float((one[n].double() - two[n].double()).square().sum()) for n in mask)
    return found | {"same_inside": float(inside.double().mean()), "distance": (left / moved) ** 0.5}


def common(start: Mapping[str, Tensor], first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, float]:
    """Overlap of two trainings' changed entries in bfloat16, with both kinds of chance, the mean over directions.

    ``gap`` is how far their sparsities are apart.
    """
    one, two = changed(start, first), changed(start, second)
    found = overlap(one, two, start)
    assert found.matched_of_first is not None
    assert found.matched_of_second is not None
    return {"overlap": (found.of_first + found.of_second) / 2, "of_first": found.of_first,
            "of_second": found.of_second, "jaccard": found.jaccard, "gap": abs(one.density - two.density),
            "chance": (found.chance_of_first + found.chance_of_second) / 2,
            "matched": (found.matched_of_first + found.matched_of_second) / 2}


def ranks(start: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> dict[str, float]:
    """Means over the matrices of the blocks of what `RankReport` has on their bfloat16 differences.

    Each rank is divided by the largest possible one.
    """
    inside = {n: w for n, w in start.items() if w.ndim == 2 and n.startswith("blocks.")}
    report = update_report(inside, {n: part(trained, "final")[n] for n in inside}, torch.bfloat16, ranks=True)
    found = [t.rank for t in report.tensors if t.rank is not None]
    return {name: fmean(getattr(r, name) / (r.full if name in ("rank", "null_rank") else 1) for r in found)
            for name in ("rank", "null_rank", "stable_rank", "null_stable_rank", "top_energy", "null_top_energy")}


def dynamics(start: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sparsity from the start and between copies of a training."""
    steps = sorted({name.split("/")[0] for name in trained if name.startswith("step-")})
    found = trajectory([start, *(part(trained, step) for step in steps)])
    return {"steps": [int(step.removeprefix("step-")) for step in steps], "from_start": list(found.from_start),
            "between": list(found.between), "ever": found.ever, "cancelled": found.cancelled}


def agreement(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """Share of the entries that two trainings left the same in bfloat16."""
    one, two = ({n: w.to(torch.bfloat16) for n, w in part(x, "final").items()} for x in (first, second))
    return update_report(one, two).exact_sparsity


def changed(start: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> UpdateMask:
    """The subnetwork of a training: what differs in bfloat16."""
    return update_mask(start, part(trained, "final"), torch.bfloat16)


def part(trained: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under a prefix, by their own names."""
    return {name.removeprefix(f"{prefix}/"): w for name, w in trained.items() if name.startswith(f"{prefix}/")}
