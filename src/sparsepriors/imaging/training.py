"""Training of image denoisers on photographs, and the measurement of how good they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparsepriors import _checks
from sparsepriors.networks.batches import Drawn
from sparsepriors.networks.hooks import ClipGradNorm
from sparsepriors.networks.schedules import cosine
from sparsepriors.networks.train_loop import Training, TrainLoop, TrainState
from sparsepriors.priors.denoisers import UNet

Batch = tuple[Tensor, Tensor, Tensor]
"""Clean patches ``(batch, 1, size, size)``, the same with noise, and the noise's standard deviations ``(batch,)``."""

SMALLEST_STD, LARGEST_STD = 1 / 255, 50 / 255


def pyramid(photos: Sequence[Float[Tensor, "_ _"]], scales: Sequence[float] = (1.0, 0.7, 0.5),
            *, least: int = 1) -> list[Tensor]:
    """The photographs at several sizes, resampled with an antialiasing filter; sides below ``least`` are left out.

    A photograph at half its size has other edges and textures per pixel, so few photographs teach more.

    Raises
    ------
    TypeError, ValueError
        If a photograph is not a finite real matrix, or a scale is not in (0, 1].
    """
    for s in scales:
        _checks.positive("scales", s)
        if s > 1:
            raise ValueError(f"scales must be at most 1, got {s}")
    levels = []
    for i, photo in enumerate(photos):
        if _checks.inexact(f"photos[{i}]", photo).is_complex() or photo.ndim != 2:
            raise ValueError(f"photos[{i}] must be a real matrix, got {photo.dtype} of shape {tuple(photo.shape)}")
        for s in scales:
            size = [round(s * n) for n in photo.shape]
            if min(size) >= least:
                levels.append(photo if s == 1 else nn.functional.interpolate(
                    photo[None, None], size=size, mode="bilinear", antialias=True)[0, 0])
    return levels


def draw_patches(images: Sequence[Float[Tensor, "_ _"]], batch: int, size: int,
                 generator: torch.Generator) -> Float[Tensor, "batch 1 size size"]:
    """Draw square patches: an image in proportion to its pixels, a place and one of the eight symmetries uniformly.

    Raises
    ------
    ValueError
        If there is no image, or one is smaller than a patch.
    """
    _checks.count("batch", batch, low=1)
    _checks.count("size", size, low=1)
    if not images or min(min(im.shape) for im in images) < size:
        raise ValueError(f"images must be at least {size} x {size}, got shapes {[tuple(im.shape) for im in images]}")
    pixels = torch.tensor([float(im.numel()) for im in images])
    chosen = torch.multinomial(pixels, batch, replacement=True, generator=generator).tolist()
    places = torch.rand(batch, 2, generator=generator).tolist()
    turns = torch.randint(8, (batch,), generator=generator).tolist()
    patches = []
    for which, (u, v), turn in zip(chosen, places, turns, strict=True):
        image = images[which]
        row, column = (int(t * (n - size + 1)) for t, n in zip((u, v), image.shape, strict=True))
        patch = image[row:row + size, column:column + size]
        patch = torch.rot90(patch, turn % 4)
        patches.append(patch.T if turn >= 4 else patch)
    return torch.stack(patches)[:, None]


def draw_noisy(images: Sequence[Tensor], batch: int, size: int, generator: torch.Generator, *,
               stds: tuple[float, float] = (SMALLEST_STD, LARGEST_STD)) -> Batch:
    """Patches and their noisy versions, the logarithm of the standard deviation uniform between the two of ``stds``."""
    clean = draw_patches(images, batch, size, generator)
    std = stds[0] * (stds[1] / stds[0]) ** torch.rand(batch, generator=generator)
    noise = torch.randn(clean.shape, generator=generator)
    return clean, clean + std[:, None, None, None] * noise, std


