import pytest

from sparsepriors.papers import pgf_nm
from sparsepriors.priors import NM


def test_the_smoke_scale_measures_every_claim_and_resumes_to_the_same_rows(smoke):
    rows, claims = smoke("pgf-nm", "flow")
    assert claims["exact-path"] == {"ours": 1.0, "baseline": 1.0}
    assert claims["fewer-flops"]["ours"] < claims["fewer-flops"]["baseline"]
    mlp = {(r["pattern"], r["arm"]): r for r in rows if r["network"] == "mlp"}
    assert {arm for _, arm in mlp} == {"dense", *pgf_nm.arms(1, 16)}
    for (pattern, arm), row in mlp.items():
        n, m = map(int, pattern.split(":"))
        assert row["density"] == (1 if arm == "dense" else n / m)
        assert row["second_moment"] > 0
    # The chain rule needs no gradient of weights outside a hard mask, and costs less.
    for name in pgf_nm.RECIPES:
        assert mlp["1:16", f"{name} chain"]["train_ratio"] < mlp["1:16", f"{name} ste"]["train_ratio"]


@pytest.mark.parametrize("name", pgf_nm.RECIPES)
@pytest.mark.parametrize("steps", [400, 780])
def test_every_recipe_is_dense_first_and_hard_from_the_same_step(name, steps):
    plan = pgf_nm.arms(1, 16)[f"{name} ste"]
    begin, end = pgf_nm.DENSE * steps, pgf_nm.END * steps
    for step in range(steps + 1):
        if name.startswith("mdgf"):
            assert (plan.rule.beta(step, steps) == 0) == (step >= end)
            assert (plan.rule.beta(step, steps) == 1) == (step <= begin)
        else:
            event = plan.schedule.event(step, steps, plan.pattern)
            final = event is not None and event.prune == NM(1, 16)
            assert final == (step >= end) or abs(step - end) < 1   # a boundary between steps falls to either side
            assert (event is None or event.open) == (step < begin)
