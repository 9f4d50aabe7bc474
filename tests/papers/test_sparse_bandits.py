import json
import math

import pytest

from sparsepriors.papers import get, sparse_bandits
from sparsepriors.runs import Run, Scale


@pytest.mark.slow
def test_the_smoke_scale_measures_every_claim_and_resumes_to_the_same_rows(smoke):
    rows, _ = smoke("sparse-bandits", "algorithms", "growth", "needle")
    for row in rows:
        right = row["case"] in ("trap", "digits", "growth") and not row.get("std")
        if right and row["algorithm"] in ("elimination", "sweep", "spanner"):
            assert row["outcome"] == "certified"
            assert row["bound_share"] <= 1
            assert row["loss"] <= row["bound"]
        if row["case"] == "trap" and row["algorithm"] == "all actions":
            assert row["loss"] == 0
            assert row["share"] == 1
    needles = [r for r in rows if r["case"] == "needle"]
    assert {r["sparsity"] for r in needles} == set(sparse_bandits.SIZES[Scale.SMOKE].needles)
    assert all(r["queries"] <= r["actions"] * (5 if r["algorithm"] == "LinUCB" else 1) for r in needles)


def test_claims_are_read_from_the_rows(tmp_path):
    """Made-up rows, for which each claim's number is known."""
    sizes = sparse_bandits.SIZES[Scale.SMOKE]

    def row(case, algorithm, **more):
        return {"case": case, "algorithm": algorithm, **more}

    rows = []
    for (d, s, _), loss in zip(sparse_bandits.PROBLEMS, (1.0, 2.0, 0.0, 3.0), strict=True):
        rows += [row("trap", "elimination", dim=d, sparsity=s, std=0.0, loss=loss, share=0.01 * d),
                 row("trap", "least squares", dim=d, sparsity=s, std=0.0, loss=7.0),
                 row("trap", "spanner", dim=d, sparsity=s, std=0.0, bound_share=0.5),
                 row("trap", "spanner", dim=d, sparsity=s, std=0.1, bound_share=9.0)]
    rows.append(row("digits", "elimination", loss=3.5, share=0.02))
    for d in sizes.dims:
        for algorithm, loss in (("elimination", 1.0), ("least squares", 0.1 * d), ("l1 recovery", 0.01 * d)):
            rows.append(row("growth", algorithm, dim=d, loss=loss, queries=d**2))
        rows.append(row("signs", "l1 recovery", dim=d, loss=0.03 * d))
    for s in sizes.needles:
        rows += [row("needle", a, sparsity=s, actions=math.exp(s), queries=math.exp(s * rate))
                 for a, rate in (("elimination", 0.9), ("LinUCB", 1.0), ("any order", 0.8))]
        rows.append(row("needle, relaxed", "spanner", sparsity=s, queries=s, bound_share=0.7))
    rows += [row("noisy", "elimination", bound_share=b) for b in (0.5, 1.5, 0.2, 1.0)] + [row("noisy", "elimination")]
    rows += [row("sparsity 2 for 3", "elimination"), row("sparsity 2 for 3", "elimination", bound_share=1.1)]

    run = Run.start(get("sparse-bandits"), tmp_path / "run", scale=Scale.SMOKE, seed=0)
    sparse_bandits._claims(run, rows, sizes)
    claims = json.loads((run.folder / "claims.json").read_text())
    expected = {
        "certificate": (3.5, 4), "two-epsilon": (1.5, 2), "few-queries": (1.0, 0.05), "digits-few": (0.02, 0.05),
        "dense-100-1": (7, 3), "dense-50-2": (7, 6), "dense-30-2": (7, 0), "dense-16-3": (7, 9),
        "queries-in-d": (2, 1.3), "error-flat-in-d": (1, 1), "dense-grows": (10, 3.6), "good-features": (3, 0.6),
        "unit-features": (1, 0.2), "needle-grows": (1, 0.9), "needle-rate": (0.8, math.log(1.2)),
        "needle-third": (math.exp(-0.2 * 12), 1 / 3), "relaxed-bound": (0.7, 1),
        "relaxed-queries": (12, math.exp(0.9 * 12)), "noise": (0.4, 0.05), "wrong-sparsity": (0.5, 0)}
    assert {k: (v["ours"], v["baseline"]) for k, v in claims.items()} == {
        k: pytest.approx(v) for k, v in expected.items()}
