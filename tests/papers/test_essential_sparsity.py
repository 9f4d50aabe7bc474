import math

import pytest


def test_the_smoke_scale_measures_every_claim_and_resumes_to_the_same_rows(smoke):
    rows, claims = smoke("essential-sparsity", "emergence", "reader", "classifiers")
    read = {(r["method"], round(r["sparsity"], 3)): r["nats"] for r in rows if r["part"] == "decoder"}
    assert read["magnitude", 0.1] != read["random", 0.1]
    assert len({read[key] for key in (("N of 8", 0.5), ("N of 4", 0.5), ("Wanda", 0.5), ("magnitude", 0.5))}) == 4
    free = {r["method"]: r["nats"] for r in rows if r["part"] == "free"}
    assert claims["free-20"] == {"ours": free["magnitude"], "baseline": free["dense"]}
    assert free["dense"] != read["dense", 0.0]
    assert all(math.isfinite(v) for v in read.values())
    right = {(r["task"], r["method"], round(r["sparsity"], 1)) for r in rows if r["part"] == "encoder"}
    assert {("domain", "ticket", 0.4), ("domain", "random", 0.3), ("intent", "magnitude", 0.9)} <= right
    masks = [r for r in rows if r["part"] == "masks"]
    assert masks[1]["different"] == 0
    cosines = {r["sparsity"]: r["cosine"] for r in masks if r["method"] == "ticket"}
    assert sorted(cosines) == pytest.approx([1 - 0.6 ** (r / 4) for r in (1, 2, 3, 4)], abs=1e-3)
    assert all(1 - s < c <= 1 for s, c in cosines.items())
    counts = [r for r in rows if r["part"] == "words"]
    assert {r["step"] for r in counts} == {0, 4, 8, 12}
    assert {r["objective"] for r in rows if r["part"] == "images"} == {"classes", "hidden patches"}
