import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.data.paired_features import paired_features
from sparsepriors.dictionaries.crosscoder import CODE_NORMS, Crosscoder, batch_topk_crosscoder, l1_crosscoder
from sparsepriors.dictionaries.model_diff import LatentClass, delta_norm
from sparsepriors.dictionaries.training import fit
from sparsepriors.priors import L1, BatchTopK


def drawn(seed=0, models=2, **options):
    """A crosscoder whose decoders differ in norm, and activations."""
    g = torch.Generator().manual_seed(seed)
    coder = Crosscoder(5, 7, models, generator=g, same_start=False, **options)
    with torch.no_grad():
        for p in coder.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
    return coder, torch.randn(6, models, 5, generator=g)


@given(st.integers(0, 10**6), st.integers(1, 3), st.sampled_from(CODE_NORMS))
def test_codes_and_reconstructions_are_those_of_the_definition(seed, models, code_norm):
    coder, x = drawn(seed, models, prior=BatchTopK(2), code_norm=code_norm)
    pre = sum(x[:, m] @ coder.encoder[m] for m in range(models)) + coder.b_enc
    norms = coder.decoder.norm(dim=2)
    weight = {"crosscoder": norms.sum(dim=0), "sae": norms.square().sum(dim=0).sqrt(), "none": torch.ones(7),
              "mixed": norms.square().sum(dim=0).sqrt() + 0.1 * norms.sum(dim=0)}[code_norm]
    ranked = torch.relu(pre) * weight
    least = ranked.flatten().sort(descending=True).values[2 * len(x) - 1]
    expected = torch.where((ranked >= least) & (ranked > 0), pre, 0)
    codes = coder.encode(x, batch_wise=True)
    assert torch.allclose(codes, expected, atol=1e-5)
    recon = torch.stack([codes @ coder.decoder[m] + coder.decoder_bias[m] for m in range(models)], dim=1)
    assert torch.allclose(coder.decode(codes), recon, atol=1e-4)


@given(st.integers(0, 10**6))
def test_the_published_loss(seed):
    coder, x = drawn(seed, prior=L1(0.3))
    out = coder(x)
    codes = torch.relu(torch.einsum("bmd,mdn->bn", x, coder.encoder) + coder.b_enc)
    norm = (x - coder.decode(codes)).norm(dim=2).mean()
    penalty = 0.3 * (codes * coder.decoder.norm(dim=2).sum(dim=0)).sum(dim=1).mean()
    assert torch.allclose(out.loss, norm + penalty, rtol=1e-4)
    squared, _ = drawn(seed, prior=L1(0.3), error="squared")
    error = (x - coder.decode(codes)).square().sum(dim=2).mean()
    assert torch.allclose(squared(x).losses["reconstruction"], error, rtol=1e-4)


def test_all_models_start_equal_unless_asked_otherwise():
    coder = l1_crosscoder(5, 7, 0.1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(coder.decoder[0], coder.decoder[1])
    assert torch.allclose(coder.model_norms(), torch.full((2, 7), 0.005))
    assert torch.equal(coder.encoder, coder.decoder.transpose(1, 2))
    assert torch.allclose(coder.delta_norm(), torch.full((7,), 0.5))
    assert (coder.classify() == LatentClass.SHARED).all()
    other = Crosscoder(5, 7, same_start=False, prior=L1(0.1), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(other.model_norms(), torch.ones(2, 7))
    assert not torch.allclose(other.decoder[0], other.decoder[1], atol=0.1)


def test_a_batch_topk_crosscoder_finds_which_model_has_a_feature(tmp_path):
    g = torch.Generator().manual_seed(0)
    features = paired_features(16, (4, 0, 0, 2, 2), generator=g)
    x = features.sample(8000, g)
    coder = batch_topk_crosscoder(16, 16, 0.25, threshold_start=50, momentum=0.98, dead_after=4000, generator=g)
    fit(coder, x, steps=600, batch=128, lr=1e-2)
    held = features.sample(2000, g)
    codes = coder.encode(held).detach()
    recon = coder.decode(codes).detach()
    fvu = (held - recon).square().sum() / (held - held.mean(dim=0)).square().sum()
    assert float(fvu) < 0.2
    assert 0.1 < float((codes > 0).sum(dim=1).float().mean()) < 0.5
    alive = (codes > 0).any(dim=0)
    classes = coder.classify()[alive]
    assert [int((classes == c).sum()) for c in (LatentClass.CHAT_ONLY, LatentClass.BASE_ONLY)] == [2, 2]
    assert torch.equal(coder.delta_norm(), delta_norm(coder.decoder.detach()))
    again = Crosscoder.load(coder.save(tmp_path / "coder"))
    assert torch.equal(again.encode(held), codes)
    assert again.config() == coder.config()
    assert torch.allclose(coder.encode(held[:3]), codes[:3], atol=1e-5)     # the threshold does not look at the batch


@pytest.mark.public_door
def test_bad_arguments_are_named():
    coder, x = drawn(prior=L1(0.1))
    with pytest.raises(ValueError, match=r"x must have shape \(..., 2, 5\), got \(6, 5\)"):
        coder.encode(x[:, 0])
    with pytest.raises(ValueError, match=r"x must have shape \(..., 2, 5\)"):
        coder.encode(torch.ones(6, 3, 5))
    with pytest.raises(ValueError, match=r"x must have shape \(..., 2, 5\)"):
        coder.encode(torch.ones(6, 2, 4))
    with pytest.raises(ValueError, match="NaN"):
        coder.encode(torch.full((6, 2, 5), torch.nan))
    with pytest.raises(RuntimeError, match="no threshold yet"):
        batch_topk_crosscoder(5, 7, 2).encode(x)
    with pytest.raises(ValueError, match="more than the 7 latents, got k = 8"):
        batch_topk_crosscoder(5, 7, 8)
    with pytest.raises(ValueError, match="k must be finite and positive"):
        batch_topk_crosscoder(5, 7, 0)
    with pytest.raises(ValueError, match="did you mean 'crosscoder'"):
        Crosscoder(5, 7, code_norm="crosscode")
    with pytest.raises(ValueError, match="error must be one of"):
        Crosscoder(5, 7, error="mse")
    with pytest.raises(ValueError, match="n_models must be at least 1"):
        Crosscoder(5, 7, 0)
    with pytest.raises(ValueError, match=r"decoder must have shape \(2, latents, d\)"):
        drawn(models=3, prior=L1(0.1))[0].delta_norm()
