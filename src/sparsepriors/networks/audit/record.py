"""What is known of a training, as plain data: the record that an audit reads, from memory or from a JSON file."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from torch import Tensor, nn

from sparsepriors import _checks, _files
from sparsepriors.networks.audit.patterns import detect_pattern, nonzeros
from sparsepriors.networks.audit.taxonomy import DIRECTIONS, MASKS, Taxonomy, classify
from sparsepriors.networks.sparse import SparsePlan, TrainingReport

KINDS = {
    "sparsity": "share of zeros over the set named by `over`",
    "speedup": "time of the dense network over that of the sparse one",
    "train-cost": "multiply-adds of training over those of dense training",
    "memory": "peak memory of training over that of dense training",
    "sparsity-helps": "the sparse network beats a dense one of equally many weights",
    "outperforms": "the sparse network beats the arm named by `over`",
    "same-budget": "the arms were trained alike",
    "efficiency": "the method is cheap, all its trainings counted",
    "at-init": "the positions chosen before training matter",
}
"""Kinds of claims, and what `value` of them means."""

_COUNTED = ("masked", "weights", "parameters")
_COUNTS = ("other_parameters", "steps", "batch", "samples", "baseline_steps", "rounds", "search_trials", "tasks")
_NUMBERS = ("baseline_train_macs", "train_macs", "dense_macs", "churn", "fired", "last_update", "speedup", "ece",
            "probe_accuracy")


@dataclass(frozen=True)
class Claimed:
    """One sentence of a text, as a number that can be checked.

    Parameters
    ----------
    kind
        One of `KINDS`.
    value
        The number claimed, where the kind has one.
    over
        Of a sparsity the set it is a share of, ``"masked"``, ``"weights"`` or ``"parameters"``; of ``"outperforms"``
        the other arm.
    """

    kind: str
    value: float | None = None
    over: str = ""

    def __post_init__(self) -> None:
        _checks.one_of("kind of claim", self.kind, KINDS)
        if self.kind in ("sparsity", "speedup", "train-cost", "memory"):
            _checks.nonnegative(f"the value of a claim of {self.kind}", self.value)  # pyright: ignore[reportArgumentType]
        if self.kind == "sparsity":
            _checks.one_of("over", self.over or "masked", _COUNTED)


@dataclass(frozen=True)
class LayerEvidence:
    """One weight: entries, outputs, how many are kept and how many outside the mask are not zero.

    ``pattern`` is that of `detect_pattern`, written ``"2:4 along 1"`` for N:M.
    """

    name: str
    weights: int
    outputs: int
    kept: int
    masked: bool
    revived: int = 0
    pattern: str = "unstructured"

    def __post_init__(self) -> None:
        _text("LayerEvidence.name", self.name)
        _text(f"the pattern of {self.name}", self.pattern)
        for name, low in (("weights", 1), ("outputs", 0), ("kept", 0), ("revived", 0)):
            _checks.count(f"{name} of {self.name}", getattr(self, name), low=low)
        if not isinstance(self.masked, bool):
            raise TypeError(f"masked of {self.name} must be true or false, got {self.masked!r:.100}")
        if self.kept > self.weights:
            raise ValueError(f"{self.name} cannot keep {self.kept} of {self.weights} weights")


@dataclass(frozen=True)
class TrainingRecord:
    """Everything an audit may look at; what is not known is ``None``, and checks that need it say so.

    Parameters
    ----------
    when, direction, mask, granularity
        The method, see `Taxonomy`.
    layers, other_parameters
        The network.
    declared_dense
        Layers that the text says are dense.
    pattern
        The N:M pattern that the text claims, such as ``"2:4"``.
    steps, batch, samples
        Of the sparse training.
    baseline_steps, baseline_train_macs, settings, baseline_settings
        Of the dense training; settings are learning rate, weight decay, augmentation and the like.
    train_macs, dense_macs
        Multiply-adds of the sparse training, and of the same steps without sparsity.
    churn, fired, last_update
        Mask entries that changed over the number of weights, the share of weights ever kept, and the share of the
        training at which masks last changed.
    rounds, rounds_counted, search_trials, search_counted
        Trainings and searches that led to the result, and whether ``train_macs`` has them.
    kernel, speedup
        The kernel that was timed, and the dense time over its time.
    dense_storage
        Whether the sparse weights lie in memory as dense tensors during training.
    accuracies
        Results of each arm, seed by seed in the same order; ``"sparse"`` is the one that is audited.
    arms
        Direction of each sparse arm of the table.
    arm_costs
        Training cost of each arm over that of dense training.
    selected_on
        ``"train"``, ``"validation"`` or ``"test"``: what the reported model was chosen by.
    tasks, ece, probe_accuracy
        Data sets, expected calibration error, accuracy of a linear classifier.
    """

    when: str | None = None
    direction: str | None = None
    mask: str | None = None
    granularity: str | None = None
    layers: tuple[LayerEvidence, ...] = ()
    other_parameters: int | None = None
    declared_dense: tuple[str, ...] = ()
    pattern: str | None = None
    steps: int | None = None
    batch: int | None = None
    samples: int | None = None
    baseline_steps: int | None = None
    baseline_train_macs: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    baseline_settings: Mapping[str, Any] = field(default_factory=dict)
    train_macs: float | None = None
    dense_macs: float | None = None
    churn: float | None = None
    fired: float | None = None
    last_update: float | None = None
    rounds: int | None = None
    rounds_counted: bool = False
    search_trials: int | None = None
    search_counted: bool = False
    kernel: str | None = None
    speedup: float | None = None
    dense_storage: bool | None = None
    accuracies: Mapping[str, Sequence[float]] = field(default_factory=dict)
    arms: Mapping[str, str] = field(default_factory=dict)
    arm_costs: Mapping[str, float] = field(default_factory=dict)
    selected_on: str | None = None
    tasks: int | None = None
    ece: float | None = None
    probe_accuracy: float | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("when", ("before", "during", "after")), ("direction", DIRECTIONS), ("mask", MASKS),
                              ("selected_on", ("train", "validation", "test"))):
            if getattr(self, name) is not None:
                _checks.one_of(name, getattr(self, name), allowed)
        for name in _COUNTS:
            if getattr(self, name) is not None:
                _checks.count(name, getattr(self, name))
        for name in _NUMBERS:
            if getattr(self, name) is not None:
                _checks.nonnegative(name, getattr(self, name))
        for name in ("rounds_counted", "search_counted", "dense_storage"):
            if not isinstance(getattr(self, name), bool | None):
                raise TypeError(f"{name} must be true or false, got {getattr(self, name)!r:.100}")
        for name in ("granularity", "pattern", "kernel"):
            if getattr(self, name) is not None:
                _text(name, getattr(self, name))
        for name in ("settings", "baseline_settings", "accuracies", "arms", "arm_costs"):
            if not isinstance(getattr(self, name), Mapping):
                raise TypeError(f"{name} must be an object, got {getattr(self, name)!r:.100}")
        for arm, direction in self.arms.items():
            _checks.one_of(f"the direction of {arm}", direction, DIRECTIONS)
        for arm, cost in self.arm_costs.items():
            _checks.nonnegative(f"the cost of {arm}", cost)
        if (self.steps is not None and self.batch is not None and self.samples is not None
                and self.steps * self.batch != self.samples):
            raise ValueError(f"the record contradicts itself: {self.steps} steps of {self.batch} are not "
                             f"{self.samples} samples")
        for arm, values in self.accuracies.items():
            if not isinstance(values, Sequence) or not values or not all(
                    isinstance(v, int | float) and math.isfinite(v) for v in values):
                raise ValueError(f"accuracies of {arm!r} must be finite numbers, at least one, got {values!r:.100}")
        for name in self.declared_dense:
            _text("a layer that is declared dense", name)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainingRecord:
        """The record that `to_dict` wrote, or that somebody wrote by hand with the same names.

        Raises
        ------
        TypeError, ValueError
            If a name is unknown or a value refused.
        """
        values = dict(data)
        known = [f.name for f in fields(cls)]
        for name in values:
            _checks.one_of("field of a record", name, known)
        try:
            values["layers"] = tuple(LayerEvidence(**layer) for layer in values.get("layers", ()))
        except TypeError as e:
            raise ValueError(f"a layer of the record has not the fields of LayerEvidence: {e}") from e
        return cls(**{**values, "declared_dense": tuple(values.get("declared_dense", ()))})


def record_training(plan: SparsePlan, report: TrainingReport, model: nn.Module | None = None,
                    **more: Any) -> TrainingRecord:
    """The record of a finished training: the plan's words, the report's books, the zeros of the model.

    Parameters
    ----------
    plan, report
        What was asked and what was done. The report's cost has the rounds of the plan in it.
    model
        The trained network: its weights are compared with the masks.
    more
        Further fields of `TrainingRecord`.
    """
    kind: Taxonomy = classify(plan)
    _checks.instance("report", report, TrainingReport)
    layers = []
    for r in report.sparsity.layers:
        weight = None if model is None else model.get_parameter(r.name)
        mask = report.masks.get(r.name)
        revived = 0 if weight is None or mask is None else int((weight.detach()[~mask] != 0).sum())
        layers.append(layer_evidence(r.name, weight, r.weights, r.shape[0], r.nnz, masked=r.masked, revived=revived))
    moves = [k for k in range(report.steps + 1)
             if (e := plan.schedule.event(k, report.steps, plan.pattern)) and (e.move or e.open or e.prune is not None)]
    last = moves[-1] / report.steps if moves and report.steps else 0.0
    books = {"when": kind.when, "direction": kind.direction, "mask": kind.mask, "granularity": kind.granularity,
             "layers": tuple(layers), "other_parameters": report.sparsity.other_parameters, "steps": report.steps,
             "train_macs": report.train_macs, "dense_macs": report.train_macs_dense, "churn": report.churn,
             "fired": report.fired, "last_update": last,
             "rounds": plan.schedule.restarts, "rounds_counted": True}
    return TrainingRecord(**{**books, **more})


def record_weights(weights: Mapping[str, Tensor]) -> TrainingRecord:
    """The record of nothing but weights: what is zero in them is taken for the mask."""
    _checks.instance("weights", weights, Mapping)
    layers = [layer_evidence(n, w, w.numel(), w.shape[0], nonzeros(w), masked=nonzeros(w) < w.numel())
              for n, w in weights.items() if w.ndim >= 2 and w.is_floating_point() and w.numel()]
    if not layers:
        raise ValueError("the weights hold no matrix or bank of filters")
    others = sum(w.numel() for w in weights.values()) - sum(r.weights for r in layers)
    return TrainingRecord(layers=tuple(layers), other_parameters=others)


def layer_evidence(name: str, weight: Tensor | None, weights: int, outputs: int, kept: int, *, masked: bool,
                   revived: int = 0) -> LayerEvidence:
    """The evidence of one weight, with the pattern of its zeros where it is at hand."""
    if weight is None:
        return LayerEvidence(name, weights, outputs, kept, masked, revived)
    guess = detect_pattern(weight)
    text = f"{guess.n}:{guess.m} along {guess.axis}" if guess.kind == "n:m" else guess.kind
    return LayerEvidence(name, weights, outputs, kept, masked, revived, text)


def read_record(path: str | os.PathLike[str]) -> tuple[TrainingRecord, tuple[Claimed, ...]]:
    """Read a record and its claims: ``{"training": {...}, "claims": [{"kind": ..., "value": ...}]}``.

    Raises
    ------
    ValueError
        If the file is no such JSON, names an unknown field or kind of claim, or contradicts itself.
    """
    data = _files.read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("training"), dict):
        raise ValueError(f"{path} must hold an object with a field 'training'")
    extra = set(data) - {"training", "claims"}
    claims = data.get("claims", [])
    if extra or not isinstance(claims, list) or not all(isinstance(c, dict) for c in claims):
        raise ValueError(f"{path} must hold 'training' and a list of 'claims', got {sorted(data)}")
    try:
        return TrainingRecord.from_dict(data["training"]), tuple(Claimed(**c) for c in claims)
    except (TypeError, ValueError) as e:
        raise ValueError(f"{path}: {e}") from e


def _text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{name} must be a text, got {value!r:.100}")
