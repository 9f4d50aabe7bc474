"""Autoencoders by matching pursuit: the prior's contract, training, any number of steps afterwards, peers."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from sparsepriors.dictionaries import MatchingPursuit, SparseAutoencoder, encode_path, fit
from sparsepriors.dictionaries.learning import random_atoms
from sparsepriors.priors import NonNegative, TopK
from sparsepriors.solvers import matching_pursuit
from sparsepriors.testing import check_prior
from sparsepriors.testing.prior import PriorCase

# `_encode_matching_pursuit` of sae-lens 6.54.12 on these atoms and signals, by (tolerance, steps, stop at repeats).
ATOMS = torch.nn.functional.normalize(torch.sin(torch.arange(1.0, 37).square() * 0.37).reshape(12, 3), dim=1)
SIGNALS = torch.cos(torch.arange(1.0, 13).square() * 0.53).reshape(4, 3)
ALL = ({2: 0.09542, 4: 0.274474, 6: 0.958518}, {4: 0.275255, 6: 0.084878, 10: 1.340559},
       {2: 0.365495, 4: 0.660611, 9: 0.792742}, {1: 0.995275, 3: 0.347013, 8: 0.363797})
SAE_LENS = {(0.0, 3, False): ALL, (0.0, None, True): ALL, (0.05, None, True): ALL,
            (0.4, None, False): ({6: 0.958518}, {10: 1.340559}, ALL[2], {1: 0.995275, 8: 0.363797})}


@pytest.mark.public_door
@pytest.mark.parametrize("prior", [MatchingPursuit(2, dims=1), MatchingPursuit(None, tol=0.1),
                                   MatchingPursuit(2, nonneg=False, dims=1)], ids=repr)
def test_contract(prior) -> None:
    assert len(check_prior(PriorCase(prior, (3, 5)))) >= 10


@pytest.mark.parametrize("settings", SAE_LENS, ids=str)
def test_codes_are_those_of_sae_lens(settings) -> None:
    tol, steps, stop = settings
    wanted = torch.zeros(4, 12)
    for row, codes in zip(wanted, SAE_LENS[settings], strict=True):
        for j, value in codes.items():
            row[j] = value
    prior = MatchingPursuit(steps, tol=tol, stop_on_repeat=stop)
    torch.testing.assert_close(prior.pursue(SIGNALS, ATOMS), wanted, rtol=0, atol=2e-6)


@pytest.mark.skipif(importlib.util.find_spec("sae_lens") is None, reason="sae-lens is not installed")
def test_codes_are_those_of_the_sae_lens_that_is_installed() -> None:
    from sae_lens.saes.matching_pursuit_sae import (  # pyright: ignore[reportMissingImports]  the guard above
        _encode_matching_pursuit,
    )

    g = torch.Generator().manual_seed(0)
    x, atoms = torch.randn(50, 16, generator=g), random_atoms(64, 16, g)
    for tol, steps, stop in SAE_LENS:
        theirs = _encode_matching_pursuit(x, atoms, tol, steps, stop)
        ours = MatchingPursuit(steps, tol=tol, stop_on_repeat=stop).pursue(x, atoms)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_training_finds_a_planted_dictionary_and_more_steps_leave_less() -> None:
    g = torch.Generator().manual_seed(0)
    atoms = random_atoms(12, 8, g)
    x = ((torch.rand(2000, 12, generator=g) < 0.15) * (1 + torch.rand(2000, 12, generator=g))) @ atoms
    sae = SparseAutoencoder(8, 16, MatchingPursuit(3), generator=g)
    fit(sae, x, steps=150, batch=100, lr=2e-2, bias=None)
    found = sae.W_dec.detach()
    torch.testing.assert_close(found.norm(dim=1), torch.ones(16))
    assert float((found @ atoms.mT).amax(dim=0).median()) > 0.95
    left = [float(encode_path(sae, x, steps=k).residual.square().sum()) for k in (1, 2, 3, 5, 8)]
    assert all(b < a for a, b in zip(left, left[1:], strict=False))
    assert torch.equal(encode_path(sae, x).codes, sae.encode(x))


def test_parts_of_codes_give_the_loss_and_the_gradients_of_whole_codes(monkeypatch) -> None:
    found = []
    for whole in (False, True):
        sae = SparseAutoencoder(6, 9, MatchingPursuit(7), generator=torch.Generator().manual_seed(0)).double()
        x = torch.randn(11, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        x[3] = 0
        if whole:
            monkeypatch.setattr(MatchingPursuit, "chosen", lambda *a, **k: None)
        out = sae.train()(x)
        assert (out.entries is None) == whole
        assert bool((encode_path(sae, x).steps > (out.codes != 0).sum(dim=1)).any())   # some atoms are taken again
        out.loss.backward()
        found.append((out.codes, out.recon, out.loss, sae.W_dec.grad, sae.b_dec.grad))
    torch.testing.assert_close(found[0], found[1])


def test_paths_are_those_of_scaled_and_centred_signals_and_survive_a_file(tmp_path) -> None:
    sae = SparseAutoencoder(6, 20, MatchingPursuit(None, tol=0.3), generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 5, 6)
    sae.b_dec.data += 0.1
    sae.input_scale.fill_(0.5)
    path = encode_path(sae, x)
    assert path.atoms.shape[:2] == (2, 5)
    torch.testing.assert_close(path.residual, matching_pursuit(0.5 * x - sae.b_dec, sae.W_dec, 6, tol=0.3).residual)
    torch.testing.assert_close(sae.decode(path.codes), x - 2 * path.residual)
    again = SparseAutoencoder.load(sae.save(tmp_path))
    assert again.prior == sae.prior
    codes = sae.encode(x)
    sae.finalize()
    torch.testing.assert_close(sae.encode(x), 2 * codes)


@pytest.mark.public_door
@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda: MatchingPursuit(0), ValueError, "steps"), (lambda: MatchingPursuit(None), ValueError, "no end"),
    (lambda: MatchingPursuit(2, tol=-1.0), ValueError, "tol"),
    (lambda: MatchingPursuit(2).value(torch.tensor(1.0)), ValueError, "axis of latents"),
    (lambda: encode_path(SparseAutoencoder(4, 8, TopK(2)), torch.ones(3, 4)), TypeError, "MatchingPursuit"),
    (lambda: encode_path(SparseAutoencoder(4, 8, NonNegative()), torch.ones(3, 4)), TypeError, "NonNegative"),
    (lambda: encode_path(SparseAutoencoder(4, 8, MatchingPursuit(2)), torch.ones(3, 5)), ValueError, "x must have"),
    (lambda: encode_path(SparseAutoencoder(4, 8, MatchingPursuit(2)), torch.ones(3, 4), 0), ValueError, "steps"),
])
def test_bad_arguments_are_named(call, error, words) -> None:
    with pytest.raises(error, match=words):
        call()
