import json

import pytest
import torch

from sparsepriors.networks import Recipe
from sparsepriors.networks.models import model
from sparsepriors.networks.sparse import Selector, preset
from sparsepriors.papers import get
from sparsepriors.papers._arms import Arm, Bench, best, train_arms
from sparsepriors.papers._images import Drawn
from sparsepriors.priors import NM
from sparsepriors.runs import Run, Scale


def bench(generator, **options):
    def part(n):
        return torch.randn(n, 1, 4, 4, generator=generator), torch.randint(10, (n,), generator=generator)

    return Bench(Drawn(part(160), part(32), part(32)),
                 lambda: model("mlp", generator=torch.Generator().manual_seed(0), size=4, hidden=(8, 8)),
                 Recipe(epochs=2, batch=32), Selector(skip=("layers.2",)), 0, every=2, **options)


def test_an_arm_is_measured_where_the_bench_says(generator):
    arm = bench(generator, window=2).fit(NM(1, 8), preset("sr-ste", n=1, m=8))
    assert (arm["density"], arm["exact"], arm["on_path"], arm["gap"]) == (1 / 8, True, True, 0.0)
    assert arm["sad_steps"] == [2, 4, 6, 8, 10]
    assert arm["sad"] == pytest.approx(sum(arm["sad_moved"]))
    assert arm["variance"] > 0
    assert "second_moment" not in arm   # plain SGD keeps none
    dense = bench(generator).fit(NM(1, 8), None)
    assert (dense["density"], dense["train_ratio"]) == (1.0, 1.0)
    assert "variance" not in dense
    # Two masked layers of three are an eighth dense; the last one is counted as it is.
    masked, last = 4 * 4 * 8 + 8 * 8, 8 * 10
    step = 2 * (masked / 8 + last) + masked + last
    assert arm["train_ratio"] == pytest.approx(step / (3 * (masked + last)))


def test_held_out_examples_choose():
    assert best({"a": {"held": 0.5, "accuracy": 0.9}, "b": {"held": 0.6, "accuracy": 0.1}})["accuracy"] == 0.1


def test_every_arm_trains_from_the_same_weights_on_the_same_batches(generator):
    at = bench(generator)
    pattern = NM(2, 4)
    assert at.fit(pattern, None) == at.fit(pattern, None)
    assert at.fit(pattern, preset("ste"))["accuracy"] == at.fit(pattern, preset("sr-ste", lam=0.0))["accuracy"]


def test_a_table_has_every_arm_and_its_rows_the_columns_asked_for(generator, tmp_path):
    run = Run.start(get("sr-ste"), tmp_path / "run", scale=Scale.SMOKE, seed=0)
    at = bench(generator)
    arms = [Arm(at, "net", 1, 4, "all", None), Arm(at, "net", 1, 4, "some of them", preset("ste"))]
    table = train_arms(run, arms, ("accuracy", "density", "variance"))
    assert {key: row["density"] for key, row in table.items()} == {
        ("net", "1:4", "all"): 1.0, ("net", "1:4", "some of them"): 0.25}
    rows = json.loads((run.folder / "rows.json").read_text())
    assert rows == [{"network": "net", "pattern": "1:4", "arm": arm, "accuracy": row["accuracy"],
                     "density": row["density"]} for (_, _, arm), row in table.items()]
