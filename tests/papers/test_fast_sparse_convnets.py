import pytest
import torch

from sparsepriors.networks.sparse import sparsity_report
from sparsepriors.papers import fast_sparse_convnets, get
from sparsepriors.runs import Run, Scale


def test_the_smoke_scale_measures_every_claim_and_resumes_to_the_same_rows(smoke):
    rows, claims = smoke("fast-sparse-convnets", "speed")
    assert claims["same-answers"] == {"ours": 1.0, "baseline": 1.0}
    trained = [r for r in rows if r["part"] == "training"]
    assert len(trained) == 4
    dense = {r["width"]: r["multiply_adds"] for r in trained if r["density"] == 1}
    for row in trained:
        assert row["multiply_adds"] == pytest.approx(dense[row["narrow"]], rel=0.01)
    assert all(r["packed"] > 5 for r in rows if r["part"] == "network")


@pytest.mark.parametrize(("narrow", "wide"), fast_sparse_convnets.PAIRS)
def test_wide_networks_are_pruned_to_the_multiply_adds_of_narrow_ones(narrow, wide, tmp_path):
    run = Run.start(get("fast-sparse-convnets"), tmp_path / "run", scale=Scale.SMOKE, seed=3)
    small, large = (fast_sparse_convnets._network(w, run) for w in (narrow, wide))
    x = torch.zeros(1, 1, 14, 14)
    density = fast_sparse_convnets._density(large, sparsity_report(small, example=x).macs_dense, x)
    assert 0.03 < density < 0.5


def test_random_weights_have_equally_many_in_every_block(generator):
    weight = fast_sparse_convnets._weight(12, 50, 0.9, 4, generator)
    kept = (weight != 0).reshape(3, 4, 50)
    assert (kept.all(dim=1) == kept.any(dim=1)).all()
    assert kept.any(dim=1).sum(dim=1).tolist() == [5, 5, 5]
