import pytest
import torch

from sparsepriors import _files
from sparsepriors.papers import random_supports
from sparsepriors.runs import Experiment, Run, Scale


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    experiment = Experiment(random_supports.PAPER, random_supports.run)
    folder = tmp_path_factory.mktemp("random-supports") / "run"
    random_supports.run(Scale.SMOKE, 0, Run.start(experiment, folder, scale=Scale.SMOKE, seed=0))
    return experiment, folder


def test_smoke_measures_every_claim_and_resumes_to_the_same_bits(measured):
    experiment, folder = measured
    rows, claims = (_files.read_json(folder / f"{name}.json") for name in ("rows", "claims"))
    assert set(claims) == {c.id for c in random_supports.PAPER.claims}
    random_supports.run(Scale.SMOKE, 0, Run.start(experiment, folder, scale=Scale.SMOKE, seed=0, resume=True))
    assert _files.read_json(folder / "rows.json") == rows
    assert len(list((folder / "figures").glob("*.png"))) == 2


def test_the_tree_is_cheap_afterwards_and_the_oracle_is_the_best(measured):
    rows = _files.read_json(measured[1] / "rows.json")
    tree = next(r for r in rows if r.get("design") == "tree" and "cost_95" in r)
    assert tree["cost_95"] < 0.1 * tree["cost_95_before"]
    for name in ("clusters", "tree"):
        errors = {r["method"]: r["error"] for r in rows if r.get("design") == name and "method" in r}
        assert set(errors) == set(random_supports.METHODS)
        assert errors["oracle"] <= 2 * min(errors.values())
        assert errors["lasso, best strength"] <= errors["lasso"]


def test_the_same_noise_is_judged_for_every_method():
    generator = torch.Generator().manual_seed(0)
    X = random_supports.tree_design(60, 40, generator=generator)
    bench = random_supports.Bench.of(X, 3, generator)
    f, y = bench.response(torch.tensor([3, 8, 20]), generator)
    assert float(f.square().mean()) == pytest.approx(1.0)
    assert float((y - f).std()) == pytest.approx(random_supports.NOISE, rel=0.3)
