"""When tokens move between tiers of memory: the three phases of ALISA."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sparsepriors import _checks


@dataclass(frozen=True)
class Schedule:
    """Phases of a decoding run by its step j (Zhao, Wu and Wang, ISCA 2024, Algorithm 2).

    Phase I (j < p1): nothing moves. Phase II (p1 <= j < p2): tokens go to slow memory and come back when selected.
    Phase III (j >= p2): the oldest tokens of slow memory are deleted, and recomputed when selected.

    Parameters
    ----------
    alpha
        Share of all tokens that have left for slow memory from phase II on, at least; what fast memory cannot hold
        leaves in any case. The publication leaves open whether the share is moved in one step or lies there; it is
        read as where tokens lie.
    beta
        Share of the tokens of slow memory that are deleted in phase III, oldest first.
    p1, p2
        First steps of phases II and III.
    """

    alpha: float = 0.0
    beta: float = 0.0
    p1: int = 0
    p2: int = 2**31

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise TypeError(f"{name} must be a number, got {type(value).__name__}")
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {value}")
        _checks.count("p1", self.p1)
        _checks.count("p2", self.p2)
        if self.p2 < self.p1:
            raise ValueError(f"p2 must be at least p1 = {self.p1}, got {self.p2}")

    def phase(self, j: int) -> int:
        """1, 2 or 3 at decoding step j."""
        _checks.count("j", j)
        return 1 + (j >= self.p1) + (j >= self.p2)

    def to_offload(self, n: int) -> int:
        """How many of n tokens must have left for slow memory in phases II and III."""
        return math.ceil(self.alpha * n - 1e-9)

    def to_delete(self, slow: int) -> int:
        """How many of ``slow`` tokens of slow memory are deleted in phase III."""
        return math.floor(self.beta * slow + 1e-9)
