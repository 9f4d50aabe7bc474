"""The ten lessons as checks, one class for each: a verdict comes from a number, and none from missing evidence.

The subjects are those of Liu and Wang (2023, arXiv:2302.02596); their division into these ten checks, the thresholds
and the words are this library's.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, stdev
from typing import Any, ClassVar

from sparsepriors.networks.audit.record import Claimed, TrainingRecord


class Status(StrEnum):
    """What a check says."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    NA = "na"
    """Not judged: evidence is missing."""


@dataclass(frozen=True)
class Finding:
    """One statement of a check.

    Attributes
    ----------
    lesson, code
        Which check, and which of its questions.
    status
        The answer.
    evidence
        The numbers it rests on; of ``NA`` what is missing.
    remedy
        What to do about it; empty if nothing.
    """

    lesson: str
    code: str
    status: Status
    evidence: str
    remedy: str = ""


@dataclass(frozen=True)
class Context:
    """What checks look at."""

    record: TrainingRecord
    claims: tuple[Claimed, ...]

    def claimed(self, *kinds: str) -> list[Claimed]:
        """The claims of these kinds."""
        return [c for c in self.claims if c.kind in kinds]

    def missing(self, *names: str) -> list[str]:
        """Which of these fields are not known."""
        values = {name: getattr(self.record, name) for name in names}
        return [name for name, v in values.items() if v is None or (isinstance(v, tuple | dict) and not v)]


class Check(ABC):
    """One lesson."""

    id: ClassVar[str]
    question: ClassVar[str]

    def run(self, ctx: Context) -> list[Finding]:
        """Every statement of this check; a question whose evidence is missing is ``NA``."""
        return list(self._run(ctx))

    @abstractmethod
    def _run(self, ctx: Context) -> Iterator[Finding]: ...

    def _say(self, code: str, bad: bool, evidence: str, remedy: str, status: Status = Status.FAIL) -> Finding:
        return Finding(self.id, code, status if bad else Status.PASS, evidence, remedy if bad else "")

    def _na(self, code: str, missing: Sequence[str]) -> Finding:
        return Finding(self.id, code, Status.NA, f"not judged: {', '.join(missing)} not recorded")


class SmallDense(Check):
    """L1: the opponent is not only the dense parent."""

    id, question = "L1", "Is there a small dense network of equally many weights, and who wins?"

    def _run(self, ctx: Context) -> Iterator[Finding]:
        arms = ctx.record.accuracies
        if "sparse" not in arms:
            yield self._na("small-dense", ["accuracies of 'sparse'"])
        elif "small-dense" not in arms:
            yield self._say("small-dense", True, "no arm 'small-dense'", "train a dense network of equally many "
                            "weights; match_dense finds its width", Status.WARN)
        else:
            mean, error = _difference(arms["sparse"], arms["small-dense"])
            bad = bool(ctx.claimed("sparsity-helps")) and mean < -2 * error
            yield self._say("small-dense", bad, f"sparse minus small dense {_pm(mean, error)}",
                            "withdraw the claim that sparsity helps at this number of weights")


class Speed(Check):
    """L2: saved multiply-adds are not saved time."""

    id, question = "L2", "Was the speed measured, and does the pattern suit a kernel?"

    def _run(self, ctx: Context) -> Iterator[Finding]:
        r = ctx.record
        for claim in ctx.claimed("speedup"):
            assert claim.value is not None
            measured = "no kernel was timed" if r.speedup is None else f"{r.kernel or 'kernel'}: {r.speedup:.2f} x"
            yield self._say("speedup", r.speedup is None or claim.value > 1.1 * r.speedup,
                            f"claimed {claim.value:.2f} x, {measured}", "time the packed kernel and claim that time")
        if not r.layers:
            yield self._na("pattern", ["layers"])
            return
        masked = [layer for layer in r.layers if layer.masked]
        found = sorted({layer.pattern for layer in masked})
        wanted = None if r.pattern is None else f"{r.pattern} along 1"
        bad = wanted is not None and any(layer.pattern != wanted for layer in masked)
        yield self._say("pattern", bad, f"zeros are {', '.join(found) or 'none'}" + (
            f", claimed {r.pattern}" if r.pattern else ""), "put the groups along the axis that a layer sums over (1), "
            "which is the one that kernels use", Status.WARN)


