import itertools
import math

import pytest
import torch

from sparsepriors.networks.sparse.at_init import SNIPScore, XavierSNIPScore
from sparsepriors.papers import random_pruning
from sparsepriors.runs import Scale


def test_the_smoke_scale_measures_every_claim_and_resumes_to_the_same_rows(smoke):
    rows, _ = smoke("random-pruning", "width")
    for row in rows:
        for name in ("accuracy", "ece", "auroc_digits", "auroc_noise", "fgsm"):
            assert 0 <= row[name] <= 1, name
        if row["accuracy"] > 0.3:   # what has learned something is fooled by a step along the gradient
            assert row["fgsm"] < row["accuracy"]
        assert math.isfinite(row["nll"])
        if row["method"] == "dense":
            assert (row["density"], row["train_ratio"]) == (1.0, 1.0)
        else:
            assert row["live"] <= row["density"]
            assert row["train_ratio"] < 0.8
            if row["method"] != "Bernoulli":
                assert row["exact"]
                assert row["density"] == pytest.approx(row["density_asked"], abs=0.01)


def test_the_default_scale_has_an_arm_for_every_claim_and_a_key_for_every_arm():
    for scale in (Scale.SMOKE, Scale.DEFAULT, Scale.FULL):
        arms = random_pruning.arms(random_pruning.SIZES[scale])
        assert len({arm.key for arm in arms}) == len(arms)
    sizes = random_pruning.SIZES[Scale.DEFAULT]
    arms = set(random_pruning.arms(sizes))
    for width in (32, 64, 128, 256, 512):
        for method in ("dense", "ERK", "uniform"):
            assert random_pruning.Arm("mlp", width, 2, method, 1.0 if method == "dense" else 0.05) in arms
    assert random_pruning.Arm("mlp", 512, 2, "ERK", 0.1) in arms
    assert {a.method for a in arms if (a.family, a.width) == ("resnet", 16)} == {
        "dense", "ERK", "uniform", "SNIP", "SNIP ratio", "SNIP own", "SNIP ratio own"}


def test_snip_scores_redrawn_weights_as_the_published_code_does_and_own_ones_where_asked():
    for method, own in itertools.product(("SNIP", "SNIP ratio"), ("", " own")):
        plan = random_pruning.Arm("mlp", 8, 2, method + own, 0.05).plan()
        assert plan is not None
        assert type(plan.init) is (SNIPScore if own else XavierSNIPScore)



def test_counts_are_checked_layer_by_layer():
    arm = random_pruning.Arm("mlp", 8, 2, "uniform", 0.5)
    mask = torch.zeros(4, 10, dtype=torch.bool)
    mask.view(-1)[:20] = True
    assert random_pruning._exact(arm, {"a": mask})
    mask.view(-1)[:23] = True
    assert not random_pruning._exact(arm, {"a": mask})
