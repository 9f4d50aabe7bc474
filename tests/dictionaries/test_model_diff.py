import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dictionaries.paired_toy import ToyCoder, toy
from sparsepriors.dictionaries.model_diff import (
    LatentClass,
    classify,
    delta_norm,
    find_twins,
    latent_report,
    ranks_by_specificity,
    twin_activity,
)


def decoder_of_norms(base, chat):
    rows = torch.stack([torch.tensor(base), torch.tensor(chat)])
    return rows[:, :, None] * torch.tensor([0.6, 0.8])


def test_delta_runs_from_the_base_to_the_chat_model():
    delta = delta_norm(decoder_of_norms([1.0, 1.0, 0.0, 0.05, 0.5, 0.0], [0.0, 1.0, 1.0, 1.0, 1.0, 0.0]))
    assert torch.allclose(delta, torch.tensor([0.0, 0.5, 1.0, 0.975, 0.75, torch.nan]), equal_nan=True)
    names = [LatentClass(int(c)).name for c in classify(delta)]
    assert names == ["BASE_ONLY", "SHARED", "CHAT_ONLY", "CHAT_ONLY", "OTHER", "OTHER"]


@given(st.integers(0, 10**6), st.floats(0.1, 10))
def test_delta_knows_no_scale_and_swapping_the_models_mirrors_it(seed, scale):
    decoder = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(seed))
    delta = delta_norm(decoder)
    assert torch.allclose(delta_norm(scale * decoder), delta, atol=1e-5)
    assert torch.allclose(delta_norm(decoder.flip(0)), 1 - delta, atol=1e-5)
    assert float(delta.min()) >= 0
    assert float(delta.max()) <= 1


def shared_and_specific():
    """Latents: one that only the chat model has, one shrunk away in the base, one decoupled and its twin, dead."""
    eye = torch.eye(4)
    decoder = torch.zeros(2, 5, 4)
    decoder[1, 0], decoder[1, 1], decoder[1, 2], decoder[0, 3] = eye[0], eye[1], eye[2], eye[2]
    decoder[1, 4] = eye[3]
    encoder = torch.zeros(2, 4, 5)
    encoder[1, 0, 0] = encoder[1, 1, 1] = encoder[1, 2, 2] = encoder[0, 2, 3] = 1
    g = torch.Generator().manual_seed(0)
    amounts = torch.rand(2000, 4, generator=g) * (torch.rand(2000, 4, generator=g) < 0.3)
    x = torch.stack([amounts * torch.tensor([0, 0.5, 1, 0]), amounts * torch.tensor([1.0, 1, 1, 0])], dim=1)
    return ToyCoder(encoder, decoder, torch.zeros(2, 4)), x


def test_a_report_tells_artefacts_from_differences():
    report = latent_report(*shared_and_specific())
    assert report.specific().tolist() == [0]
    assert report.shrunk().tolist() == [1]
    assert report.decoupled().tolist() == [2]
    assert report.alive.tolist() == [True] * 4 + [False]
    assert report.counts() == {"other": 0, "base_only": 1, "shared": 0, "chat_only": 3, "dead": 1, "specific": 1,
                               "shrunk": 1, "decoupled": 1}
    assert float(report.frequency[0]) == pytest.approx(0.3, abs=0.03)
    assert 0.99 < float(report.largest[0]) <= 1
    assert ranks_by_specificity(report, [2, 4, 0])[0] == 0
    assert report.nu[1] == report.nu_error[1]
    with pytest.raises(ValueError, match="at least one latent"):
        ranks_by_specificity(report, [])
    with pytest.raises(ValueError, match="nu_error"):
        report.specific(nu_error=-1.0)


def test_twins_are_found_once_each_and_their_firing_is_counted():
    coder, x = shared_and_specific()
    twins = find_twins(coder.decoder)
    assert (twins.base.tolist(), twins.chat.tolist()) == ([3], [2])
    assert float(twins.cosine[0]) == pytest.approx(1)
    codes = coder.encode(x)
    codes[:100, 2] = 0
    counts = twin_activity(codes, twins)[0]
    assert int(counts.sum()) == 2000
    assert int(counts[1:, 0].sum()) == int((codes[:100, 3] > 0).sum()) > 10
    assert int(counts[0, 1:].sum()) == 0
    doubled = torch.cat([coder.decoder, coder.decoder[:, 2:3]], dim=1)
    assert len(find_twins(doubled).base) == 1
    none = find_twins(torch.ones(2, 3, 4))
    assert len(none.base) == 0
    assert twin_activity(torch.zeros(5, 3), none).shape == (0, 5, 5)


@pytest.mark.public_door
def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"decoder must have shape \(2, latents, d\)"):
        delta_norm(torch.ones(3, 4, 5))
    with pytest.raises(ValueError, match=r"decoder must have shape \(2, latents, d\)"):
        latent_report(toy(models=3), torch.ones(4, 3, 5))
    with pytest.raises(ValueError, match="least must lie"):
        find_twins(torch.ones(2, 3, 4), 1.5)
    with pytest.raises(ValueError, match=r"codes must have shape \(samples, latents\)"):
        twin_activity(torch.ones(3), find_twins(torch.ones(2, 3, 4)))
