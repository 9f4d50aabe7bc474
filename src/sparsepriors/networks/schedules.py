"""Learning-rate schedules: functions from the step to a factor of the base rate."""

from __future__ import annotations

import math
from collections.abc import Callable

from sparsepriors import _checks

Schedule = Callable[[int], float]
"""Maps the step (0, 1, ...) to the factor by which the optimizer's learning rates are multiplied."""


def constant() -> Schedule:
    """The base rate throughout."""
    return lambda step: 1.0


def cosine(steps: int, *, warmup: int = 0, final: float = 0.0) -> Schedule:
    """Half a cosine from 1 down to ``final`` at ``steps``, after a linear warm-up.

    Source: Loshchilov, Hutter, "SGDR", ICLR 2017, without restarts.

    Raises
    ------
    TypeError, ValueError
        If ``steps`` is not a positive integer, ``warmup`` not one below it, or ``final`` negative.
    """
    _checks.count("steps", steps, low=1)
    _checks.count("warmup", warmup, low=0, high=steps - 1)
    _checks.nonnegative("final", final)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min((step - warmup) / (steps - warmup), 1.0)
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))

    return factor


def trapezoid(steps: int, *, warmup: int = 0, decay: int = 0, final: float = 0.0) -> Schedule:
    """A linear warm-up, the base rate, and a linear decay over the last ``decay`` steps towards ``final``.

    With ``decay=0`` it stays at the base rate; the factor would be ``final`` at ``steps`` itself. Also known as
    warmup-stable-decay.

    Source: Hu et al. (2024), MiniCPM, arXiv:2404.06395, section 4, with a linear decay.

    Raises
    ------
    TypeError, ValueError
        If ``steps`` is not a positive integer, the warm-up and the decay do not fit into it, or ``final`` is negative.
    """
    _checks.count("steps", steps, low=1)
    _checks.count("warmup", warmup, low=0, high=steps - 1)
    _checks.count("decay", decay, low=0, high=steps - warmup)
    _checks.nonnegative("final", final)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        left = max(steps - step, 0)
        return 1.0 if left >= decay else final + (1 - final) * left / decay

    return factor


def staircase(milestones: tuple[int, ...] | list[int], *, factor: float = 0.1) -> Schedule:
    """Multiply the rate by ``factor`` at each milestone (a step).

    Raises
    ------
    TypeError, ValueError
        If the milestones are not increasing nonnegative integers, or ``factor`` is not positive.
    """
    for i, m in enumerate(milestones):
        _checks.count(f"milestones[{i}]", m, low=milestones[i - 1] + 1 if i else 0)
    _checks.positive("factor", factor)
    return lambda step: factor ** sum(step >= m for m in milestones)


def repeated(schedule: Schedule, length: int) -> Schedule:
    """Begin the schedule anew every ``length`` steps, as trainings in rounds do.

    Raises
    ------
    TypeError, ValueError
        If ``length`` is not a positive integer.
    """
    _checks.count("length", length, low=1)
    return lambda step: schedule(step % length)