class Saving(Check):
    """L3: the saving of training is not that of inference."""

    id, question = "L3", "Does training cost what the text says?"

    def _run(self, ctx: Context) -> Iterator[Finding]:
        r = ctx.record
        if missing := ctx.missing("direction", "train_macs", "dense_macs"):
            yield self._na("train-cost", missing)
        else:
            ratio = _ratio(r.train_macs, r.dense_macs)
            claimed = [c.value for c in ctx.claimed("train-cost") if c.value is not None]
            bad = any(ratio >= 1 or ratio > 1.1 * c for c in claimed)
            said = f", claimed {', '.join(f'{c:.3f}' for c in claimed)}" if claimed else ""
            yield self._say("train-cost", bad, f"{r.direction}: training costs {ratio:.3f} of dense training{said}",
                            "quote the cost of training, not that of the network it ends with")
        if ctx.claimed("memory"):
            if r.dense_storage is None:
                yield self._na("memory", ["dense_storage"])
            else:
                yield self._say("memory", r.dense_storage, "weights lie in memory as "
                                f"{'dense tensors with masks' if r.dense_storage else 'packed tensors'}",
                                "measure the peak memory; masked dense tensors save none", Status.WARN)


class Contests(Check):
    """L4: dense-to-sparse and sparse-to-sparse are different contests."""

    id, question = "L4", "Are methods that train dense compared with those that do not, and at which cost?"

    def _run(self, ctx: Context) -> Iterator[Finding]:
        r = ctx.record
        if not r.arms:
            if r.direction is None:
                yield self._na("cost-column", ["direction"])
            else:
                yield self._say("cost-column", False, f"one sparse arm, {r.direction}", "")
            return
        mixed = len(set(r.arms.values())) > 1
        without = [arm for arm in r.arms if arm not in r.arm_costs]
        front = [a for a in r.arms if a in r.arm_costs and a in r.accuracies and not any(
            r.arm_costs[b] <= r.arm_costs[a] and fmean(r.accuracies[b]) > fmean(r.accuracies[a])
            for b in r.arms if b in r.arm_costs and b in r.accuracies)]
        kinds = ", ".join(sorted(set(r.arms.values())))
        yield self._say("cost-column", mixed and bool(without), f"directions {kinds}; "
                        f"without a cost: {', '.join(without) or 'none'}; no arm is both cheaper and better than "
                        f"{', '.join(front) or 'none'}", "print the training cost of every arm beside its accuracy")


class Motion(Check):
    """L5: static or dynamic masks (during training; not networks that depend on their input)."""

    id, question = "L5", "Did masks move as the plan says, and far enough?"

    def _run(self, ctx: Context) -> Iterator[Finding]:
        r = ctx.record
        if missing := ctx.missing("mask", "churn"):
            yield self._na("motion", missing)
            return
        assert r.churn is not None
        moved = r.churn > 0
        yield self._say("motion", moved == (r.mask == "static"), f"masks declared {r.mask}, churn {r.churn:.4f}",
                        "check the schedule: it fired when it should not, or never")
        if r.mask != "dynamic":
            return
        if missing := ctx.missing("fired", "layers"):
            yield self._na("exploration", missing)
        else:
            assert r.fired is not None
            density = _density(r, "masked")
            least = min(2 * density, (1 + density) / 2)
            yield self._say("exploration", r.fired < least, f"ever kept {r.fired:.4f} of the weights, density "
                            f"{density:.4f}", "move masks more often or a larger share of them", Status.WARN)
        if r.direction == "sparse-to-sparse":
            if r.last_update is None:
                yield self._na("last-update", ["last_update"])
            else:
                yield self._say("last-update", r.last_update > 0.8, f"masks last moved at {r.last_update:.2f} of the "
                                "training", "leave the last fifth of the training to fixed masks", Status.WARN)


