import json

import pytest
import torch

from sparsepriors.networks import Recipe
from sparsepriors.networks.models import model
from sparsepriors.networks.sparse import Selector, preset
from sparsepriors.papers import get, sr_ste
from sparsepriors.papers._nm import Bench, Examples3, best, examples
from sparsepriors.priors import NM
from sparsepriors.runs import Run, Scale


@pytest.fixture
def experiment():
    return get("sr-ste")


def test_the_smoke_scale_measures_every_claim_and_resumes_to_the_same_rows(experiment, tmp_path):
    def once(resume):
        run = Run.start(experiment, tmp_path / "run", scale=Scale.SMOKE, seed=0, resume=resume)
        experiment.run(Scale.SMOKE, 0, run)
        return [json.loads((run.folder / name).read_text()) for name in ("rows.json", "claims.json")]

    rows, claims = once(resume=False)
    assert set(claims) == {c.id for c in experiment.paper.claims}
    assert once(resume=True) == [rows, claims]
    assert (tmp_path / "run" / "figures" / "sad.png").stat().st_size > 10_000
    assert claims["exact"] == {"ours": 1.0, "baseline": 1.0}
    for row in rows:
        n, m = map(int, row["pattern"].split(":"))
        assert row["density"] == (1 if row["arm"] == "dense" else n / m)
        assert row["train_ratio"] <= 1
    sad = {(r["pattern"], r["arm"]): r["sad"] for r in rows if r["network"] == "mlp"}
    assert all(value > 0 for value in sad.values())
    assert sad["1:4", "lambda -0.002"] >= sad["1:4", "lambda 0.02"]


def test_the_examples_of_a_seed_do_not_overlap_and_are_drawn_by_it_alone(experiment, tmp_path):
    def drawn(seed, folder):
        run = Run.start(experiment, tmp_path / folder, scale=Scale.SMOKE, seed=seed)
        return examples(run, "digits8", shrink=1, train=900, held=500, test=100)

    a, again, other = drawn(1, "a"), drawn(1, "b"), drawn(2, "c")
    assert torch.equal(a.train[0], again.train[0])
    assert torch.equal(a.test[1], again.test[1])
    assert not torch.equal(a.train[0], other.train[0])
    pictures = {bytes(x.numpy().data) for x in a.train[0]}
    assert not pictures & {bytes(x.numpy().data) for x in a.held[0]}
    assert [len(part[1]) for part in (a.train, a.held, a.test)] == [900, 500, 100]


def bench(generator, **options):
    def part(n):
        return torch.randn(n, 1, 4, 4, generator=generator), torch.randint(10, (n,), generator=generator)

    return Bench(Examples3(part(160), part(32), part(32)),
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
    assert {name: plan is None for name, plan in sr_ste.arms(2, 4).items()} == {
        "dense": True, "one-shot": False, "STE": False, "lambda 0.0002": False, "lambda 0.002": False,
        "lambda 0.02": False, "lambda -0.002": False}
