import json

import pytest

from sparsepriors.papers import get, sr_ste
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


def test_every_pattern_has_the_published_arms():
    assert {name: plan is None for name, plan in sr_ste.arms(2, 4).items()} == {
        "dense": True, "one-shot": False, "STE": False, "lambda 0.0002": False, "lambda 0.002": False,
        "lambda 0.02": False, "lambda -0.002": False}
