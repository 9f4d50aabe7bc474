import pytest
import torch

from sparsepriors.papers import get, random_search
from sparsepriors.runs import Run, Scale


@pytest.mark.slow
def test_the_smoke_scale_measures_every_claim_and_resumes_to_the_same_rows(smoke):
    rows, _ = smoke("random-search", "search")
    compared = [r for r in rows if "edge_sparsity" in r]
    assert {r["arm"] for r in compared} == {"searched", "random", "worst", "SNIP nodes"}
    for row in compared:
        assert row["edge_sparsity"] > row["sparsity"] - 0.05
        assert row["rejected"] == 0
    best = [r["initial_loss"] for r in rows if r["arm"].startswith("best of")]
    assert best == sorted(best, reverse=True)
    assert len([r for r in rows if "untrainable" in r]) == random_search.SIZES[Scale.SMOKE].draws


def test_every_arm_of_a_seed_has_the_same_parent_and_the_same_batches(tmp_path):
    run = Run.start(get("random-search"), tmp_path / "run", scale=Scale.SMOKE, seed=3)
    bench = random_search._bench(run, random_search.SIZES[Scale.SMOKE])
    again = random_search._bench(run, random_search.SIZES[Scale.SMOKE])
    assert torch.equal(bench.train[0], again.train[0])
    assert all(torch.equal(a, b) for a, b in zip(bench.parent().parameters(), again.parent().parameters(),
                                                 strict=True))
    space = random_search.NodeSpace(0.5)
    masks = space.draw(bench.parent(), torch.Generator().manual_seed(1))
    assert bench.fit(space, masks) == again.fit(space, masks)


def test_the_planted_parent_has_dead_nodes_that_the_oracle_avoids(tmp_path, monkeypatch):
    run = Run.start(get("random-search"), tmp_path / "run", scale=Scale.SMOKE, seed=0)
    bench = random_search._bench(run, random_search.SIZES[Scale.SMOKE])
    alive = []

    def fit(self, space, masks, epochs=1, parent=None):
        small = space.subnetwork(parent, masks).model
        alive.append(min(float((layer.weight != 0).any(1).double().mean()) for layer in small.layers[:-1]))
        return {"accuracy": alive[-1]}

    monkeypatch.setattr(random_search.Bench, "fit", fit)
    found = random_search._planted(bench)
    assert found["oracle"] == 1
    assert found["random"] < 1
