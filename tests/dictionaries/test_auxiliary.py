"""The loss of dead latents against its definition, in each of its variants."""

from __future__ import annotations

import pytest
import torch

from sparsepriors.dictionaries import AuxK, SparseAutoencoder
from sparsepriors.priors import TopK

D, N, B, DEAD = 8, 24, 20, 5


@pytest.mark.parametrize("aux", [AuxK(), AuxK(k=2), AuxK(k=7, normalise=False, ramp=True),
                                 AuxK(weight=0.1, k=12, pool="unchosen", normalise=False)], ids=str)
def test_the_loss_is_that_of_its_definition(aux: AuxK) -> None:
    g = torch.Generator().manual_seed(0)
    sae = SparseAutoencoder(D, N, TopK(2), aux=aux, generator=g).train()
    with torch.no_grad():
        sae.W_enc[:DEAD] *= 0.1       # too small to be chosen
        sae.b_dec.copy_(torch.randn(D, generator=g))
    sae.since_fired[:DEAD] = sae.dead_after
    x = torch.randn(B, D, generator=g)
    out = sae(x)

    pre = torch.relu((x - sae.b_dec) @ sae.W_enc.mT + sae.b_enc)
    allowed = torch.arange(N) < DEAD if aux.pool == "dead" else out.codes == 0
    room = min(D // 2 if aux.k is None else aux.k, DEAD if aux.pool == "dead" else N)
    kept = torch.where(allowed, pre, 0.0).topk(room, dim=1).indices
    codes = torch.zeros_like(pre).scatter(1, kept, torch.where(allowed, pre, 0.0).gather(1, kept))
    residual = (x - out.recon).detach()
    wanted = (residual - codes @ sae.W_dec).square().sum(dim=1).mean()
    if aux.normalise:
        wanted = wanted / (residual - residual.mean(dim=0)).square().sum(dim=1).mean()
    if aux.ramp:
        wanted = wanted * min(DEAD / room if aux.k is None else DEAD / aux.k, 1.0)
    torch.testing.assert_close(out.losses["auxiliary"], aux.weight * wanted)
    parts = (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec)
    found = torch.autograd.grad(out.losses["auxiliary"], parts, retain_graph=True)
    for one, two in zip(found, torch.autograd.grad(aux.weight * wanted, parts), strict=True):
        torch.testing.assert_close(one, two)


def test_nothing_is_lost_where_nothing_is_dead() -> None:
    sae = SparseAutoencoder(D, N, TopK(2), aux=AuxK()).train()
    assert sae(torch.randn(B, D)).losses.keys() == {"reconstruction"}
    sae.since_fired.fill_(sae.dead_after)
    assert sae.eval()(torch.randn(B, D)).losses.keys() == {"reconstruction"}


@pytest.mark.public_door
def test_bad_parameters_are_refused() -> None:
    for options, error, words in (({"weight": 0.0}, ValueError, "weight must be"), ({"k": 0}, ValueError, "k must be"),
                                  ({"dead_after": 1.5}, TypeError, "dead_after must be an integer"),
                                  ({"pool": "ded"}, ValueError, "did you mean 'dead'")):
        with pytest.raises(error, match=words):
            AuxK(**options)
