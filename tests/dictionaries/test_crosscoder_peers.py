"""What the published code computes from the same weights, frozen in ``crosscoder_numbers.json``.

Codes, norms and reconstructions are those of `CrossCoder` and `BatchTopKCrossCoder` of jkminder/dictionary_learning,
scales those of ``closed_form_scalars`` of science-of-finetuning/sparsity-artifacts-crosscoders.
"""

import json
from pathlib import Path

import pytest
import torch

from sparsepriors.dictionaries import Crosscoder, latent_scaling
from sparsepriors.priors import L1, BatchTopK

FROZEN = json.loads((Path(__file__).parent / "crosscoder_numbers.json").read_text(encoding="utf-8"))
D, N, BATCH = FROZEN["d"], FROZEN["n"], FROZEN["batch"]


def theirs(name, *shape):
    return torch.tensor([float("nan") if v is None else v for v in FROZEN[name]]).reshape(shape)


def ours(prior):
    coder = Crosscoder(D, N, prior=prior)
    assert coder.W_enc is not None
    assert coder.b_enc is not None
    with torch.no_grad():
        coder.W_enc.copy_(theirs("encoder", 2, D, N).permute(2, 0, 1).reshape(N, -1))
        coder.b_enc.copy_(theirs("encoder_bias", N))
        coder.W_dec.copy_(theirs("decoder", 2, N, D).permute(1, 0, 2).reshape(N, -1))
        coder.b_dec.copy_(theirs("decoder_bias", 2 * D))
    return coder.requires_grad_(False)


def test_codes_norms_and_reconstructions():
    x = theirs("x", BATCH, 2, D)
    coder = ours(L1(0.1))
    codes = coder.encode(x)
    assert torch.allclose(codes, theirs("l1_codes", BATCH, N), atol=1e-5)
    assert torch.allclose(coder.decode(codes), theirs("reconstruction", BATCH, 2, D), atol=1e-4)
    assert torch.allclose(coder.decoder_norms(), theirs("norms", N), atol=1e-5)
    coder = ours(BatchTopK(2))
    assert torch.allclose(coder.encode(x, batch_wise=True), theirs("topk_codes", BATCH, N), atol=1e-5)
    coder.state["threshold"].fill_(FROZEN["threshold"])
    assert torch.allclose(coder.encode(x), theirs("threshold_codes", BATCH, N), atol=1e-5)


@pytest.mark.parametrize("target", ["error", "reconstruction"])
def test_scales(target):
    coder = ours(BatchTopK(2))
    coder.state["threshold"].fill_(FROZEN["threshold"])
    found = latent_scaling(coder, theirs("x", BATCH, 2, D), targets=(target,))
    assert torch.allclose(found.beta[target], theirs(f"beta_{target}", 2, N).double(), atol=1e-4, equal_nan=True)
    assert found.active.tolist() == (~found.beta[target][0].isnan()).tolist()