class Timing(Check):
    """L6: weights are chosen before, during or after training, and those chosen before it should matter."""

    id, question = "L6", "Does a mask chosen before training beat its own shuffled positions?"

    def _run(self, ctx: Context) -> Iterator[Finding]:
        r = ctx.record
        if r.when is None:
            yield self._na("when", ["when"])
            return
        yield self._say("when", False, f"weights are chosen {r.when} training", "")
        if not ctx.claimed("at-init"):
            return
        if "sparse" not in r.accuracies:
            yield self._na("shuffled", ["accuracies of 'sparse'"])
        elif "shuffled" not in r.accuracies:
            yield self._say("shuffled", True, "no arm 'shuffled'", "shuffle each layer's mask and train that, too",
                            Status.WARN)
        else:
            mean, error = _difference(r.accuracies["sparse"], r.accuracies["shuffled"])
            yield self._say("shuffled", not mean > 2 * error, f"chosen minus shuffled positions {_pm(mean, error)}",
                            "claim the layers' densities, not the positions")


class Denominator(Check):
    """L7: a density needs a denominator, and the zeros must be there."""

    id, question = "L7", "Is the sparsity what is said, over what is said, and are masked weights zero?"

    def _run(self, ctx: Context) -> Iterator[Finding]:
        r = ctx.record
        if not r.layers:
            yield self._na("density", ["layers"])
            return
        for claim in ctx.claimed("sparsity"):
            over = claim.over or "masked"
            if over == "parameters" and r.other_parameters is None:
                yield self._na("density", ["other_parameters"])
                continue
            assert claim.value is not None
            found = 1 - _density(r, over)
            yield self._say("density", abs(found - claim.value) > 0.005, f"claimed {claim.value:.4f} over {over}, "
                            f"measured {found:.4f}", "print the measured sparsity and its denominator")
        revived = sum(layer.revived for layer in r.layers)
        yield self._say("revived", revived > 0, f"{revived:,} weights outside the masks are not zero", "apply the mask "
                        "after the optimizer, and clear its momentum where weights are removed")
        silent = [layer.name for layer in r.layers if not layer.masked
                  and layer.name.removesuffix(".weight") not in r.declared_dense]
        share = sum(layer.weights for layer in r.layers if layer.name in silent) / sum(x.weights for x in r.layers)
        some = any(layer.masked for layer in r.layers)
        yield self._say("excluded", some and bool(silent), f"dense without being said: {', '.join(silent) or 'none'} "
                        f"({share:.3f} of the weights)", "say which layers are left out", Status.WARN)
        thin = [layer.name for layer in r.layers if layer.kept < layer.outputs]
        yield self._say("thin", bool(thin), f"less than a weight for each output: {', '.join(thin) or 'none'}",
                        "give small layers more, as ERK does", Status.WARN)


class Budget(Check):
    """L8: longer training is a resource."""

    id, question = "L8", "Were the arms trained alike?"

    def _run(self, ctx: Context) -> Iterator[Finding]:
        r = ctx.record
        if missing := ctx.missing("steps", "baseline_steps"):
            yield self._na("steps", missing)
        else:
            ratio = _ratio(r.steps, r.baseline_steps)
            cost = None
            if not ctx.missing("train_macs", "baseline_train_macs"):
                cost = _ratio(r.train_macs, r.baseline_train_macs)
            bad = bool(ctx.claimed("same-budget")) and (ratio > 1.1 or (cost or 0) > 1)
            spent = "" if cost is None else f", {cost:.3f} times the multiply-adds"
            yield self._say("steps", bad, f"{ratio:.2f} times the steps of the dense training{spent}",
                            "train both arms as long, or print both costs")
        if missing := ctx.missing("settings", "baseline_settings"):
            yield self._na("settings", missing)
        else:
            names = sorted(set(r.settings) | set(r.baseline_settings))
            differ = [f"{n} {r.settings.get(n)} against {r.baseline_settings.get(n)}" for n in names
                      if r.settings.get(n) != r.baseline_settings.get(n)]
            yield self._say("settings", bool(differ), f"settings that differ: {'; '.join(differ) or 'none'}",
                            "tune both arms with equally many trials, or use equal settings", Status.WARN)


