import csv
import io

import pytest
import torch

from sparsepriors.networks import Recipe
from sparsepriors.networks.models import MLP
from sparsepriors.networks.preset_table import DENSE, chain, figure, markdown, measure, plan_for, summary, text
from sparsepriors.networks.preset_table import csv as as_csv
from sparsepriors.networks.sparse import PRESETS
from sparsepriors.priors.patterns import NM, Unstructured


def row(preset, sparsity, seed, accuracy):
    return {"preset": preset, "sparsity": sparsity, "seed": seed, "accuracy": accuracy, "density": 1 - sparsity,
            "train_flops": 1.23e10, "train_ratio": 0.5, "inference_flops": 4567.0, "bytes": 1000, "churn": 0.1,
            "fired": 0.3}


ROWS = [row(DENSE, 0.8, s, 0.9 + s / 1000) for s in range(3)] + [
    row(name, level, s, base - level / 10 + s / 1000)
    for name, base in (("gmp", 0.9), ("rigl", 0.85), ("random", 0.87), ("random-one-shot", 0.8 + 0.0))
    for level in (0.8, 0.9) for s in range(3)]


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_every_preset_has_a_plan_at_that_sparsity(name, sparsity):
    plan = plan_for(name, sparsity, 150)
    assert plan is not None
    if isinstance(plan.pattern, NM):
        assert (plan.pattern.n, plan.pattern.m) == (round(16 * (1 - sparsity)), 16)
    else:
        assert isinstance(plan.pattern, Unstructured)
        assert plan.pattern.density == pytest.approx(1 - sparsity)


def test_what_has_no_plan_is_said():
    assert plan_for(DENSE, 0.5, 10) is None
    with pytest.raises(ValueError, match="did you mean 'rigl'"):
        plan_for("rigle", 0.5, 10)
    with pytest.raises(ValueError, match="sparsity must be between 0 and 1, got 1"):
        plan_for("rigl", 1, 10)
    with pytest.raises(ValueError, match="no 0:16 pattern"):
        plan_for("sr-ste", 0.99, 10)
    with pytest.raises(ValueError, match="legal for m = 16"):
        plan_for("sdgf-stepwise", 0.8, 10)


def test_the_mean_and_interval_are_over_seeds():
    found = {(r["preset"], r["sparsity"]): r for r in summary(ROWS)}
    gmp = found["gmp", 0.8]
    assert gmp["accuracy"] == pytest.approx(0.821)
    assert gmp["high"] - gmp["accuracy"] == pytest.approx(4.302653 * 0.001 / 3**0.5, rel=1e-4)
    assert gmp["seeds"] == 3


def test_the_published_order_is_judged_by_seeds():
    found = {(r["sparsity"], r["better"]): r["verdict"] for r in chain(ROWS)}
    assert found[0.8, "dense to sparse"] == "as published"
    assert found[0.8, "dynamic"] == "reversed"
    assert found[0.9, "static random"] == "as published"
    noisy = [row("gmp", 0.8, s, a) for s, a in enumerate((0.7, 0.9))] + [row("set", 0.8, s, 0.8) for s in range(2)]
    assert [r["verdict"] for r in chain(noisy)] == ["undecided"]
    assert chain([row("gmp", 0.8, 0, 0.5)]) == []


def test_one_seed_has_no_interval():
    one = [row("gmp", 0.8, 0, 0.5), row("rigl", 0.8, 0, 0.4)]
    assert summary(one)[0]["low"] is None
    assert chain(one)[0]["verdict"] == "undecided"
    assert "+10.00 points, undecided" in text(one)
    assert len(figure(one).axes) == 2


def test_forms_for_terminal_page_and_spreadsheet_hold_the_same_numbers():
    lines = list(csv.DictReader(io.StringIO(as_csv(ROWS))))
    assert len(lines) == len(summary(ROWS)) == 9
    assert float(lines[1]["accuracy"]) == summary(ROWS)[1]["accuracy"]
    assert "| gmp | 0.8 | 82.10 | 0.25 | 12.3 G | 0.500 | 4.57 k | 1,000 | 0.100 | 3 |" in markdown(ROWS)
    assert "- at 0.8: dynamic over static random by -2.00 points" in markdown(ROWS)
    widths = {len(line) for line in text(ROWS).splitlines()[:10]}
    assert len(widths) == 1


def test_the_figure_has_a_line_for_each_method_and_one_for_dense():
    fig = figure(ROWS)
    left, right = fig.axes
    assert len(right.lines) == 4 + 1
    assert [t.get_text() for t in left.get_xticklabels()] == ["80 %", "90 %"]


def test_a_row_is_measured_from_the_same_first_weights():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 1, 4, 4, generator=generator)
    data = x, (x.flatten(1).sum(1) > 0).long()
    starts = []

    def make(generator):
        model = MLP(hidden=(8,), size=4, classes=2)
        first = model.get_parameter("layers.0.weight")
        torch.nn.init.normal_(first, generator=generator)
        starts.append(first.detach().clone())
        return model

    rows = [measure(make, data, data, Recipe(epochs=2, batch=16), name=name, sparsity=0.5, seed=3)
            for name in (DENSE, "random", "sr-ste")]
    assert torch.equal(starts[0], starts[1])
    dense, sparse, nm = rows
    assert dense["train_flops"] == 2 * 16 * 3 * (16 * 8 + 8 * 2) * 8
    assert (dense["train_ratio"], dense["density"]) == (1, 1)
    assert sparse["density"] == pytest.approx(0.5)
    assert sparse["train_ratio"] == pytest.approx(sparse["inference_flops"] / dense["inference_flops"])
    assert nm["train_ratio"] > nm["inference_flops"] / dense["inference_flops"]
    assert any("stays dense" in note for note in nm["notes"])
