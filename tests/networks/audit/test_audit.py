import dataclasses
import json
import math

import pytest
import torch
from torch import nn

from sparsepriors import _files
from sparsepriors.networks.audit import (
    CHECKS,
    Claimed,
    LayerEvidence,
    Status,
    TrainingRecord,
    audit,
    audit_training,
    classify,
    read_record,
    record_training,
    record_weights,
)
from sparsepriors.networks.recipe import Recipe, train_classifier
from sparsepriors.networks.sparse import PRESETS, Selector, preset

LAYERS = (LayerEvidence("a.weight", 100, 10, 10, True), LayerEvidence("b.weight", 40, 4, 4, True))
WHOLE = TrainingRecord(
    when="during", direction="sparse-to-sparse", mask="dynamic", granularity="unstructured", layers=LAYERS,
    other_parameters=14, steps=100, batch=10, samples=1000, baseline_steps=100, baseline_train_macs=10.0,
    settings={"rate": 0.1}, baseline_settings={"rate": 0.1}, train_macs=2.0, dense_macs=10.0, churn=0.4, fired=0.5,
    last_update=0.7, rounds=1, search_trials=0, speedup=2.0, kernel="spmm", dense_storage=False,
    accuracies={"sparse": (0.9, 0.91, 0.92), "small-dense": (0.8, 0.81, 0.83), "dense": (0.9, 0.9, 0.9)},
    selected_on="validation", tasks=2, ece=0.02, probe_accuracy=0.7)


def status(record, code, *claims):
    lesson, name = code.split(".")
    found = [f.status for f in audit(record, claims).findings if (f.lesson, f.code) == (lesson, name)]
    assert found, code
    return min(found, key=[Status.FAIL, Status.WARN, Status.NA, Status.PASS].index)


def test_a_complete_honest_record_passes_everything():
    claims = (Claimed("sparsity", 0.9), Claimed("speedup", 2.0), Claimed("train-cost", 0.2), Claimed("memory", 0.2),
              Claimed("sparsity-helps"), Claimed("outperforms", over="small-dense"), Claimed("same-budget"),
              Claimed("efficiency"))
    report = audit(WHOLE, claims)
    assert {f.status for f in report.findings} == {Status.PASS}
    assert report.exit_code == 0
    assert [report.verdict(c.id) for c in CHECKS] == [Status.PASS] * 10


@pytest.mark.parametrize(("code", "changes", "claim", "expected"), [
    ("L1.small-dense", {"accuracies": {"sparse": (0.8, 0.8)}}, None, "warn"),
    ("L1.small-dense", {"accuracies": {"sparse": (0.8, 0.81), "small-dense": (0.9, 0.9)}}, ("sparsity-helps",), "fail"),
    ("L1.small-dense", {"accuracies": {"sparse": (0.8, 0.81), "small-dense": (0.9, 0.9)}}, None, "pass"),
    ("L1.small-dense", {"accuracies": {"sparse": (0.8,), "small-dense": (0.9,)}}, ("sparsity-helps",), "pass"),
    ("L2.speedup", {}, ("speedup", 2.19), "pass"),
    ("L2.speedup", {}, ("speedup", 2.21), "fail"),
    ("L2.speedup", {"speedup": None}, ("speedup", 1.1), "fail"),
    ("L2.pattern", {"pattern": "2:4"}, None, "warn"),
    ("L3.train-cost", {}, ("train-cost", 0.1), "fail"),
    ("L3.train-cost", {"train_macs": 11.0}, ("train-cost", 1.2), "fail"),
    ("L3.train-cost", {"train_macs": 11.0}, None, "pass"),
    ("L3.memory", {"dense_storage": True}, ("memory", 0.1), "warn"),
    ("L4.cost-column", {"arms": {"x": "dense-to-sparse", "y": "sparse-to-sparse"}}, None, "fail"),
    ("L4.cost-column", {"arms": {"x": "dense-to-sparse", "y": "sparse-to-sparse"}, "arm_costs": {"x": 0.4, "y": 0.1}},
     None, "pass"),
    ("L5.motion", {"churn": 0.0}, None, "fail"),
    ("L5.motion", {"mask": "static"}, None, "fail"),
    ("L5.exploration", {"fired": 0.19}, None, "warn"),
    ("L5.last-update", {"last_update": 0.81}, None, "warn"),
    ("L6.shuffled", {}, ("at-init",), "warn"),
    ("L6.shuffled", {"accuracies": {"sparse": (0.9, 0.91), "shuffled": (0.9, 0.91)}}, ("at-init",), "fail"),
    ("L6.shuffled", {"accuracies": {"sparse": (0.9, 0.94), "shuffled": (0.9, 0.91)}}, ("at-init",), "fail"),
    ("L6.shuffled", {"accuracies": {"sparse": (0.9, 0.91), "shuffled": (0.8, 0.82)}}, ("at-init",), "pass"),
    ("L7.density", {}, ("sparsity", 0.906), "fail"),
    ("L7.density", {}, ("sparsity", 0.904), "pass"),
    ("L7.density", {}, ("sparsity", 0.9, "parameters"), "fail"),
    ("L7.density", {}, ("sparsity", 1 - 28 / 154, "parameters"), "pass"),
    ("L7.revived", {"layers": (dataclasses.replace(LAYERS[0], revived=1),)}, None, "fail"),
    ("L7.excluded", {"layers": (*LAYERS, LayerEvidence("c.weight", 50, 5, 50, False))}, None, "warn"),
    ("L7.excluded", {"layers": (*LAYERS, LayerEvidence("c.weight", 50, 5, 50, False)), "declared_dense": ("c",)}, None,
     "pass"),
    ("L7.thin", {"layers": (dataclasses.replace(LAYERS[0], kept=9),)}, None, "warn"),
    ("L8.steps", {"baseline_steps": 90}, ("same-budget",), "fail"),
    ("L8.steps", {"baseline_steps": 91}, ("same-budget",), "pass"),
    ("L8.steps", {"train_macs": 10.5}, ("same-budget",), "fail"),
    ("L8.settings", {"settings": {"rate": 0.2}}, None, "warn"),
    ("L9.rounds", {"rounds": 5}, ("efficiency",), "fail"),
    ("L9.rounds", {"rounds": 5, "rounds_counted": True}, ("efficiency",), "pass"),
    ("L9.one-shot", {"rounds": 5}, None, "warn"),
    ("L9.search", {"search_trials": 100}, ("efficiency",), "fail"),
    ("L10.difference", {}, ("outperforms", None, "dense"), "fail"),
    ("L10.difference", {"accuracies": {"sparse": (0.9,), "dense": (0.1,)}}, ("outperforms", None, "dense"), "fail"),
    ("L10.selection", {"selected_on": "test"}, None, "fail"),
    ("L10.calibration", {"ece": None}, None, "warn"),
    ("L10.tasks", {"tasks": 1}, None, "warn"),
    ("L10.saturated", {"probe_accuracy": 0.89}, None, "warn"),
])
def test_one_change_moves_one_finding(code, changes, claim, expected):
    claims = () if claim is None else (Claimed(*claim),)
    assert status(dataclasses.replace(WHOLE, **changes), code, *claims) == expected