class Rounds(Check):
    """L9: a method that trains k times costs k trainings."""

    id, question = "L9", "Are all rounds and searches counted?"

    def _run(self, ctx: Context) -> Iterator[Finding]:
        r = ctx.record
        efficient = bool(ctx.claimed("efficiency", "train-cost"))
        for code, count, counted in (("rounds", r.rounds, r.rounds_counted),
                                     ("search", r.search_trials, r.search_counted)):
            if count is None:
                yield self._na(code, ["rounds" if code == "rounds" else "search_trials"])
            else:
                many = count > (1 if code == "rounds" else 0)
                yield self._say(code, efficient and many and not counted, f"{count} {code}, "
                                f"{'counted' if counted or not many else 'not counted'} in the cost",
                                "add every training, scoring pass and teacher to the cost")
        if r.rounds is not None and r.rounds > 1:
            plain = [arm for arm in r.accuracies if arm in ("one-shot", "gmp")]
            yield self._say("one-shot", not plain, f"arms that prune in one training: {', '.join(plain) or 'none'}",
                            "add one-shot or gradual pruning at the same total cost", Status.WARN)


class Evidence(Check):
    """L10: seeds, tasks, and more than the first answer."""

    id, question = "L10", "Does the evidence carry the sentence?"

    def _run(self, ctx: Context) -> Iterator[Finding]:
        r = ctx.record
        for claim in ctx.claimed("outperforms"):
            other = claim.over or "dense"
            if lacking := [arm for arm in ("sparse", other) if arm not in r.accuracies]:
                yield self._na("difference", [f"accuracies of {arm!r}" for arm in lacking])
                continue
            mean, error = _difference(r.accuracies["sparse"], r.accuracies[other])
            seeds = len(r.accuracies["sparse"])
            yield self._say("difference", seeds < 2 or not mean > 2 * error, f"sparse minus {other} "
                            f"{_pm(mean, error)} over {seeds} seed{'s' if seeds > 1 else ''}",
                            "run more seeds, or say that the arms do not differ")
        if r.selected_on is None:
            yield self._na("selection", ["selected_on"])
        else:
            yield self._say("selection", r.selected_on == "test", f"the model was chosen on {r.selected_on} data",
                            "choose on validation data and look at the test once")
        yield self._say("calibration", r.ece is None, "no calibration error" if r.ece is None else
                        f"calibration error {r.ece:.4f}", "report calibration or robustness beside accuracy",
                        Status.WARN)
        if r.tasks is None:
            yield self._na("tasks", ["tasks"])
        else:
            yield self._say("tasks", r.tasks < 2, f"{r.tasks} data set{'s' if r.tasks != 1 else ''}",
                            "add a second, harder data set", Status.WARN)
        if r.probe_accuracy is not None and "dense" in r.accuracies:
            gap = fmean(r.accuracies["dense"]) - r.probe_accuracy
            yield self._say("saturated", gap < 0.02, f"the dense network is {gap:+.4f} above a linear classifier",
                            "take a task that needs the network", Status.WARN)


CHECKS: tuple[Check, ...] = (SmallDense(), Speed(), Saving(), Contests(), Motion(), Timing(), Denominator(), Budget(),
                             Rounds(), Evidence())
"""One for each lesson, in order."""


def _difference(ours: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Mean of ours minus the other, and its standard error: paired if the seeds are as many, infinite for one seed."""
    mean = fmean(ours) - fmean(other)
    if min(len(ours), len(other)) < 2:
        return mean, math.inf
    if len(ours) == len(other):
        return mean, stdev([a - b for a, b in zip(ours, other, strict=True)]) / math.sqrt(len(ours))
    return mean, math.hypot(stdev(ours) / math.sqrt(len(ours)), stdev(other) / math.sqrt(len(other)))


def _density(record: TrainingRecord, over: str) -> float:
    layers = [layer for layer in record.layers if layer.masked or over != "masked"] or list(record.layers)
    others = (record.other_parameters or 0) if over == "parameters" else 0
    return (sum(x.kept for x in layers) + others) / (sum(x.weights for x in layers) + others)


def _ratio(a: Any, b: Any) -> float:
    return float(a) / float(b) if b else math.inf


def _pm(mean: float, error: float) -> str:
    return f"{mean:+.4f} ({'one seed' if math.isinf(error) else f'standard error {error:.4f}'})"
