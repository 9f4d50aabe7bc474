from sparsepriors.papers import sr_ste


def test_the_smoke_scale_measures_every_claim_and_resumes_to_the_same_rows(smoke):
    rows, claims = smoke("sr-ste", "sad")
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
