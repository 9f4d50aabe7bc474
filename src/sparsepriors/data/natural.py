"""Natural images as models of vision take them: whitened, cut into patches; a reader of van Hateren's photographs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sparsepriors import _checks

NATURAL_PHOTOS: tuple[str, ...] = ("astronaut", "brick", "coffee", "flower", "grace_hopper", "grass", "gravel",
                                   "motorcycle_left")
"""Photographs of `photos` that show what eyes see, none of `TEST_PHOTOS`."""

_VAN_HATEREN = (1024, 1536)


def whiten(image: Float[Tensor, "height width"], *, cutoff: float = 0.4,
           official_grid: bool = False) -> Float[Tensor, "height width"]:
    """Flatten the spectrum of a natural image: multiply it by ``rho exp(-(rho / cutoff)^4)``.

    The image is brought to [0, 1], to zero mean and to unit deviation first; rho is the distance from the centre of
    the spectrum.

    Parameters
    ----------
    image
        Real, at least 2 x 2, not constant.
    cutoff
        Cycles per pixel, positive.
    official_grid
        Count rho in bins and the cutoff in ``cutoff * height`` of them, as the published code of Rentzeperis et al.
        (2023) does: frequencies along the longer side then count for more.

    Raises
    ------
    TypeError, ValueError
        If the image is constant, not finite, not a real matrix, or the cutoff is not positive.

    References
    ----------
    Olshausen, Field (1997), Sparse coding with an overcomplete basis set: a strategy employed by V1?, Vision Research
    37.
    """
    x = _checks.inexact("image", image)
    if x.is_complex() or x.ndim != 2 or min(x.shape) < 2:
        raise ValueError(f"image must be real and at least 2 x 2, got {x.dtype} of shape {tuple(x.shape)}")
    _checks.positive("cutoff", cutoff)
    low, high = (float(v) for v in torch.aminmax(x))
    if not high > low:
        raise ValueError(f"image must not be constant, all of it is {low:g}")
    x = (x - low) / (high - low)
    x = (x - x.mean()) / x.std(correction=0)
    height, width = x.shape
    fy = torch.fft.fftfreq(height, dtype=x.dtype, device=x.device)[:, None]
    fx = torch.fft.rfftfreq(width, dtype=x.dtype, device=x.device)[None, :]
    if official_grid:
        fx = fx * (width / height)
    rho = torch.hypot(fy, fx)
    return torch.fft.irfft2(torch.fft.rfft2(x) * (rho * torch.exp(-(rho / cutoff) ** 4)), s=(height, width))


def variance_scale(images: Sequence[Tensor], variance: float = 0.1) -> float:
    """The one factor that brings the mean of the images' variances to ``variance``.

    Raises
    ------
    ValueError
        If there are no images, all are constant, or the variance is not positive.
    """
    _checks.positive("variance", variance)
    mean = sum(float(x.var(correction=0)) for x in images) / len(images) if images else 0.0
    if not mean > 0:
        raise ValueError("images must hold at least one that is not constant")
    return (variance / mean) ** 0.5


def random_patches(images: Sequence[Tensor], count: int, size: int,
                   generator: torch.Generator) -> Float[Tensor, "count pixels"]:
    """Square patches from uniformly drawn images and places, the mean of each taken off, as rows.

    Parameters
    ----------
    images
        Matrices of one dtype, each at least ``size`` x ``size``.
    count, size
        How many patches, and their side.
    generator
        Draws images and places.

    Raises
    ------
    TypeError, ValueError
        If there are no images, one is too small or not finite, or a count is not a positive integer.
    """
    _checks.count("count", count, low=1)
    _checks.count("size", size, low=1)
    if not images:
        raise ValueError("images must hold at least one image")
    for i, image in enumerate(images):
        x = _checks.inexact(f"images[{i}]", image)
        _checks.same_dtype(f"images[{i}]", x, images[0].dtype)
        if x.ndim != 2 or min(x.shape) < size:
            raise ValueError(f"images[{i}] must be a matrix of at least {size} x {size}, got shape {tuple(x.shape)}")
    which = torch.randint(len(images), (count,), generator=generator)
    place = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    out = images[0].new_empty(count, size, size)
    offsets = torch.arange(size)
    for i, image in enumerate(images):
        mine = (which == i).nonzero()[:, 0]
        room = torch.tensor([n - size + 1 for n in image.shape])
        top, left = (place[mine] * room).long().unbind(1)
        rows, columns = top[:, None] + offsets, left[:, None] + offsets
        out[mine] = image[rows[:, :, None], columns[:, None, :]]
    return (out - out.mean(dim=(1, 2), keepdim=True)).flatten(1)


def read_van_hateren(path: str | os.PathLike[str]) -> Float[Tensor, "1024 1536"]:
    """A photograph of van Hateren and van der Schaaf's collection: ``.imc`` or ``.iml``, linear in luminance.

    1024 x 1536 unsigned numbers of 16 bits, the higher byte first, and nothing else.

    Raises
    ------
    ValueError
        If the file has another length.

    References
    ----------
    van Hateren, van der Schaaf (1998), Independent component filters of natural images compared with simple cells in
    primary visual cortex, Proc. Royal Society B 265.
    """
    height, width = _VAN_HATEREN
    data, wanted = Path(path).read_bytes(), 2 * height * width
    if len(data) != wanted:
        raise ValueError(f"{path} must hold {wanted} bytes, {height} x {width} numbers of two, got {len(data)}")
    return torch.from_numpy(np.frombuffer(data, dtype=">u2").reshape(height, width).astype(np.float32))
