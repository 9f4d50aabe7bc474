"""Noise of stated severity: moments, severities in order, the peer's impulse noise, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.util import random_noise

from sparsepriors.imaging.corruptions import SEVERITIES, corrupt

kinds, severities = st.sampled_from(sorted(SEVERITIES)), st.integers(1, 5)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(kinds, severities, st.integers(0, 2**31))
def test_images_stay_images_and_the_generator_alone_decides(kind: str, severity: int, seed: int) -> None:
    images = torch.rand(2, 3, 5, 4, generator=generator(seed))
    kept = images.clone()
    noisy = corrupt(images, kind, severity, generator=generator(seed))
    assert noisy.shape == images.shape
    assert noisy.dtype == images.dtype
    assert 0 <= float(noisy.min()) <= float(noisy.max()) <= 1
    assert torch.equal(noisy, corrupt(images, kind, severity, generator=generator(seed)))
    assert torch.equal(images, kept)
    assert not torch.equal(noisy, corrupt(images, kind, severity, generator=generator(seed + 1)))


def test_the_moments_are_those_of_the_noise() -> None:
    grey = torch.full((400, 400), 0.5, dtype=torch.float64)
    error = corrupt(grey, "gaussian", 1, generator=generator()) - grey
    assert float(error.std()) == pytest.approx(0.08, rel=0.01)
    assert abs(float(error.mean())) < 1e-3
    shot = corrupt(grey, "shot", 1, generator=generator())
    assert float(shot.mean()) == pytest.approx(0.5, rel=0.01)
    assert float(shot.var()) == pytest.approx(0.5 / 60, rel=0.02)        # Poisson: variance is the mean
    assert set((shot * 60).round().unique().tolist()) == set((shot * 60).unique().round().tolist())
    impulse = corrupt(grey, "impulse", 5, generator=generator())
    assert float((impulse == 0).double().mean()) == pytest.approx(0.135, rel=0.03)
    assert float((impulse == 1).double().mean()) == pytest.approx(0.135, rel=0.03)


@pytest.mark.parametrize("severity", [1, 5])
def test_impulse_noise_has_the_shares_of_scikit_image(severity: int) -> None:
    grey = np.full((400, 400), 0.5)
    peer = random_noise(grey, mode="s&p", amount=SEVERITIES["impulse"][severity - 1], rng=0)
    ours = corrupt(torch.from_numpy(grey), "impulse", severity, generator=generator()).numpy()
    for value in (0.0, 0.5, 1.0):
        assert (ours == value).mean() == pytest.approx((peer == value).mean(), abs=4e-3)


@pytest.mark.parametrize("kind", sorted(SEVERITIES))
def test_severities_are_in_order(kind: str) -> None:
    images = torch.rand(200, 200, generator=generator())
    errors = [float((corrupt(images, kind, s, generator=generator(s)) - images).square().mean()) for s in range(1, 6)]
    assert errors == sorted(errors)


@pytest.mark.public_door
def test_what_is_refused() -> None:
    image = torch.rand(4, 4, generator=generator())
    for bad in (image * 255, image - 1):
        with pytest.raises(ValueError, match="images must be from 0 to 1"):
            corrupt(bad, "gaussian", 1, generator=generator())
    with pytest.raises(TypeError, match="images must be floating point"):
        corrupt((image * 255).byte(), "gaussian", 1, generator=generator())
    with pytest.raises(TypeError, match="images must be real"):
        corrupt(image + 0j, "gaussian", 1, generator=generator())
    with pytest.raises(ValueError, match="did you mean 'gaussian'"):
        corrupt(image, "gausian", 1, generator=generator())
    for severity in (0, 6):
        with pytest.raises(ValueError, match="severity must be from 1 to 5"):
            corrupt(image, "shot", severity, generator=generator())
