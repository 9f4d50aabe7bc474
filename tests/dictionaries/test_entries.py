"""Codes by their entries compute what dense codes do, gradients included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparsepriors.dictionaries import AuxK, SparseAutoencoder, autoencoder
from sparsepriors.priors import BatchTopK, Matryoshka, Prior, TopK


def results(prior: Prior, x: Tensor, **options: object) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Losses, gradients and codes of a training batch with dead latents."""
    g = torch.Generator().manual_seed(1)
    sae = SparseAutoencoder(10, 40, prior, aux=AuxK(k=3, dead_after=5), generator=g, **options)
    with torch.no_grad():
        sae.b_dec.copy_(0.1 * torch.randn(10, generator=g))
        sae.b_enc.copy_(0.1 * torch.randn(40, generator=g))
    sae.since_fired[:12] = 7
    x = x.clone().requires_grad_()
    out = sae.train()(x)
    out.loss.backward()
    grads = {name: p.grad for name, p in [*sae.named_parameters(), ("x", x)] if p.grad is not None}
    assert len(grads) == 5
    return out.losses, grads, out.codes.detach()


@pytest.mark.parametrize("options", [{}, {"subtract_bias": False, "unit_norm": False, "rank_by_norm": True}],
                         ids=["unit", "free"])
@pytest.mark.parametrize("prior", [TopK(3), BatchTopK(2.5), Matryoshka(BatchTopK(3), (5, 20))],
                         ids=lambda p: type(p).__name__)
def test_entries_and_dense_codes_agree(prior: Prior, options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(30, 10, generator=torch.Generator().manual_seed(0))
    losses, grads, codes = results(prior, x, **options)
    monkeypatch.setattr(autoencoder, "_FEW", 0.0)     # now nothing is few
    dense_losses, dense_grads, dense_codes = results(prior, x, **options)
    torch.testing.assert_close(codes, dense_codes)
    assert losses.keys() == dense_losses.keys() == {"reconstruction", "auxiliary"}
    for name, value in losses.items():
        torch.testing.assert_close(value, dense_losses[name])
    for name, grad in grads.items():
        torch.testing.assert_close(grad, dense_grads[name], msg=lambda m, name=name: f"{name}: {m}")


def test_the_codes_of_an_output_carry_gradients() -> None:
    sae = SparseAutoencoder(10, 40, TopK(3), generator=torch.Generator().manual_seed(1)).train()
    out = sae(torch.randn(5, 6, 10, generator=torch.Generator().manual_seed(0)))
    assert out.entries is not None
    assert out.codes.shape == (5, 6, 40)
    assert out.l0 == float((out.codes > 0).sum()) / 30
    out.codes.sum().backward()
    fired = (out.codes > 0).reshape(-1, 40).any(dim=0)
    assert torch.equal((sae.b_enc.grad != 0), fired)


def test_latents_count_for_nothing_where_no_score_is_positive() -> None:
    sae = SparseAutoencoder(4, 16, TopK(2), generator=torch.Generator().manual_seed(0)).train()
    with torch.no_grad():
        sae.b_enc.fill_(-100.0)
    out = sae(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)))
    assert out.l0 == 0
    sae.observe(out)
    assert sae.since_fired.tolist() == [6] * 16
    torch.testing.assert_close(out.recon, sae.b_dec.expand(6, 4))
