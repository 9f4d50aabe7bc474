import pytest

from sparsepriors.papers import prune_decoder
from sparsepriors.priors import NM, Unstructured
from sparsepriors.runs import Scale


def test_the_smoke_scale_measures_every_claim_and_resumes_to_the_same_rows(smoke):
    rows, claims = smoke("prune-decoder", "perplexity", "calibration")
    read = {(r["method"], r["pattern"]): r for r in rows if "part" not in r}
    assert len(read) == 1 + 3 + 2 * 2
    for (_, pattern), row in read.items():
        share = 0.0 if pattern == "dense" else 0.5 if ":" in pattern else int(pattern) / 100
        assert row["sparsity"] == pytest.approx(share, abs=0.02)
        assert row["nats"] > 0
    packed = next(r for r in rows if r.get("part") == "packed")
    assert packed["bytes"] < packed["bytes_dense"] <= packed["model_bytes_dense"]
    assert packed["model_bytes_dense"] - packed["model_bytes"] == packed["bytes_dense"] - packed["bytes"]
    assert packed["zeros_nats"] == read[prune_decoder.PACKED]["nats"]
    assert claims["packed-reads-alike"]["ours"] == pytest.approx(claims["packed-reads-alike"]["baseline"], abs=0.01)
    costs = {(r["method"], r["windows"]): r["cost"] for r in rows if r.get("part") == "calibration"}
    assert set(costs) == {(m, n) for m in ("Wanda", "SparseGPT") for n in (1, 2)}
    assert costs["SparseGPT", 1] != costs["SparseGPT", 2]


def test_methods_compare_the_weights_that_their_papers_compare():
    assert prune_decoder.pattern_of("30", "Wanda") == Unstructured(0.7, dims=1)
    assert prune_decoder.pattern_of("30", "SparseGPT") == Unstructured(0.7)
    assert prune_decoder.pattern_of("4:8", "Wanda") == NM(4, 8)


@pytest.mark.parametrize("scale", list(Scale))
def test_every_seed_measures_what_the_claims_ask_for(scale):
    sizes = prune_decoder.SIZES[scale]
    later = set(prune_decoder.arms(sizes, first=False))
    assert later == {(m, p) for m in prune_decoder.METHODS for p in prune_decoder.JUDGED}
    assert later <= set(prune_decoder.arms(sizes, first=True))
