"""Measures in pieces are those of all signals at once."""

from __future__ import annotations

import pytest
import torch

from sparsepriors.dictionaries import SparseAutoencoder, evaluate, write_shards
from sparsepriors.dictionaries.activations import ActivationShards
from sparsepriors.dictionaries.metrics import dead_share, fvu, l0
from sparsepriors.priors import L1, Prior, TopK


@pytest.mark.parametrize("prior", [TopK(2), L1(0.1)], ids=lambda p: type(p).__name__)
def test_pieces_add_up(prior: Prior, tmp_path) -> None:
    g = torch.Generator().manual_seed(0)
    sae, x = SparseAutoencoder(6, 40, prior, generator=g), 3 + torch.randn(70, 6, generator=g)
    found = evaluate(sae.train(), x, batch=16)
    with torch.no_grad():
        codes, recon = sae.encode(x), sae.decode(sae.encode(x))
    assert found.samples == 70
    assert found.fvu == pytest.approx(fvu(x, recon), rel=1e-6)
    assert found.r2 == 1 - found.fvu
    assert found.l0 == pytest.approx(l0(codes))
    assert found.dead == pytest.approx(dead_share(codes))
    assert found.cosine == pytest.approx(float(torch.nn.functional.cosine_similarity(x, recon, dim=1).mean()), rel=1e-5)
    shards = ActivationShards(write_shards(tmp_path / "shards", [x], rows=30))
    assert evaluate(sae, shards, batch=16) == found


def test_what_cannot_be_measured_is_refused() -> None:
    sae = SparseAutoencoder(6, 40, TopK(2))
    with pytest.raises(ValueError, match="at least one row"):
        evaluate(sae, torch.empty(0, 6))
    with pytest.raises(ValueError, match="must not all be equal"):
        evaluate(sae, torch.ones(5, 6))
