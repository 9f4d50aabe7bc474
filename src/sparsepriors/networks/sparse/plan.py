"""One plan holds every choice of a sparse training method; `presets` names the published ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from sparsepriors import _checks
from sparsepriors._described import Described
from sparsepriors.networks.sparse.distribute import Distribution, Uniform, check_density
from sparsepriors.networks.sparse.rule import Masked, Rule
from sparsepriors.networks.sparse.schedule import AtInit, Event, Schedule
from sparsepriors.networks.sparse.score import MagnitudeScore, RandomScore, Score
from sparsepriors.networks.sparse.select import Selector
from sparsepriors.priors.patterns import Pattern, Unstructured


@dataclass(frozen=True)
class SparsePlan(Described):
    """Where, how much per layer, in which pattern, by which scores, when, and how gradients pass.

    Parameters
    ----------
    pattern
        What masks look like and how many weights they keep.
    distribution
        How the density is spread over the layers.
    init
        Scores of the first masks.
    score
        Scores of the kept weights when masks are drawn anew or when a move drops some.
    grow
        Scores of the weights that a move may grow; ``None`` for schedules that never move masks.
    schedule
        When masks change.
    rule
        What the forward pass uses and which gradient the stored weights get.
    where
        Which weights take part.
    skip_update
        On a step at which masks move by gradient, the optimizer is not stepped (RigL's algorithm 1); else it is
        stepped first (as some published codes do).
    forbid_regrow
        Weights that a move drops may not be grown by the same move.
    redistribute
        A move grows in each layer in proportion to the mean growth score of its kept weights (SNFS), in place of as
        many as it dropped there.
    scale_init
        Divide the first weights of every layer by the square root of its density, so that its outputs begin with the
        variance that all weights would give them. Most published methods do not.
    skip_unfit
        Leave layers dense whose shape does not fit the pattern, and say so in the report, in place of refusing them.

    Raises
    ------
    TypeError, ValueError
        If a part is of another kind, or the pattern's density is not in (0, 1].
    """

    pattern: Pattern
    distribution: Distribution = field(default_factory=Uniform)
    init: Score = field(default_factory=RandomScore)
    score: Score = field(default_factory=MagnitudeScore)
    grow: Score | None = None
    schedule: Schedule = field(default_factory=AtInit)
    rule: Rule = field(default_factory=Masked)
    where: Selector = field(default_factory=Selector)
    skip_update: bool = True
    forbid_regrow: bool = False
    redistribute: bool = False
    scale_init: bool = False
    skip_unfit: bool = False

    def __post_init__(self) -> None:
        for name, kind in (("pattern", Pattern), ("distribution", Distribution), ("init", Score), ("score", Score),
                           ("schedule", Schedule), ("rule", Rule), ("where", Selector)):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(f"{name} must be a {kind.__name__}, got {type(getattr(self, name)).__name__}")
        if (density := getattr(self.pattern, "density", None)) is not None:
            check_density("density", density)
        if self.scale_init and self.rule.keeps_pruned:
            raise ValueError(f"scale_init makes up for weights that are taken out, but {type(self.rule).__name__} "
                             f"keeps all of them")
        if self.grow is not None and not isinstance(self.grow, Score):
            raise TypeError(f"grow must be a Score or None, got {type(self.grow).__name__}")

    def check(self, total_steps: int) -> None:
        """Raise `ValueError` if the plan cannot run for this many steps."""
        _checks.count("total_steps", total_steps, low=1)
        self.schedule.check(total_steps, self.pattern)
        moves = any(e.move for e in _events(self.schedule, self.pattern, total_steps))
        if moves and self.grow is None:
            raise ValueError(f"{self.schedule} moves masks and needs a score to grow by: set grow")
        if moves and not isinstance(self.pattern, Unstructured):
            raise ValueError(f"masks that move weight by weight are Unstructured, got {type(self.pattern).__name__}")

    def patterns(self, total_steps: int) -> list[Pattern]:
        """Every pattern that masks are drawn in, in the order of their first use."""
        events = _events(self.schedule, self.pattern, total_steps)
        return list(dict.fromkeys(e.prune for e in events if e.prune is not None))

    @property
    def needs(self) -> frozenset[str]:
        """What the scores of the plan must be shown, see `View`."""
        return self.score.needs | (self.grow.needs if self.grow is not None else frozenset())


@lru_cache(maxsize=64)
def _events(schedule: Schedule, pattern: Pattern, total: int) -> tuple[Event, ...]:
    """What ever happens to the masks, each event once; asked for several times, and long trainings have many steps."""
    events = (schedule.event(k, total, pattern) for k in range(total + 1))
    return tuple(dict.fromkeys(e for e in events if e is not None))
