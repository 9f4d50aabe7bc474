"""Image metrics against scikit-image, their invariances and their refusals."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import skimage.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors.imaging.metrics import best_scale_psnr, nmse, psnr, ssim


@given(dims=st.integers(1, 3), batch=st.lists(st.integers(0, 3), max_size=2), seed=st.integers(0, 99),
       peak=st.sampled_from((None, 1.0, 255.0)))
def test_psnr_and_nmse_equal_scikit_image(dims: int, batch: list[int], seed: int, peak: float | None) -> None:
    g = torch.Generator().manual_seed(seed)
    target = torch.rand(*batch, *(5, 6, 4)[:dims], generator=g, dtype=torch.float64)
    estimate = target + 0.1 * torch.randn(target.shape, generator=g, dtype=torch.float64)
    found, error = psnr(estimate, target, dims=dims, peak=peak), nmse(estimate, target, dims=dims)
    assert found.shape == error.shape == tuple(batch)
    for index in np.ndindex(*batch):
        a, b = estimate[index].numpy(), target[index].numpy()
        expected = skimage.metrics.peak_signal_noise_ratio(b, a, data_range=peak or b.max())
        assert float(found[index]) == pytest.approx(expected)
        assert float(error[index]) == pytest.approx(skimage.metrics.normalized_root_mse(b, a) ** 2)


@pytest.mark.parametrize("dims", [2, 3])
def test_ssim_equals_scikit_image(dims: int, generator: torch.Generator) -> None:
    target = torch.rand(2, *(16, 13, 12)[:dims], generator=generator)
    estimate = target + 0.2 * torch.randn(target.shape, generator=generator)
    found = ssim(estimate, target, dims=dims)
    for i in range(2):
        a, b = estimate[i].double().numpy(), target[i].double().numpy()
        expected = skimage.metrics.structural_similarity(b, a, data_range=b.max(), gaussian_weights=True, sigma=1.5,
                                                         use_sample_covariance=False)
        assert float(found[i]) == pytest.approx(np.asarray(expected).item())


def test_the_same_image_is_perfect_and_scale_is_forgiven_where_said(generator: torch.Generator) -> None:
    x = torch.rand(12, 12, generator=generator)
    assert float(psnr(x, x)) == math.inf
    assert float(nmse(x, x)) == 0
    assert float(ssim(x, x)) == pytest.approx(1)
    y = x + 0.1 * torch.rand(12, 12, generator=generator)
    assert float(best_scale_psnr(3 * y, x)) == pytest.approx(float(best_scale_psnr(y, x)), abs=1e-5)
    assert float(best_scale_psnr(y, x)) > float(psnr(y, x))
    # A negative or a zero estimate is worth what zero is.
    assert float(best_scale_psnr(-y, x)) == pytest.approx(float(psnr(torch.zeros_like(x), x)))
    assert float(best_scale_psnr(torch.zeros_like(x), x)) == pytest.approx(float(psnr(torch.zeros_like(x), x)))


def test_complex_images_are_compared_by_modulus(generator: torch.Generator) -> None:
    target = torch.rand(12, 12, generator=generator)
    phase = torch.exp(2j * math.pi * torch.rand(12, 12, generator=generator))
    noisy = target + 0.1 * torch.rand(12, 12, generator=generator)
    for metric in (psnr, best_scale_psnr, nmse, ssim):
        assert float(metric(noisy * phase, target)) == pytest.approx(float(metric(noisy, target)), rel=1e-5)


@pytest.mark.public_door
def test_bad_input() -> None:
    x = torch.rand(12, 12)
    with pytest.raises(ValueError, match="must have one shape"):
        psnr(x, x[:5])
    with pytest.raises(ValueError, match="3 image axes"):
        psnr(x, x, dims=3)
    with pytest.raises(ValueError, match="give peak"):
        psnr(x, torch.zeros_like(x))
    with pytest.raises(ValueError, match="nothing to be divided by"):
        nmse(x, torch.zeros_like(x))
    with pytest.raises(ValueError, match="peak must be finite and positive"):
        ssim(x, x, peak=-1.0)
    with pytest.raises(ValueError, match="at least 11 entries"):
        ssim(x[:10], x[:10])
    with pytest.raises(ValueError, match="estimate holds NaN"):
        nmse(x / 0 * 0, x)
    with pytest.raises(TypeError, match="floating point or complex"):
        psnr(x.long(), x.long())


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    with pytest.raises(ImportError, match="pip install scikit-image"):
        ssim(torch.rand(12, 12), torch.rand(12, 12))
