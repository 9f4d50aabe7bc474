"""Noise of stated severity on images, as in ImageNet-C: Gaussian, shot and impulse noise."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sparsepriors import _checks

SEVERITIES: dict[str, tuple[float, ...]] = {
    "gaussian": (0.08, 0.12, 0.18, 0.26, 0.38),
    "shot": (60.0, 25.0, 12.0, 5.0, 3.0),
    "impulse": (0.03, 0.06, 0.09, 0.17, 0.27),
}
"""By kind and severity from 1 to 5: the deviation of Gaussian noise, the photons of a white pixel under shot noise, the
share of entries that impulse noise replaces."""


def corrupt(images: Float[Tensor, "*batch height width"], kind: str, severity: int, *,
            generator: torch.Generator) -> Float[Tensor, "*batch height width"]:
    """Images with noise, clipped to [0, 1].

    Parameters
    ----------
    images
        Brightness from 0 to 1, with any leading axes; channels are corrupted independently.
    kind
        ``"gaussian"`` adds normal noise, ``"shot"`` draws Poisson counts of photons, ``"impulse"`` replaces entries by
        0 or 1, either as likely.
    severity
        From 1 to 5, see `SEVERITIES`.
    generator
        Draws the noise, on the device of the images.

    Raises
    ------
    TypeError, ValueError
        If the images are not floating point from 0 to 1, or there is no such kind or severity.

    References
    ----------
    Hendrycks and Dietterich (2019), Benchmarking neural network robustness to common corruptions and perturbations,
    ICLR, arXiv:1903.12261; the constants are those of its published code.
    """
    _checks.inexact("images", images)
    if images.is_complex():
        raise TypeError(f"images must be real, got {images.dtype}")
    if images.numel() and not 0 <= float(images.min()) <= float(images.max()) <= 1:
        raise ValueError(f"images must be from 0 to 1, got {float(images.min()):g} to {float(images.max()):g}")
    _checks.one_of("kind", kind, SEVERITIES)
    _checks.count("severity", severity, low=1, high=5)
    amount = SEVERITIES[kind][severity - 1]
    if kind == "shot":
        return (torch.poisson(images * amount, generator=generator) / amount).clamp(max=1)
    options = {"generator": generator, "device": images.device, "dtype": images.dtype}
    if kind == "gaussian":
        return (images + amount * torch.randn(images.shape, **options)).clamp(0, 1)
    drawn = torch.rand(images.shape, **options)
    return torch.where(drawn < amount, (drawn < amount / 2).to(images.dtype), images)
