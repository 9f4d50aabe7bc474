import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dictionaries.paired_toy import ToyCoder, toy
from sparsepriors.dictionaries.latent_scaling import TARGETS, LatentScaler, latent_scaling


def by_definition(coder, x, latent, target, source):
    """Least squares over all samples, with the latent's own part removed from what is fitted."""
    codes = coder.encode(x)
    rebuilt = coder.decode(codes)
    own = codes[:, latent]
    regressor = torch.outer(own, coder.decoder[source, latent]).reshape(-1, 1).double()
    betas = []
    for model in range(x.shape[1]):
        others = rebuilt[:, model] - torch.outer(own, coder.decoder[model, latent])
        y = {"error": x[:, model] - others, "reconstruction": rebuilt[:, model], "activation": x[:, model],
             "centred": x[:, model] - coder.decoder_bias[model]}[target]
        betas.append(torch.linalg.lstsq(regressor, y.reshape(-1, 1).double()).solution.item())
    return betas


@given(st.integers(0, 10**6), st.sampled_from(TARGETS), st.integers(2, 3), st.integers(0, 1))
def test_scales_are_those_of_the_definition(seed, target, models, source):
    coder = toy(seed, models=models)
    x = torch.randn(60, models, 5, generator=torch.Generator().manual_seed(seed + 1))
    scaling = latent_scaling(coder, x, [4, 1], (target,), source=source)
    for i, latent in enumerate((4, 1)):
        if scaling.count[i] == 0:
            assert scaling.beta[target][:, i].isnan().all()
            continue
        expected = torch.tensor(by_definition(coder, x, latent, target, source), dtype=torch.float64)
        assert torch.allclose(scaling.beta[target][:, i], expected, rtol=1e-4, atol=1e-4)


@given(st.integers(0, 10**6), st.lists(st.integers(1, 59), max_size=4, unique=True))
def test_batches_add_up_to_the_whole(seed, cuts):
    coder = toy(seed)
    x = torch.randn(60, 2, 5, generator=torch.Generator().manual_seed(seed))
    whole = latent_scaling(coder, x, targets=TARGETS)
    parts = latent_scaling(coder, (p for p in x.tensor_split(sorted(cuts))), targets=TARGETS)
    assert torch.equal(whole.count, parts.count)
    for target in TARGETS:
        assert torch.allclose(whole.beta[target], parts.beta[target], rtol=1e-4, atol=1e-5, equal_nan=True)


def planted(base, decoder_of_base, others=0.0):
    """One concept with strength ``base`` in the base model and 1 in the other; a second latent may write it, too."""
    direction = torch.tensor([1.0, 0, 0])
    decoder = torch.stack([torch.stack([decoder_of_base * direction, others * direction]),
                           torch.stack([direction, 0 * direction])])
    encoder = torch.zeros(2, 3, 2)
    encoder[1, 0] = 1
    amounts = torch.rand(500, generator=torch.Generator().manual_seed(0)) + 0.5
    x = torch.stack([base * amounts[:, None] * direction, amounts[:, None] * direction], dim=1)
    return ToyCoder(encoder, decoder, torch.zeros(2, 3)), x


def test_both_artefacts_show_and_a_real_difference_does_not():
    shrunk = latent_scaling(*planted(base=0.4, decoder_of_base=0.0), [0])
    assert float(shrunk.nu("error")) == pytest.approx(0.4, abs=1e-5)
    assert float(shrunk.nu("reconstruction")) == pytest.approx(0.0, abs=1e-5)
    decoupled = latent_scaling(*planted(base=1.0, decoder_of_base=0.0, others=1.0), [0])
    assert float(decoupled.nu("error")) == pytest.approx(0.0, abs=1e-5)
    assert float(decoupled.nu("reconstruction")) == pytest.approx(1.0, abs=1e-5)
    genuine = latent_scaling(*planted(base=0.0, decoder_of_base=0.0), [0])
    assert float(genuine.nu("error")) == pytest.approx(0.0, abs=1e-5)
    assert float(genuine.nu("reconstruction")) == pytest.approx(0.0, abs=1e-5)


def test_what_is_not_known_is_nan_and_flagged():
    coder, x = planted(base=0.4, decoder_of_base=0.0)
    coder.encoder[:, :, 1] = 0
    scaling = latent_scaling(coder, x)
    assert scaling.active.tolist() == [True, False]
    assert scaling.nu("error")[1].isnan()
    coder.decoder[1, 0] = 0     # no direction in the source model
    assert latent_scaling(coder, x).beta["error"][:, 0].isnan().all()
    coder, x = planted(base=1.0, decoder_of_base=1.0)
    x[:, 1, 0] = 0
    coder.encoder = coder.encoder.flip(0)     # coded by the base model, absent from the source model's activations
    scaling = latent_scaling(coder, x, [0], ("activation",))
    assert float(scaling.beta["activation"][1]) == 0
    assert scaling.nu("activation").isnan().all()


@pytest.mark.public_door
def test_bad_arguments_are_named():
    coder = toy()
    x = torch.randn(4, 2, 5)
    with pytest.raises(ValueError, match="empty list"):
        latent_scaling(coder, x, [])
    with pytest.raises(ValueError, match="latents must lie in 0 to 5"):
        latent_scaling(coder, x, [6])
    with pytest.raises(ValueError, match="twice"):
        latent_scaling(coder, x, [1, 1])
    with pytest.raises(TypeError, match="list of indices"):
        latent_scaling(coder, x, torch.tensor([0.5]))
    with pytest.raises(ValueError, match="did you mean 'error'"):
        latent_scaling(coder, x, targets=("eror",))
    with pytest.raises(ValueError, match="targets must name at least one"):
        latent_scaling(coder, x, targets=())
    with pytest.raises(ValueError, match="source must be from 0 to 1"):
        latent_scaling(coder, x, source=2)
    with pytest.raises(RuntimeError, match="call update first"):
        LatentScaler(coder).result()
    scaling = latent_scaling(coder, x, targets=("error",))
    with pytest.raises(ValueError, match="target must be one of 'error'"):
        scaling.nu("reconstruction")
    with pytest.raises(ValueError, match="model must be from 0 to 1"):
        scaling.nu("error", model=2)
