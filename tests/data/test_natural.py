"""Whitening, patches, and the reader of van Hateren's photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsepriors.data import TEST_PHOTOS, luma, photos
from sparsepriors.data.natural import NATURAL_PHOTOS, random_patches, read_van_hateren, variance_scale, whiten


def test_natural_photographs_are_none_of_the_test_ones() -> None:
    assert not set(NATURAL_PHOTOS) & set(TEST_PHOTOS)


def test_whitening_flattens_the_spectrum_of_a_photograph() -> None:
    image = luma(photos(("chelsea",))["chelsea"])[:256, :256].double()
    rho = torch.hypot(*torch.meshgrid(torch.fft.fftfreq(256), torch.fft.fftfreq(256), indexing="ij"))

    def power(x: torch.Tensor, low: float) -> float:
        return float(torch.fft.fft2(x).abs().square()[(rho >= low) & (rho < 1.2 * low)].mean())

    white = whiten(image)
    before, after = (power(x, 0.02) / power(x, 0.2) for x in (image - image.mean(), white))
    assert before > 100
    assert after < before / 30
    assert power(white, 0.45) < 0.3 * power(white, 0.2)
    assert abs(float(white.mean())) < 1e-9


@settings(max_examples=20)
@given(scale=st.floats(0.1, 10), shift=st.floats(-3, 3), official=st.booleans())
def test_whitening_does_not_see_contrast_and_brightness(scale: float, shift: float, official: bool) -> None:
    image = torch.rand(20, 31, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(whiten(scale * image + shift, official_grid=official),
                               whiten(image, official_grid=official))


def test_the_published_grid_differs_on_wide_images_only() -> None:
    for height, width, same in ((16, 16, True), (16, 24, False)):
        image = torch.rand(height, width, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(whiten(image), whiten(image, official_grid=True), atol=1e-5) == same


def test_one_factor_brings_the_mean_variance_to_a_value() -> None:
    images = [torch.randn(30, 20) * s for s in (0.5, 2.0)]
    s = variance_scale(images, 0.1)
    assert sum(float((s * x).var(correction=0)) for x in images) / 2 == pytest.approx(0.1, rel=1e-5)


@settings(max_examples=20)
@given(size=st.integers(1, 6), count=st.integers(1, 40), seed=st.integers(0, 100))
def test_patches_are_windows_without_their_mean(size: int, count: int, seed: int) -> None:
    images = [torch.arange(54, dtype=torch.float64).reshape(6, 9), -torch.arange(49, dtype=torch.float64).reshape(7, 7)]
    found = random_patches(images, count, size, torch.Generator().manual_seed(seed))
    windows = torch.cat([x.unfold(0, size, 1).unfold(1, size, 1).reshape(-1, size * size) for x in images])
    windows = windows - windows.mean(dim=1, keepdim=True)
    assert found.shape == (count, size * size)
    assert bool((torch.cdist(found, windows).amin(dim=1) < 1e-9).all())
    assert torch.equal(found, random_patches(images, count, size, torch.Generator().manual_seed(seed)))


def test_every_place_is_drawn() -> None:
    image = torch.eye(4)
    corners = random_patches([image], 400, 3, torch.Generator().manual_seed(0))
    assert len({tuple(p.tolist()) for p in corners}) == 3   # of the four places, two look the same


def test_a_van_hateren_file_is_read(tmp_path: Path) -> None:
    numbers = np.arange(1024 * 1536).reshape(1024, 1536) % 65_536
    path = tmp_path / "imk00001.imc"
    path.write_bytes(numbers.astype(">u2").tobytes())
    assert torch.equal(read_van_hateren(path), torch.from_numpy(numbers.astype(np.float32)))
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match="must hold 3145728 bytes, 1024 x 1536 numbers of two, got 5"):
        read_van_hateren(path)


@pytest.mark.public_door
def test_bad_arguments_are_named() -> None:
    image, g = torch.rand(8, 8), torch.Generator()
    for call, words in ((lambda: whiten(torch.ones(8, 8)), "image must not be constant, all of it is 1"),
                        (lambda: whiten(image[0]), "image must be real and at least 2 x 2"),
                        (lambda: whiten(image, cutoff=0.0), "cutoff must be finite and positive"),
                        (lambda: variance_scale([]), "images must hold at least one"),
                        (lambda: variance_scale([torch.ones(3, 3)]), "images must hold at least one"),
                        (lambda: random_patches([], 3, 3, g), "images must hold at least one image"),
                        (lambda: random_patches([image], 0, 3, g), "count must be at least 1"),
                        (lambda: random_patches([image], 3, 9, g), r"images\[0\] must be a matrix of at least 9 x 9")):
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(TypeError, match=r"images\[1\] must be torch.float32"):
        random_patches([image, image.double()], 3, 3, g)