def test_nothing_passes_without_evidence():
    """Every question that an empty record leaves open is not judged, or is a warning that says what is absent."""
    claims = tuple(Claimed(kind, 0.5 if kind in ("sparsity", "speedup", "train-cost", "memory") else None)
                   for kind in ("sparsity", "train-cost", "memory", "outperforms", "same-budget", "efficiency"))
    report = audit(TrainingRecord(), claims)
    assert not report.of(Status.PASS)
    assert {f.code for f in report.of(Status.WARN)} == {"calibration"}
    assert all("not recorded" in f.evidence for f in report.of(Status.NA))


@pytest.mark.parametrize("name", ["when", "direction", "mask", "layers", "steps", "baseline_steps", "train_macs",
                                  "churn", "fired", "rounds", "search_trials", "selected_on", "tasks", "settings"])
def test_a_missing_field_is_named_and_never_passed(name):
    empty = {f.name: f.default for f in dataclasses.fields(TrainingRecord)} | {"settings": {}, "layers": ()}
    report = audit(dataclasses.replace(WHOLE, samples=None, **{name: empty[name]}))
    assert any(name in f.evidence for f in report.of(Status.NA))


def network(name="mlp"):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))


def trained(plan):
    x, y = torch.randn(64, 1, 8, 8), torch.randint(4, (64,))
    model = network()
    done = train_classifier(model, (x, y), Recipe(epochs=3, batch=16), plan=plan,
                            generator=torch.Generator().manual_seed(0))
    assert done.report is not None
    return model, done.report


def test_every_training_of_the_library_can_be_audited():
    plan = preset("rigl", density=0.2, every=2)
    model, report = trained(plan)
    found = audit_training(plan, report, model, [Claimed("sparsity", 0.8)])
    assert found.verdict("L7") == Status.PASS
    assert found.exit_code == 0
    record = record_training(plan, report, model)
    assert record.train_macs == report.train_macs
    assert (record.when, record.direction, record.mask) == ("during", "sparse-to-sparse", "dynamic")
    assert record.last_update is not None
    assert 0 < record.last_update <= 0.75
    with torch.no_grad():
        weight = model.get_parameter("1.weight")
        weight[~report.masks["1.weight"]] = 1e-3
    broken = audit_training(plan, report, model, [Claimed("sparsity", 0.8)])
    assert [f.code for f in broken.of(Status.FAIL)] == ["revived"]
    assert broken.exit_code == 1


