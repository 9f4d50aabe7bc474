import math

from sparsepriors.papers import alisa
from sparsepriors.runs import Scale


def test_the_smoke_scale_measures_every_claim_and_resumes_to_the_same_rows(smoke):
    rows, claims = smoke("alisa", "budget")
    by = {(r["part"], r["method"], r.get("r")): r for r in rows}
    assert by["text", "dense", 1.0]["loss"] == 0.0
    for r in rows:
        assert all(math.isfinite(v) for v in r.values() if isinstance(v, float))
    for name in ("25%", "50%", "three phases"):
        assert by["tiers", name, 0.2]["same"] == 1.0
        assert by["tiers", name, 0.2]["offloaded_bytes"] > 0
    assert claims["phases"]["ours"] == 1.0
    assert by["tiers", "three phases", 0.2]["input_bytes"] > 0
    step = by["step", "sparse window", 0.2]
    assert step["chosen"] == 8
    assert all(step[f"{part}_us"] > 0 for part in ("dense", "sparse", "gather", "local_sum", "running_sum"))


def test_every_arm_is_read_once_and_every_claim_has_its_arms():
    for scale, sizes in alisa.SIZES.items():
        names = [(name, r) for name, r, _, _ in alisa._arms(sizes)]
        names += [(name, sizes.ratios[-1]) for name in alisa.WATCHED if name != "dense"]
        assert len(set(names)) == len(names)
        low = sizes.ratios[-1]
        needed = {(n, r) for n in ("sparse window", "local", "strided") for r in (low, 0.4)}
        assert needed | {("H2O", low), ("sinks and window", low)} <= set(names)
        assert scale is Scale.SMOKE or ("sparse window", 0.6) in names
