import math

import pytest
import torch

from sparsepriors.papers import mustafar
from sparsepriors.priors import PerTokenMagnitude


def test_the_smoke_scale_measures_every_claim_and_resumes_to_the_same_rows(smoke):
    rows, _ = smoke("mustafar", "bytes")
    by = {(r["part"], r["method"], r["side"], r["sparsity"]): r for r in rows}
    assert by["text", "magnitude", "both", 0.7]["bytes_share"] < by["text", "magnitude", "both", 0.5]["bytes_share"] < 1
    assert by["text", "dense", "both", 0.0]["tokens"] == 64
    assert by["text", "ALISA", "tokens", 0.7]["bytes_share"] == pytest.approx(0.3)   # of fast memory
    assert by["text", "published counts", "both", 0.5]["nats"] != by["text", "magnitude", "both", 0.5]["nats"]
    assert by["generation", "magnitude", "both", 0.0]["agreement"] == 1.0
    for row in rows:
        if row["part"] == "kernel":
            assert row["error"] < 0.02   # of 16-bit results
        if row["part"] == "text":
            assert math.isfinite(row["nats"])


def test_every_arm_has_a_key_of_its_own_and_every_claim_its_arms():
    for sizes in mustafar.SIZES.values():
        arms = mustafar.arms(sizes)
        keys = {arm.key for arm in arms}
        assert len(keys) == len(arms)
        assert {"magnitude-keys-0.5", "ThinK-keys-0.7", "per-channel-output-aware-values-0.7", "magnitude-both-0.7",
                "dense-both-0"} <= keys


def test_random_entries_are_as_many_as_the_largest(generator):
    x = torch.randn(2, 3, 5, 64, generator=generator)
    kept = mustafar.RandomEntries(0.3).prune(x) != 0
    assert (kept.sum(-1) == 19).all()
    assert not torch.equal(kept, PerTokenMagnitude(0.3).prune(x) != 0)
