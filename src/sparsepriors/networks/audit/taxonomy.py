"""The words for a plan: when it is sparse, from what to what, whether masks move, of what grain, and what grows."""

from __future__ import annotations

from dataclasses import dataclass

from sparsepriors import _checks
from sparsepriors.networks.sparse import (
    Alternating,
    AtInit,
    EveryStep,
    OneShot,
    Periodic,
    SparsePlan,
)

DIRECTIONS = ("dense-to-sparse", "sparse-to-sparse", "dense weights, sparse forward", "dense and sparse in turn")
MASKS = ("static", "gradual", "dynamic")


@dataclass(frozen=True)
class Taxonomy:
    """What kind of method a plan is.

    Attributes
    ----------
    when
        ``"before"``, ``"during"`` or ``"after"`` training the weights are chosen.
    direction
        One of `DIRECTIONS`: whether training itself is sparse from the first step.
    mask
        ``"static"`` (chosen once), ``"gradual"`` (only loses weights) or ``"dynamic"`` (changes during training, which
        is not to be confused with networks whose sparsity depends on the input).
    granularity
        The pattern's name.
    growth
        By what weights come back: ``"none"``, ``"implicit"``, or the score's name.
    """

    when: str
    direction: str
    mask: str
    granularity: str
    growth: str


def classify(plan: SparsePlan) -> Taxonomy:
    """The words for this plan: RigL is (during, sparse-to-sparse, dynamic, unstructured, gradient)."""
    _checks.instance("plan", plan, SparsePlan)
    grain = type(plan.pattern).__name__.lower()
    schedule = plan.schedule
    if isinstance(schedule, EveryStep) and plan.rule.keeps_pruned:
        return Taxonomy("during", "dense weights, sparse forward", "dynamic", grain, "implicit")
    if isinstance(schedule, AtInit):
        return Taxonomy("before", "sparse-to-sparse", "static", grain, "none")
    if isinstance(schedule, Periodic):
        growth = type(plan.grow).__name__.removesuffix("Score").lower()
        return Taxonomy("during", "sparse-to-sparse", "dynamic", grain, growth)
    if isinstance(schedule, Alternating):
        return Taxonomy("during", "dense and sparse in turn", "dynamic", grain, "implicit")
    if isinstance(schedule, OneShot):
        return Taxonomy("after", "dense-to-sparse", "static", grain, "none")
    return Taxonomy("during", "dense-to-sparse", "gradual", grain, "none")
