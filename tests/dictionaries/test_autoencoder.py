"""Sparse autoencoders: what they compute, how they fold and save, and what they refuse."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from sparsepriors.dictionaries import AuxK, Crosscoder, SparseAutoencoder
from sparsepriors.priors import L1, BatchTopK, JumpReLU, LogSum, Matryoshka, Prior, TopK

PRIORS = [TopK(3), BatchTopK(2.5), JumpReLU(0.3), L1(0.1), LogSum(0.1, 0.5), Matryoshka(BatchTopK(2.5), (4, 9)),
          Matryoshka(L1(0.1), draws=2)]


def made(prior: Prior, **options: object) -> SparseAutoencoder:
    """A small autoencoder whose thresholds have been learned and whose biases are not zero."""
    g = torch.Generator().manual_seed(3)
    sae = SparseAutoencoder(6, 16, prior, generator=g, **options)
    with torch.no_grad():
        sae.b_dec.copy_(torch.randn(6, generator=g))
        if sae.b_enc is not None:
            sae.b_enc.copy_(0.1 * torch.randn(16, generator=g))
    sae.observe(sae.train()(signals(), generator=g))
    return sae.eval()


def signals(n: int = 40) -> Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("prior", PRIORS, ids=lambda p: type(p).__name__)
def test_forward_is_encode_then_decode_and_losses_add_up(prior: Prior) -> None:
    sae, x = made(prior), signals()
    with torch.no_grad():
        out = sae(x.reshape(4, 10, 6))
        torch.testing.assert_close(out.codes, sae.encode(x).reshape(4, 10, 16))
        torch.testing.assert_close(out.recon, sae.decode(out.codes))
    assert bool((out.codes >= 0).all())
    torch.testing.assert_close(out.loss, torch.stack(list(out.losses.values())).sum())
    torch.testing.assert_close(out.losses["reconstruction"], (out.recon.reshape(x.shape) - x).square().sum(1).mean())


@pytest.mark.parametrize("prior", PRIORS, ids=lambda p: type(p).__name__)
def test_a_subset_of_latents_has_the_codes_of_all(prior: Prior) -> None:
    sae, x = made(prior), signals()
    some = torch.tensor([7, 0, 12])
    with torch.no_grad():
        torch.testing.assert_close(sae.encode(x, some), sae.encode(x)[:, some])


@pytest.mark.parametrize("prior", PRIORS, ids=lambda p: type(p).__name__)
def test_finalize_folds_the_input_scale(prior: Prior) -> None:
    sae, x = made(prior), signals()
    sae.input_scale.fill_(2.5)
    with torch.no_grad():
        recon, codes = sae(x).recon, sae.encode(x)
        sae.finalize()
        assert float(sae.input_scale) == 1
        torch.testing.assert_close(sae.encode(x), codes / 2.5)
        torch.testing.assert_close(sae(x).recon, recon)


@pytest.mark.parametrize("prior", PRIORS, ids=lambda p: type(p).__name__)
def test_save_and_load_give_the_same_bits(prior: Prior, tmp_path) -> None:
    sae, x = made(prior, aux=AuxK(k=2), rank_by_norm=True, unit_norm=False, decoder_norm=0.5), signals()
    sae.save(tmp_path / "sae", {"model": "none"})
    again = SparseAutoencoder.load(tmp_path / "sae")
    assert again.config() == sae.config()
    assert torch.equal(again.encode(x), sae.encode(x))
    for name, kept in sae.state_dict().items():
        assert torch.equal(again.state_dict()[name], kept)


def test_batch_topk_keeps_k_for_each_sample_on_average_and_then_compares_with_its_threshold() -> None:
    sae, x = made(BatchTopK(2.5)), signals()
    codes = sae.encode(x, batch_wise=True).detach()
    assert int((codes > 0).sum()) == 100
    threshold = float(codes[codes > 0].min())
    assert float(sae.state["threshold"]) == pytest.approx(threshold, rel=1e-6)
    alone = torch.cat([sae.encode(row[None]) for row in x])
    torch.testing.assert_close(alone, sae.encode(x))


def test_ranking_by_norm_does_not_depend_on_how_code_and_atom_share_the_scale() -> None:
    sae, x = made(TopK(3), rank_by_norm=True, unit_norm=False), signals()
    with torch.no_grad():
        recon = sae(x).recon
        factor = torch.linspace(0.3, 3, 16)
        sae.W_dec.mul_(factor[:, None])
        sae.W_enc.div_(factor[:, None])
        sae.b_enc.div_(factor)
        torch.testing.assert_close(sae(x).recon, recon)


def test_a_matryoshka_averages_errors_and_penalties_over_its_prefixes() -> None:
    sae, x = made(Matryoshka(L1(0.3), (4, 9)), unit_norm=False, decoder_norm=2.0), signals()
    with torch.no_grad():
        out = sae.train()(x)
        recons = [out.codes[:, :p] @ sae.W_dec[:p] + sae.b_dec for p in (4, 9, 16)]
        errors = [(r - x).square().sum(dim=1).mean() for r in recons]
        penalties = [0.3 * 2.0 * out.codes[:, :p].sum(dim=1).mean() for p in (4, 9, 16)]
    torch.testing.assert_close(out.losses["reconstruction"], torch.stack(errors).mean())
    torch.testing.assert_close(out.losses["sparsity"], torch.stack(penalties).mean())
    torch.testing.assert_close(out.recon, recons[-1])


def test_dead_latents_get_gradients_from_the_auxiliary_loss_only() -> None:
    sae, x = made(TopK(1), aux=AuxK(k=3, dead_after=100)), signals()
    with torch.no_grad():
        sae.W_enc[:4] *= 0.1    # too low to be chosen
        sae.b_enc[:4] = 0.0
    sae.since_fired.zero_()[:4] = 100
    sae.train()
    out = sae(x)
    assert not bool((out.codes[:, :4] > 0).any())
    assert bool((out.pre_codes[:, :4] > 0).any(dim=0).all())
    parts = (sae.W_enc, sae.b_enc, sae.W_dec)
    alone = torch.autograd.grad(out.losses["reconstruction"], parts, retain_graph=True)
    assert not any(bool(g[:4].any()) for g in alone)
    both = torch.autograd.grad(out.loss, parts)
    assert all(bool(g[:4].reshape(4, -1).any(dim=1).all()) for g in both)
    for one, two in zip(alone, both, strict=True):
        torch.testing.assert_close(one[4:], two[4:])


@pytest.mark.public_door
@pytest.mark.parametrize(("options", "error", "words"), [
    ({"d_in": 0}, ValueError, "d_in must be at least 1"),
    ({"n_latents": 2.0}, TypeError, "n_latents must be an integer"),
    ({"prior": "topk"}, TypeError, "prior must be a Prior"),
    ({"aux": 0.1}, TypeError, "aux must be an AuxK"),
    ({"decoder_norm": 0.1}, ValueError, "decoder_norm must be 1"),
])
def test_bad_architectures_are_refused(options, error, words) -> None:
    with pytest.raises(error, match=words):
        SparseAutoencoder(**{"d_in": 6, "n_latents": 16, **options})


@pytest.mark.public_door
def test_bad_signals_are_refused() -> None:
    sae, x = made(TopK(3)), signals()
    with pytest.raises(ValueError, match=r"x must have shape \(..., 6\), got \(40, 5\)"):
        sae.encode(x[:, :5])
    with pytest.raises(ValueError, match="x holds NaN"):
        sae(torch.where(x > 2, torch.nan, x))
    with pytest.raises(TypeError, match=r"x must be torch\.float32"):
        sae.encode(x.double())
    with pytest.raises(ValueError, match=r"codes must have shape \(..., 16\)"):
        sae.decode(x)
    with pytest.raises(ValueError, match="latents must be from 0 to 15, got 0 to 16"):
        sae.encode(x, torch.tensor([0, 16]))
    fresh = SparseAutoencoder(6, 16, BatchTopK(2))
    with pytest.raises(RuntimeError, match="no threshold yet"):
        fresh.encode(x)
    with pytest.raises(RuntimeError, match="no threshold yet"):
        fresh.finalize()


def test_a_folder_of_another_class_is_refused(tmp_path) -> None:
    made(TopK(3)).save(tmp_path)
    with pytest.raises(ValueError, match="holds a SparseAutoencoder, not a Crosscoder"):
        Crosscoder.load(tmp_path)
    with pytest.raises(TypeError, match="needs another name"):
        type("Crosscoder", (SparseAutoencoder,), {"__module__": "elsewhere"})


def test_damaged_folders_are_refused(tmp_path) -> None:
    made(TopK(3)).save(tmp_path)
    weights, cfg = tmp_path / "weights.safetensors", tmp_path / "cfg.json"
    whole, text = weights.read_bytes(), cfg.read_text()
    weights.write_bytes(whole[:-8])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        SparseAutoencoder.load(tmp_path)
    weights.write_bytes(whole)
    for change, words in (({"architecture": "SparseAutoencodr"}, "did you mean 'SparseAutoencoder'"),
                          ({"n_latents": 8}, "does not hold a whole"), ({"surprise": 1}, "does not hold a whole"),
                          ({"prior": {"kind": "TopKK"}}, "unknown Prior 'TopKK'"),
                          ({"format": "other"}, "does not describe an autoencoder")):
        cfg.write_text(json.dumps({**json.loads(text), **change}))
        with pytest.raises(ValueError, match=words):
            SparseAutoencoder.load(tmp_path)
