"""Trainings with one fault each, to see whether an audit finds it; and the clean ones that they are made of."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sparsepriors.networks.audit import (
    AuditReport,
    Claimed,
    LayerEvidence,
    Status,
    TrainingRecord,
    audit,
    detect_pattern,
    record_training,
)
from sparsepriors.networks.classification import predict
from sparsepriors.networks.recipe import Examples, Recipe, train_classifier
from sparsepriors.networks.reliability import ece
from sparsepriors.networks.sparse import SparsePlan, TrainingReport, preset
from sparsepriors.priors.patterns import NM

CLEAN = ("gmp", "rigl", "random", "sr-ste")


@dataclass(frozen=True)
class Clean:
    """A finished training with its record and what is truthfully claimed of it."""

    model: nn.Module
    plan: SparsePlan
    report: TrainingReport
    record: TrainingRecord
    claims: tuple[Claimed, ...]


@dataclass(frozen=True)
class Fault:
    """A record in which one thing is wrong, and the finding that must say so."""

    name: str
    code: str
    status: Status
    record: TrainingRecord
    claims: tuple[Claimed, ...]


def clean(name: str, parent: Callable[[], nn.Module], train: Examples, test: Examples, recipe: Recipe,
          accuracies: Mapping[str, float], seed: int) -> Clean:
    """Train by a preset and record everything that an audit asks for."""
    plan = preset(name) if name == "sr-ste" else preset(name, density=0.1, **(
        {"every": 5} if name in ("gmp", "rigl") else {}))
    model = parent()
    trained = train_classifier(model, train, recipe, plan=plan, test=test,
                               generator=torch.Generator().manual_seed(seed))
    report = trained.report
    assert report is not None
    settings = {"rate": recipe.rate, "weight_decay": recipe.weight_decay, "augment": None}
    arms = {"sparse": (trained.accuracy,), **{arm: (a,) for arm, a in accuracies.items()}}
    record = record_training(
        plan, report, model, batch=recipe.batch, baseline_steps=report.steps, settings=settings,
        baseline_settings=settings, baseline_train_macs=report.train_macs_dense, search_trials=0, dense_storage=True,
        accuracies=arms, selected_on="train", tasks=1, ece=ece(predict(model, test[0]), test[1]),
        pattern="2:4" if name == "sr-ste" else None)
    claims = (Claimed("sparsity", round(1 - report.density, 3)), Claimed("same-budget"),
              Claimed("train-cost", report.train_ratio))
    return Clean(model, plan, report, record, claims)


def faults(runs: Mapping[str, Clean], train: Examples) -> Iterator[Fault]:
    """Each fault in a training that is otherwise clean."""
    gmp, rigl, static, nm = (runs[name] for name in CLEAN)

    def one(name: str, code: str, base: Clean, *claims: Claimed, status: Status = Status.FAIL,
            record: TrainingRecord | None = None, **changes: Any) -> Fault:
        return Fault(name, code, status, replace(base.record if record is None else record, **changes),
                     (*base.claims, *claims))

    def again(base: Clean, model: nn.Module) -> tuple[LayerEvidence, ...]:
        return record_training(base.plan, base.report, model).layers

    even, worse = (0.80, 0.81, 0.79, 0.80, 0.80), (0.78, 0.79, 0.77, 0.78, 0.77)
    yield one("mask not applied after the step", "L7.revived", static, layers=again(static, _unmasked(static, train)))
    yield one("momentum revives weights", "L7.revived", static, layers=again(static, _revived(static, train)))
    others = _without_largest(static.record.layers)
    kept, size = (sum(getattr(x, f) for x in others if x.masked) for f in ("kept", "weights"))
    yield Fault("largest layer dense without a word", "L7.excluded", Status.WARN, replace(static.record, layers=others),
                (Claimed("sparsity", 1 - kept / size), *static.claims[1:]))
    yield one("2:4 along the wrong axis", "L2.pattern", nm, status=Status.WARN,
              layers=tuple(_crosswise(layer, nm.model) for layer in nm.record.layers))
    yield one("dynamic plan that never fires", "L5.motion", static, mask="dynamic")
    yield one("masks move though declared static", "L5.motion", rigl, mask="static")
    yield one("three times the epochs", "L8.steps", rigl, steps=3 * (rigl.record.steps or 0))
    yield one("another learning rate", "L8.settings", rigl, status=Status.WARN,
              settings={**rigl.record.settings, "rate": 0.1})
    yield one("chosen on test data", "L10.selection", rigl, selected_on="test")
    yield one("positions no better than shuffled", "L6.shuffled", static, Claimed("at-init"),
              accuracies={"sparse": even, "shuffled": (0.80, 0.80, 0.80, 0.80, 0.79), "small-dense": worse})
    yield one("search left out of the cost", "L9.search", static, Claimed("efficiency"), search_trials=100)
    yield one("speed-up from multiply-adds", "L2.speedup", static, Claimed("speedup", 1 / static.report.density))
    yield one("better by one seed", "L10.difference", rigl, Claimed("outperforms", over="dense"))
    yield one("training as cheap as the final network", "L3.train-cost", gmp,
              Claimed("train-cost", gmp.report.density))
    yield one("memory saved by masks", "L3.memory", static, Claimed("memory", 0.1), status=Status.WARN)
    yield one("small dense network wins", "L1.small-dense", static, Claimed("sparsity-helps"),
              accuracies={"sparse": worse, "small-dense": even})
    yield one("rounds left out of the cost", "L9.rounds", gmp, Claimed("efficiency"), rounds=5, rounds_counted=False)
    yield one("no calibration", "L10.calibration", rigl, status=Status.WARN, ece=None)
    yield one("masks hardly explore", "L5.exploration", rigl, status=Status.WARN, fired=1.05 * rigl.report.density)
    yield one("sparsity off by 0.017", "L7.density", static,
              Claimed("sparsity", round(1 - static.report.density + 0.017, 3)))
    yield one("contests mixed without a cost", "L4.cost-column", gmp,
              arms={"gmp": "dense-to-sparse", "rigl": "sparse-to-sparse"})


def examined(fault: Fault) -> dict[str, Any]:
    """Whether the audit found the fault, and what else it said of another lesson."""
    report = audit(fault.record, fault.claims)
    found = any(f"{f.lesson}.{f.code}" == fault.code and f.status == fault.status for f in report.findings)
    return {"fault": fault.name, "expected": fault.code, "found": found, **other(report, fault.code),
            "verdicts": {c: report.verdict(c).value for c in (f"L{i}" for i in range(1, 11))}}


def other(report: AuditReport, code: str = "") -> dict[str, int]:
    """Failures and warnings beside the one expected."""
    return {f"other_{status.value}": sum(f"{f.lesson}.{f.code}" != code for f in report.of(status))
            for status in (Status.FAIL, Status.WARN)}


def _unmasked(base: Clean, train: Examples) -> nn.Module:
    """One step of the optimizer after the masks were forgotten."""
    model = copy.deepcopy(base.model)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    nn.functional.cross_entropy(model(train[0][:128]), train[1][:128]).backward()
    optimizer.step()
    return model


def _revived(base: Clean, train: Examples) -> nn.Module:
    """Weights are set to zero once and their gradients from then on, but the momentum remembers."""
    model = copy.deepcopy(base.model)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    for step in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(train[0][:128]), train[1][:128]).backward()
        for name, mask in base.report.masks.items():
            parameter = model.get_parameter(name)
            if step and parameter.grad is not None:
                parameter.grad.masked_fill_(~mask, 0)
                with torch.no_grad():
                    parameter.masked_fill_(~mask, 0)
        optimizer.step()
    return model


def _without_largest(layers: tuple[LayerEvidence, ...]) -> tuple[LayerEvidence, ...]:
    largest = max(layers, key=lambda layer: layer.weights)
    return tuple(replace(x, kept=x.weights, masked=False, pattern="dense") if x is largest else x for x in layers)


def _crosswise(layer: LayerEvidence, model: nn.Module) -> LayerEvidence:
    weight: Tensor = model.get_parameter(layer.name).detach()
    if not layer.masked or weight.shape[0] % 4:
        return layer
    guess = detect_pattern(NM(2, 4, dim=0).project(torch.where(weight == 0, 1e-3, weight)))
    return replace(layer, pattern=f"{guess.n}:{guess.m} along {guess.axis}")
