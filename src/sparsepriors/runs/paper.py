"""What a paper module states about itself: citation, method, claims, seeds."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from sparsepriors import _checks

if TYPE_CHECKING:
    from sparsepriors.runs.run import Run

_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
URL = re.compile(r"https://[^\s\"'<>]+")
_MAX_LINE = 240


class Scale(StrEnum):
    """How much of the experiment is run."""

    SMOKE = "smoke"
    """Seconds: every line of the experiment is executed, nothing is concluded."""
    DEFAULT = "default"
    """Minutes on two cores: the evidence that ``results`` keeps."""
    FULL = "full"
    """The paper's own sizes and data."""


@dataclass(frozen=True)
class Claim:
    """One statement of a paper that a measurement can support or refute.

    Parameters
    ----------
    id
        Short name, lower-case words joined by hyphens, unique in the paper.
    text
        The claim in one sentence.
    published
        What the paper reports, in its words or numbers; "not reported" if it gives none.
    baseline
        What ``ours`` is compared with, by name.
    margin
        The improvement over the baseline that the claim asks for, in the unit of the measurement: positive to ask for
        a gain, negative to allow a loss.
    better
        ``"higher"`` or ``"lower"``: which direction of the measurement is an improvement.
    """

    id: str
    text: str
    published: str
    baseline: str
    margin: float = 0.0
    better: str = "higher"

    def __post_init__(self) -> None:
        _slug("Claim.id", self.id)
        for name in ("text", "published", "baseline"):
            _line(f"Claim.{name}", getattr(self, name))
        if not isinstance(self.margin, int | float) or not math.isfinite(self.margin):
            raise ValueError(f"Claim.margin must be a finite number, got {self.margin!r}")
        _checks.one_of("Claim.better", self.better, ("higher", "lower"))


@dataclass(frozen=True)
class Paper:
    """Citation, method and claims of one published experiment.

    Parameters
    ----------
    slug
        Name on the command line, lower-case words joined by hyphens; the module's name with hyphens.
    title, authors, year, url
        The citation. ``url`` starts with ``https://``.
    room
        Dotted name of the room that holds the method, such as ``"imaging.radar"``.
    method
        The method in at most five short lines.
    claims
        What is judged; ids are unique.
    seeds
        Seeds of the evidence; fewer than five leave every verdict inconclusive.
    """

    slug: str
    title: str
    authors: str
    year: int
    url: str
    room: str
    method: tuple[str, ...]
    claims: tuple[Claim, ...]
    seeds: tuple[int, ...] = field(default=(0, 1, 2, 3, 4))

    def __post_init__(self) -> None:
        _slug("Paper.slug", self.slug)
        for name in ("title", "authors", "room"):
            _line(f"Paper.{name}", getattr(self, name))
        _checks.count("Paper.year", self.year, low=1800, high=2200)
        if not isinstance(self.url, str) or not URL.fullmatch(self.url):
            raise ValueError(f"Paper.url must be an https address, got {self.url!r}")
        if not isinstance(self.method, tuple) or not 1 <= len(self.method) <= 5:
            raise ValueError(f"Paper.method must be a tuple of one to five lines, got {self.method!r:.200}")
        for line in self.method:
            _line("Paper.method", line)
        if not isinstance(self.claims, tuple) or not all(isinstance(c, Claim) for c in self.claims):
            raise TypeError(f"Paper.claims must be a tuple of Claim, got {self.claims!r:.200}")
        ids = [c.id for c in self.claims]
        if len(set(ids)) != len(ids):
            raise ValueError(f"Paper.claims must have unique ids, got {', '.join(ids)}")
        if not isinstance(self.seeds, tuple) or not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"Paper.seeds must be a tuple of distinct seeds, got {self.seeds!r}")
        for seed in self.seeds:
            _checks.count("Paper.seeds", seed)

    def claim(self, claim_id: str) -> Claim:
        """The claim of this id; `ValueError` with the nearest name if there is none."""
        _checks.one_of("claim id", claim_id, [c.id for c in self.claims])
        return next(c for c in self.claims if c.id == claim_id)


@dataclass(frozen=True)
class Experiment:
    """A paper with the functions that measure it.

    Attributes
    ----------
    paper
        The statement.
    run
        ``run(scale, seed, run)``: the experiment, a function of scale and seed alone.
    demo
        ``demo(run)``: one pass of about a minute with pictures, if the paper offers one.
    source
        Where the code is, for the record.
    """

    paper: Paper
    run: Callable[[Scale, int, Run], object]
    demo: Callable[[Run], object] | None = None
    source: str = ""


def _slug(name: str, value: object) -> None:
    if not isinstance(value, str) or len(value) > 64 or not _SLUG.fullmatch(value):
        raise ValueError(f"{name} must be lower-case words joined by hyphens (at most 64 characters), got {value!r}")


def _line(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip() or "\n" in value or len(value) > _MAX_LINE:
        raise ValueError(f"{name} must be one non-empty line of at most {_MAX_LINE} characters, got {value!r:.300}")
