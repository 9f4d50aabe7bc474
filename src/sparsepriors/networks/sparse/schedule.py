"""When masks change, and how: schedules give an event, or none, after each step of the optimizer.

A schedule is a pure function of the step and the number of steps, so that resuming needs nothing from it. Step 0 is
the moment before the first step.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace

from sparsepriors import _checks
from sparsepriors._described import Described
from sparsepriors.priors.patterns import NM, Pattern


@dataclass(frozen=True)
class Event:
    """What happens to the masks after one step.

    Attributes
    ----------
    prune
        Draw all masks anew, in this pattern, from the scores of the moment.
    move
        Share of the kept weights of every layer that is dropped and grown elsewhere.
    open
        Keep every weight again; those outside the masks start from zero.
    save, rewind
        Remember the weights of the moment; put the remembered ones back, under the masks of the moment.
    """

    prune: Pattern | None = None
    move: float = 0.0
    open: bool = False
    save: bool = False
    rewind: bool = False


class Schedule(Described):
    """When masks change."""

    @property
    def restarts(self) -> int:
        """Trainings of equal length into which the steps divide; the learning rate begins anew in each of them."""
        return 1

    @abstractmethod
    def event(self, step: int, total: int, pattern: Pattern) -> Event | None:
        """What happens after ``step`` of ``total`` steps of a plan with this pattern; step 0 draws the first masks."""

    def check(self, total: int, pattern: Pattern) -> None:
        """Raise `ValueError` if the schedule cannot run for this many steps or with this pattern."""


@dataclass(frozen=True)
class AtInit(Schedule):
    """Masks are drawn before the first step and stay."""

    def event(self, step: int, total: int, pattern: Pattern) -> Event | None:
        return Event(prune=pattern) if step == 0 else None


@dataclass(frozen=True)
class OneShot(Schedule):
    """Dense until ``at`` (a share of all steps), then pruned once; the rest is fine-tuning with these masks."""

    at: float = 0.5

    def __post_init__(self) -> None:
        _share("at", self.at)

    def event(self, step: int, total: int, pattern: Pattern) -> Event | None:
        return Event(prune=pattern) if step == round(self.at * total) else Event(open=True) if step == 0 else None


@dataclass(frozen=True)
class EveryStep(Schedule):
    """Masks follow the weights: drawn anew after every step, or every few.

    Parameters
    ----------
    every
        Steps between two drawings.
    """

    every: int = 1

    def __post_init__(self) -> None:
        _checks.count("every", self.every, low=1)

    def event(self, step: int, total: int, pattern: Pattern) -> Event | None:
        return Event(prune=pattern) if step % self.every == 0 or step == total else None


@dataclass(frozen=True)
class Periodic(Schedule):
    """Drop and grow every few steps (SET, RigL, SNFS): f of the kept weights move, f falling over time.

    Parameters
    ----------
    every
        Steps between two moves: 100 in RigL.
    start, end
        Shares of all steps between which masks move: up to 0.75 in RigL.
    fraction
        Share of the kept weights that the first move drops: 0.3 in RigL.
    anneal
        ``"cosine"``: fraction / 2 (1 + cos(pi t / t_end)) (RigL, arXiv:1911.11134, section 3); ``"linear"``;
        ``"constant"`` (SET).
    """

    every: int = 100
    start: float = 0.0
    end: float = 0.75
    fraction: float = 0.3
    anneal: str = "cosine"

    def __post_init__(self) -> None:
        _checks.count("every", self.every, low=1)
        _span(self.start, self.end)
        _share("fraction", self.fraction)
        _checks.one_of("anneal", self.anneal, ("cosine", "linear", "constant"))

    def event(self, step: int, total: int, pattern: Pattern) -> Event | None:
        if step == 0:
            return Event(prune=pattern)
        last = self.end * total
        if step % self.every or not self.start * total <= step < last:
            return None
        done = step / last
        factor = {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}[self.anneal]
        return Event(move=self.fraction * factor)

    def check(self, total: int, pattern: Pattern) -> None:
        if self.every >= self.end * total:
            raise ValueError(f"masks would never move: every = {self.every} steps, but they stop after "
                             f"{self.end * total:g} of {total}; make every smaller")


@dataclass(frozen=True)
class Polynomial(Schedule):
    """Gradual pruning: sparsity s_t = s (1 - (1 - t)^power) from dense, t from 0 to 1 between ``start`` and ``end``.

    Source: Zhu and Gupta (2017), To prune, or not to prune, arXiv:1710.01878, equation 1 with initial sparsity 0.
    Towards an N:M pattern masks keep the n best of every group, and the best of all others (`AtLeastNM`).

    Parameters
    ----------
    every
        Steps between two prunings.
    start, end
        Shares of all steps.
    power
        3 in the paper.
    """

    every: int = 100
    start: float = 0.0
    end: float = 0.75
    power: float = 3.0

    def __post_init__(self) -> None:
        _checks.count("every", self.every, low=1)
        _span(self.start, self.end)
        _checks.positive("power", self.power)

    def event(self, step: int, total: int, pattern: Pattern) -> Event | None:
        first, last = self.start * total, self.end * total
        if step == 0:
            return Event(open=True)
        if step >= math.ceil(last):
            return Event(prune=pattern) if step == math.ceil(last) else None
        if step < first or step % self.every:
            return None
        density = getattr(pattern, "density", 1.0)
        left = density + (1 - density) * (1 - (step - first) / (last - first)) ** self.power
        return Event(prune=pattern.towards(left) if isinstance(pattern, NM) else pattern.at(left))


@dataclass(frozen=True)
class Alternating(Schedule):
    """Dense and sparse phases in turn: AC/DC (Peste et al., 2021, arXiv:2106.12379).

    Dense for the first ``warmup`` of all steps; then sparse and dense phases of ``phase`` each; sparse for the last
    ``finish``. The published ImageNet run of 100 epochs has warm-up 10, phases of 5, and 15 sparse ones at the end.
    """

    warmup: float = 0.1
    phase: float = 0.05
    finish: float = 0.15

    def __post_init__(self) -> None:
        for name in ("warmup", "phase", "finish"):
            _share(name, getattr(self, name))
        _checks.positive("phase", self.phase)
        if self.warmup + self.finish > 1:
            raise ValueError(f"warmup and finish must not exceed 1 together, got {self.warmup} and {self.finish}")

    def event(self, step: int, total: int, pattern: Pattern) -> Event | None:
        now = self._sparse(step, total)
        if step == 0:
            return Event(prune=pattern) if now else Event(open=True)
        if now == self._sparse(step - 1, total):
            return None
        return Event(prune=pattern) if now else Event(open=True)

    def _sparse(self, step: int, total: int) -> bool:
        begin, finish = self.warmup * total, (1 - self.finish) * total
        return step >= finish or (step >= begin and int((step - begin) / (self.phase * total)) % 2 == 0)

    def check(self, total: int, pattern: Pattern) -> None:
        if self.phase * total < 1:
            raise ValueError(f"a phase of {self.phase:g} of {total} steps is less than one step")


@dataclass(frozen=True)
class Rounds(Schedule):
    """Iterative magnitude pruning: train, prune, rewind the weights, train again (arXiv:1803.03635, 1912.05671).

    All rounds together are the training's steps; give the learning rate a schedule that begins anew in each of them.
    Round 0 is dense, round r keeps density^(r / (rounds - 1)) of the weights, the last one the plan's density.

    Parameters
    ----------
    rounds
        How many trainings, at least 2.
    rewind
        Share of one round after which the weights are remembered; 0 is the original lottery ticket.
    """

    rounds: int = 5
    rewind: float = 0.0

    def __post_init__(self) -> None:
        _checks.count("rounds", self.rounds, low=2)
        _share("rewind", self.rewind)

    @property
    def restarts(self) -> int:
        """The rounds."""
        return self.rounds

    def event(self, step: int, total: int, pattern: Pattern) -> Event | None:
        length = total // self.rounds
        keep = step == round(self.rewind * length)
        number = step // length
        if step == 0:
            return Event(open=True, save=keep)
        if step % length == 0 and number < self.rounds:
            density = getattr(pattern, "density", 1.0) ** (number / (self.rounds - 1))
            return Event(prune=pattern.at(density), rewind=True)
        return Event(save=True) if keep else None

    def check(self, total: int, pattern: Pattern) -> None:
        if isinstance(pattern, NM):
            raise ValueError(f"{pattern} fixes its own density, which cannot fall round by round")
        if total % self.rounds or total // self.rounds < 1:
            raise ValueError(f"{self.rounds} rounds of equal length need a multiple of {self.rounds} steps, "
                             f"got {total}")
        if round(self.rewind * (total // self.rounds)) >= total // self.rounds:
            raise ValueError(f"rewind = {self.rewind:g} remembers the weights at the end of a round of "
                             f"{total // self.rounds} steps, when they are needed; make it smaller")


@dataclass(frozen=True)
class StructureDecay(Schedule):
    """N:M patterns that tighten step by step, masks drawn anew after every step (SDGF, arXiv:2402.04744).

    Parameters
    ----------
    form
        ``"stepwise"``: (m-1):m, then floor(m / 2):m, floor(m / 4):m and so on to n:m; ``"geometric"``: 8n:8m, 4n:4m,
        2n:2m, n:m, at one density; ``"densify"``: n:8m, n:4m, n:2m, n:m (in the published code only).
    dense, finetune
        Shares of all steps before the first pattern and with the last one besides its own share.
    """

    form: str = "stepwise"
    dense: float = 0.0
    finetune: float = 0.0

    def __post_init__(self) -> None:
        _checks.one_of("form", self.form, ("stepwise", "geometric", "densify"))
        _share("dense", self.dense)
        _share("finetune", self.finetune)
        if self.dense + self.finetune >= 1:
            raise ValueError(f"dense and finetune must be below 1 together, got {self.dense} and {self.finetune}")

    def frames(self, pattern: Pattern) -> tuple[NM, ...]:
        """The patterns in order; the last one is the plan's.

        Raises
        ------
        ValueError
            If the pattern is not N:M, or its m / n is not a power of two above 1 where the form asks for that.
        """
        if not isinstance(pattern, NM):
            raise ValueError(f"structure decay takes N:M patterns, got {type(pattern).__name__}")
        n, m = pattern.n, pattern.m
        if self.form == "stepwise":
            legal = [m >> k for k in range(1, m.bit_length()) if m % (1 << k) == 0]
            if n not in legal:
                raise ValueError(f"stepwise decay needs m / n to be a power of two above 1, got {n}:{m}; "
                                 f"legal for m = {m}: {', '.join(f'{k}:{m}' for k in legal) or 'none'}")
            return tuple(replace(pattern, n=k) for k in (m - 1, *(k for k in legal if k >= n)))
        sizes = (8, 4, 2, 1)
        return tuple(replace(pattern, n=n * k if self.form == "geometric" else n, m=m * k) for k in sizes)

    def event(self, step: int, total: int, pattern: Pattern) -> Event | None:
        first, last = self.dense * total, (1 - self.finetune) * total
        if step < first:
            return Event(open=True) if step == 0 else None
        frames = self.frames(pattern)
        frame = min(int((step - first) / (last - first) * len(frames)), len(frames) - 1)
        return Event(prune=frames[frame])

    def check(self, total: int, pattern: Pattern) -> None:
        self.frames(pattern)


def _share(name: str, value: float) -> None:
    if not 0 <= _checks.number(name, value) <= 1:
        raise ValueError(f"{name} must be a share in [0, 1], got {value}")


def _span(start: float, end: float) -> None:
    _share("start", start)
    _share("end", end)
    if start >= end:
        raise ValueError(f"start must lie before end, got {start} and {end}")