def test_masks_that_stay_have_last_moved_at_the_start():
    plan = preset("random", density=0.2, where=Selector(skip=("3",)))
    model, report = trained(plan)
    record = record_training(plan, report, model)
    assert (record.churn, record.last_update) == (0, 0)
    assert status(record, "L7.excluded") == "warn"


def test_plans_have_the_words_of_the_literature():
    words = {name: dataclasses.astuple(classify(PRESETS[name]())) for name in PRESETS}
    assert words["rigl"] == ("during", "sparse-to-sparse", "dynamic", "unstructured", "gradient")
    assert words["sr-ste"] == ("during", "dense weights, sparse forward", "dynamic", "nm", "implicit")
    assert words["snip"] == ("before", "sparse-to-sparse", "static", "unstructured", "none")
    assert words["gmp"][:3] == ("during", "dense-to-sparse", "gradual")
    assert words["one-shot"][:2] == ("after", "dense-to-sparse")
    assert words["ac-dc"][1] == "dense and sparse in turn"
    assert words["set"][4] == "random"
    assert words["imp"][2] == "gradual"


def test_a_record_survives_its_file(tmp_path):
    path = _files.write_json(tmp_path / "run.json", {"training": WHOLE.to_dict(),
                                                     "claims": [{"kind": "sparsity", "value": 0.9}]})
    record, claims = read_record(path)
    assert audit(record, claims) == audit(WHOLE, [Claimed("sparsity", 0.9)])
    report = audit(record, claims)
    json.dumps(report.to_dict())
    assert report.to_markdown().count("\n") == len(report.findings) + 1
    assert "L10" in report.to_text()


def test_weights_alone_are_judged_by_what_they_show():
    w = torch.randn(64, 64)
    w[w.abs() < 1] = 0
    record = record_weights({"fc.weight": w, "fc.bias": torch.ones(64)})
    assert record.layers[0].kept == int((w != 0).sum())
    assert record.other_parameters == 64
    assert audit(record).verdict("L5") == Status.NA
    with pytest.raises(ValueError, match="no matrix"):
        record_weights({"bias": torch.ones(3)})


@pytest.mark.public_door
@pytest.mark.parametrize(("data", "message"), [
    ({"claims": []}, "field 'training'"),
    ({"training": {}, "extra": 1}, "a list of 'claims'"),
    ({"training": {"step": 3}}, "did you mean 'steps'"),
    ({"training": {"steps": 3, "batch": 4, "samples": 13}}, "contradicts itself"),
    ({"training": {"mask": "moving"}}, "mask must be one of 'static'"),
    ({"training": {"layers": [{"name": "a"}]}}, "LayerEvidence"),
    ({"training": {"layers": [dataclasses.asdict(LAYERS[0]) | {"kept": 101}]}}, "cannot keep 101 of 100"),
    ({"training": {"accuracies": {"sparse": []}}}, "at least one"),
    ({"training": {"accuracies": {"sparse": 0.5}}}, "at least one"),
    ({"training": {"accuracies": [0.5]}}, "accuracies must be an object"),
    ({"training": {"steps": "many"}}, "steps must be an integer"),
    ({"training": {"churn": "much"}}, "churn must be a number"),
    ({"training": {"churn": -1.0}}, "churn must be finite and nonnegative"),
    ({"training": {"dense_storage": "no"}}, "dense_storage must be true or false"),
    ({"training": {"kernel": 3}}, "kernel must be a text"),
    ({"training": {"declared_dense": [3]}}, "declared dense must be a text"),
    ({"training": {"arms": {"x": "sparse"}}}, "the direction of x must be one of"),
    ({"training": {"arm_costs": {"x": "low"}}}, "the cost of x must be a number"),
    ({"training": {"layers": 5}}, "LayerEvidence"),
    ({"training": {"layers": [dataclasses.asdict(LAYERS[0]) | {"masked": 1}]}}, "masked of a.weight must be true"),
    ({"training": {"layers": [dataclasses.asdict(LAYERS[0]) | {"kept": "all"}]}}, "kept of a.weight must be an int"),
    ({"training": {}, "claims": [{"kind": "speed", "value": 2}]}, "kind of claim must be one of 'sparsity', 'speedup'"),
    ({"training": {}, "claims": [{"kind": "speedup"}]}, "the value of a claim of speedup must be a number"),
    ({"training": {}, "claims": [{"kind": "sparsity", "value": 0.5, "over": "all"}]}, "over must be one of"),
    ({"training": {}, "claims": [{"what": "speedup"}]}, "what"),
])
def test_a_bad_record_is_refused_by_name(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        read_record(_files.write_json(tmp_path / "run.json", data))


def test_numbers_must_be_finite():
    with pytest.raises(ValueError, match="churn must be finite"):
        TrainingRecord(churn=math.nan)
