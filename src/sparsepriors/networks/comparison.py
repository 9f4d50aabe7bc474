"""Is a search for sub-networks better than drawing one at random? Paired over seeds, with an equivalence test."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

import torch
from torch import nn

from sparsepriors import _checks
from sparsepriors.networks.search import Search, Space
from sparsepriors.networks.sparse import SparsePlan
from sparsepriors.runs.evidence import LEVEL, MIN_SEEDS, Interval, holm, interval, paired_t, tost, wilcoxon

Train = Callable[[nn.Module, SparsePlan | None, int], float]
"""``train(model, plan, seed)`` trains in place, with the plan if there is one, and returns the measure."""

_RANDOM_STREAM = 1_000_003   # keeps the random arm's draws apart from those of the search


@dataclass(frozen=True)
class Contrast:
    """A search against a random sub-network of the same space, over seeds.

    Attributes
    ----------
    space
        Its name.
    searched, random
        The measure of each arm, seed by seed.
    difference
        Mean of searched minus random, with its interval.
    t, wilcoxon
        p-values of "there is no difference": Student's paired test, adjusted by Holm over the spaces, and Wilcoxon's.
    tost
        p-value of "the difference is at least the margin": a small one shows equivalence.
    verdict
        ``"better"`` or ``"worse"`` if the adjusted t-test says so, else ``"equivalent"`` if the equivalence test does,
        else ``"undecided"``; with fewer than five seeds always ``"undecided"``.
    failed
        Untrainable draws of the random arm.
    """

    space: str
    searched: tuple[float, ...]
    random: tuple[float, ...]
    difference: Interval
    t: float
    wilcoxon: float
    tost: float
    verdict: str
    failed: int


@dataclass(frozen=True)
class Comparison:
    """What `compare_to_random` measured.

    Attributes
    ----------
    contrasts
        One for each space.
    dense
        The measure of the whole parent, seed by seed.
    margin
        What counts as no difference.
    """

    contrasts: tuple[Contrast, ...]
    dense: tuple[float, ...]
    margin: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)

    def to_text(self) -> str:
        """A table for the terminal."""
        rows = [("space", "searched", "random", "difference", "interval", "t (Holm)", "Wilcoxon", "TOST", "failed",
                 "verdict")]
        rows += [(c.space, f"{fmean(c.searched):.4f}", f"{fmean(c.random):.4f} (median {median(c.random):.4f})",
                  f"{c.difference.mean:+.4f}", _between(c.difference), f"{c.t:.3f}", f"{c.wilcoxon:.3f}",
                  f"{c.tost:.3f}", str(c.failed), c.verdict) for c in self.contrasts]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, f"dense parent {fmean(self.dense):.4f}, {len(self.dense)} seeds, margin of "
                                  f"equivalence {self.margin:g}"])


def compare_to_random(search: Search, *, parent: Callable[[int], nn.Module], spaces: Mapping[str, Space],
                      seeds: Sequence[int], train: Train, margin: float = 0.01,
                      failed_at: float | None = None) -> Comparison:
    """Train what a search chose, and a random sub-network of the same space, from the same untrained parent.

    Both keep the parent's initial weights, and ``train`` is given the same seed for both: the pairs differ in the
    choice alone.

    Parameters
    ----------
    search
        ``search(model, space, generator)`` returns masks; a `RandomSearch`, `SNIPNodes`, or one's own. It is given a
        copy of the parent.
    parent
        Makes the untrained parent of a seed.
    spaces
        Where sub-networks are chosen, by name.
    seeds
        At least two; a verdict takes five.
    train
        See `Train`; larger results are better.
    margin
        Differences below it count as none in the equivalence test.
    failed_at
        Results of the random arm up to this are counted as untrainable draws.

    Raises
    ------
    TypeError, ValueError
        If there are fewer than two seeds or no space, or the margin is not positive.
    """
    _checks.positive("margin", margin)
    if len(seeds) < 2 or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds must be at least two, each once, got {list(seeds)}")
    if not spaces:
        raise ValueError("spaces must name at least one space")
    searched: dict[str, list[float]] = {name: [] for name in spaces}
    random: dict[str, list[float]] = {name: [] for name in spaces}
    dense = []
    for seed in seeds:
        dense.append(float(train(parent(seed), None, seed)))
        for name, space in spaces.items():
            model = parent(seed)
            generator = torch.Generator().manual_seed(seed)
            chosen = space.subnetwork(model, search(copy.deepcopy(model), space, generator))
            drawn = space.subnetwork(model, random_draw(model, space, seed))
            searched[name].append(float(train(chosen.model, chosen.plan, seed)))
            random[name].append(float(train(drawn.model, drawn.plan, seed)))
    adjusted = holm([paired_t(searched[name], random[name]).p_value for name in spaces])
    return Comparison(tuple(_contrast(name, tuple(searched[name]), tuple(random[name]), p, margin, failed_at)
                            for name, p in zip(spaces, adjusted, strict=True)), tuple(dense), margin)


def random_draw(model: nn.Module, space: Space, seed: int) -> dict[str, torch.Tensor]:
    """The random arm's sub-network of a seed; its stream of numbers is not that of a search with the same seed."""
    return space.draw(model, torch.Generator().manual_seed(_RANDOM_STREAM + seed))


def _contrast(name: str, searched: tuple[float, ...], random: tuple[float, ...], p: float, margin: float,
              failed_at: float | None) -> Contrast:
    difference = interval([a - b for a, b in zip(searched, random, strict=True)])
    same = tost(searched, random, margin).p_value
    verdict = "undecided"
    if len(searched) >= MIN_SEEDS:
        assert difference.mean is not None
        if p < 1 - LEVEL:
            verdict = "better" if difference.mean > 0 else "worse"
        elif same < 1 - LEVEL:
            verdict = "equivalent"
    failed = 0 if failed_at is None else sum(value <= failed_at for value in random)
    return Contrast(name, searched, random, difference, p, wilcoxon(searched, random).p_value, same, verdict, failed)


def _between(difference: Interval) -> str:
    return f"{difference.low:+.4f} to {difference.high:+.4f}"
