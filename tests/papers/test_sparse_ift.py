import json

import pytest

from sparsepriors.papers import sparse_ift
from sparsepriors.runs import Scale


def test_the_smoke_scale_measures_every_claim_and_resumes_to_the_same_rows(smoke):
    rows, claims = smoke("sparse-ift", "iso-flop")
    for row in rows:
        assert 0 <= row["accuracy"] <= 1
        if row["masks"] == "none":
            assert row["density"] == 1.0
            assert row["macs_ratio"] == 1 if row["family"] == "dense" else row["macs_ratio"] > 2
        else:
            assert row["macs_ratio"] == pytest.approx(1, abs=1e-3)
            assert row["churn"] > 0 if row["masks"] in ("rigl", "set") else row["churn"] == 0
            assert row["fired"] >= row["density"] - 1e-9
            still = (row["ramanujan_first"] == row["ramanujan_last"])
            assert still == row["masks"].startswith("static")
    assert claims["same-multiply-adds"] == {"ours": 1.0, "baseline": 1.0}


def test_arms_differ_in_nothing_but_the_network_and_its_masks():
    """The recipe is a function of the network alone; every arm has its own key."""
    for sizes in sparse_ift.SIZES.values():
        arms = sparse_ift.arms(sizes)
        assert len({arm.key for arm in arms}) == len(arms)
        for network in ("mlp", "resnet"):
            recipes = {json.dumps(sparse_ift.recipe(sizes, arm.network).to_dict(), sort_keys=True)
                       for arm in arms if arm.network == network}
            assert len(recipes) == 1
    default = sparse_ift.arms(sparse_ift.SIZES[Scale.DEFAULT])
    for s in (0.5, 0.75, 0.9):
        assert {a.masks for a in default if (a.width, a.family, a.sparsity) == (16, "wide", s)} >= {"static", "rigl"}
