"""How far an image is from the true one: PSNR, NMSE and SSIM, with one convention for real and complex images.

Complex images are compared by their moduli. ``dims`` trailing axes make up one image, the axes before them are a batch,
and every metric returns one number per image.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from sparsepriors import _checks

_SSIM_WINDOW, _SSIM_STD = 11, 1.5


def psnr(estimate: Inexact[Tensor, "..."], target: Inexact[Tensor, "..."], *, dims: int = 2,
         peak: float | None = None) -> Float[Tensor, "..."]:
    """Peak signal-to-noise ratio in dB, ``10 log10(peak^2 / MSE)``; infinite where the images agree.

    Parameters
    ----------
    estimate, target
        Real or complex, of one shape ``(..., *image)``.
    dims
        Number of image axes.
    peak
        The range of the values; by default the largest modulus in each target.

    Raises
    ------
    TypeError, ValueError
        If the images do not fit, or ``peak`` is not positive.
    """
    estimate, target, axes = _images(estimate, target, dims)
    top = _peak(target, axes, peak)
    return 10 * torch.log10(top.square() / (estimate - target).square().mean(axes))


def best_scale_psnr(estimate: Inexact[Tensor, "..."], target: Inexact[Tensor, "..."], *, dims: int = 2,
                    peak: float | None = None) -> Float[Tensor, "..."]:
    """`psnr` after each estimate is multiplied by the nonnegative number that brings it nearest to its target.

    For measurements whose scale is not calibrated. An estimate that is zero stays zero.
    """
    estimate, target, axes = _images(estimate, target, dims)
    energy = estimate.square().sum(axes, keepdim=True)
    scale = (estimate * target).sum(axes, keepdim=True) / torch.where(energy > 0, energy, 1)
    scaled = scale.clamp_min(0) * estimate
    top = _peak(target, axes, peak)
    return 10 * torch.log10(top.square() / (scaled - target).square().mean(axes))


def nmse(estimate: Inexact[Tensor, "..."], target: Inexact[Tensor, "..."], *, dims: int = 2) -> Float[Tensor, "..."]:
    """Normalised mean squared error, ``||estimate - target||^2 / ||target||^2``.

    Raises
    ------
    TypeError, ValueError
        If the images do not fit, or a target is zero.
    """
    estimate, target, axes = _images(estimate, target, dims)
    energy = target.square().sum(axes)
    if not bool((energy > 0).all()):
        raise ValueError("target must not be zero: the error has nothing to be divided by")
    return (estimate - target).square().sum(axes) / energy


def ssim(estimate: Inexact[Tensor, "..."], target: Inexact[Tensor, "..."], *, dims: int = 2,
         peak: float | None = None) -> Float[Tensor, "..."]:
    """Structural similarity, in [-1, 1], by scikit-image with the constants of the paper.

    A Gaussian window of standard deviation 1.5 and width 11 in two or three dimensions, population covariances,
    K1 = 0.01, K2 = 0.03 (Wang, Bovik, Sheikh, Simoncelli, IEEE Trans. Image Processing 13:600-612, 2004).

    Parameters
    ----------
    estimate, target
        Real or complex, of one shape ``(..., *image)``, at least 11 entries along each image axis.
    dims
        Number of image axes, 2 or 3.
    peak
        The range of the values; by default the largest modulus in each target.

    Raises
    ------
    ImportError
        If scikit-image is not installed.
    TypeError, ValueError
        If the images do not fit.
    """
    try:
        from skimage.metrics import structural_similarity
    except ImportError as e:
        raise ImportError("ssim needs scikit-image: pip install scikit-image, "
                          "or pip install 'sparsepriors[imaging]'") from e
    _checks.count("dims", dims, low=2, high=3)
    estimate, target, axes = _images(estimate, target, dims)
    image = tuple(target.shape[-dims:])
    if min(image) < _SSIM_WINDOW:
        raise ValueError(f"estimate and target must have at least {_SSIM_WINDOW} entries along each image axis, "
                         f"got {image}")
    batch = target.shape[:-dims]
    tops = _peak(target, axes, peak).reshape(-1).tolist()
    count = math.prod(batch)
    pairs = zip(estimate.reshape((count, *image)).cpu().numpy(), target.reshape((count, *image)).cpu().numpy(),
                tops, strict=True)
    values = [structural_similarity(a, b, data_range=top, gaussian_weights=True, sigma=_SSIM_STD,
                                    use_sample_covariance=False) for a, b, top in pairs]
    return torch.tensor(np.array(values), dtype=target.dtype, device=target.device).reshape(batch)


def _images(estimate: Tensor, target: Tensor, dims: int) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Both as real images without gradients, in double precision, and the image axes."""
    _checks.count("dims", dims, low=1)
    if _checks.inexact("estimate", estimate).shape != _checks.inexact("target", target).shape:
        raise ValueError(f"estimate and target must have one shape, got {tuple(estimate.shape)} and "
                         f"{tuple(target.shape)}")
    if target.ndim < dims or 0 in target.shape[-dims:]:
        raise ValueError(f"estimate and target must have {dims} image axes that are not empty, "
                         f"got shape {tuple(target.shape)}")
    estimate, target = estimate.detach(), target.detach()
    if estimate.is_complex() or target.is_complex():
        estimate, target = estimate.abs(), target.abs()
    return estimate.double(), target.double(), tuple(range(-dims, 0))


def _peak(target: Tensor, axes: tuple[int, ...], peak: float | None) -> Tensor:
    if peak is not None:
        _checks.positive("peak", peak)
        return target.new_full(target.shape[:target.ndim - len(axes)], peak)
    found = target.abs().amax(axes)
    if not bool((found > 0).all()):
        raise ValueError("target must not be zero when peak is taken from it; give peak")
    return found