def train_denoiser(network: UNet, photos: Sequence[Float[Tensor, "_ _"]], *, steps: int, generator: torch.Generator,
                   held_out: Sequence[Float[Tensor, "_ _"]] = (), batch: int = 8, size: int = 64, rate: float = 1e-3,
                   stds: tuple[float, float] = (SMALLEST_STD, LARGEST_STD), validate_every: int = 200,
                   checkpoint: str | None = None, checkpoint_every: int = 200, resume: bool = False,
                   bfloat16: bool = False,
                   callback: Callable[[TrainState], bool | None] | None = None) -> Training:
    """Train a network to remove white Gaussian noise from photographs.

    Mean absolute error (which, unlike the squared one, is not ruled by the highest noise levels; Zhang et al., IEEE
    TPAMI 44:6360-6376, 2022), Adam, cosine schedule with a short warm-up, gradients clipped to norm 1.

    Parameters
    ----------
    network
        A two-dimensional `UNet`, changed in place.
    photos
        Grey photographs in [0, 1].
    steps, batch, size, rate
        Number of steps, patches per step, their side in pixels, and the largest learning rate.
    generator
        Draws patches and noise.
    held_out
        Photographs whose PSNR is measured on the way (validation); without them nothing is.
    stds
        The logarithm of the noise level is uniform between these two: a plug-and-play iteration ends at low levels,
        which a uniform level would seldom show.
    validate_every, checkpoint, checkpoint_every, resume, callback
        As in `TrainLoop`.
    bfloat16
        Compute convolutions in bfloat16, weights and loss in float32; about twice as fast where the processor has it.

    Raises
    ------
    TypeError, ValueError
        If the network is not two-dimensional, a number is not in its range, or a photograph is smaller than a patch.
    """
    if not isinstance(network, UNet) or network.dims != 2:
        raise TypeError("network must be a UNet with dims=2, got "
                        f"{network.architecture if isinstance(network, UNet) else type(network).__name__}")
    for i, std in enumerate(stds):
        _checks.positive(f"stds[{i}]", std)
    images = pyramid(photos, least=size)
    draw_patches(images, 1, size, torch.Generator())

    def loss(model: nn.Module, drawn: Batch, generator: torch.Generator) -> Tensor:
        clean, noisy, std = drawn
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=bfloat16):
            denoised = model(noisy, std)
        return nn.functional.l1_loss(denoised.float(), clean)

    def validate(model: nn.Module) -> Mapping[str, float]:
        return {f"psnr_{round(255 * s)}": v
                for s, v in denoising_psnr(lambda x, std: model(x[None, None], std[None])[0, 0], held_out).items()}

    loop = TrainLoop(
        network, torch.optim.Adam(network.parameters(), rate), loss,
        Drawn(lambda g: draw_noisy(images, batch, size, g, stds=stds)), steps=steps, generator=generator,
        schedule=cosine(steps, warmup=min(100, steps - 1), final=0.01), hooks=[ClipGradNorm(1.0)],
        validate=validate if held_out else None, validate_every=validate_every if held_out else 0,
        checkpoint=checkpoint, checkpoint_every=checkpoint_every if checkpoint else 0)
    training = loop.fit(callback=callback, resume=resume)
    network.eval()
    return training


def denoising_psnr(denoise: Callable[[Tensor, Tensor], Tensor], photos: Sequence[Float[Tensor, "_ _"]],
                   stds: Sequence[float] = (15 / 255, 25 / 255, 50 / 255), *, seed: int = 0) -> dict[float, float]:
    """Mean peak signal-to-noise ratio of denoised photographs in dB, peak 1, for each noise level.

    Parameters
    ----------
    denoise
        ``denoise(noisy, std)`` on one photograph ``(h, w)``; ``std`` is a 0-d tensor.
    photos
        Grey photographs in [0, 1].
    stds
        Standard deviations of the noise.
    seed
        Of the noise: every denoiser sees the same.
    """
    result: dict[float, float] = {}
    for std in stds:
        generator = torch.Generator().manual_seed(seed)
        values = []
        for photo in photos:
            noisy = photo + std * torch.randn(photo.shape, generator=generator, dtype=photo.dtype)
            error = (denoise(noisy, photo.new_tensor(std)) - photo).square().mean().item()
            values.append(-10 * math.log10(error))
        result[std] = sum(values) / len(values)
    return result


def summary(values: Mapping[float, float]) -> dict[str, Any]:
    """JSON form of `denoising_psnr`: noise levels in 1/255, PSNR to a hundredth of a dB."""
    return {f"{255 * s:g}": round(v, 2) for s, v in values.items()}
