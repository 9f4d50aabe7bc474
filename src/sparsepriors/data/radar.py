"""Simulated scenes of near-field radar: random reflectivity volumes and their noisy measurements."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.operators.base import LinearOperator

_WALK = (15, 35)   # points of one random walk, inclusive
_STEP = 2          # largest step of the walk along an axis, voxels
_BLUR = 0.9        # standard deviation of the Gaussian, voxels
_SLOPE, _LEVEL = 14.0, 0.35


def random_blobs(n: int, shape: tuple[int, int, int], generator: torch.Generator) -> Float[Tensor, "n x y z"]:
    """Random soft-edged bodies in empty space: magnitudes in [0, 1] with maximum 1, float32.

    Each volume follows a random walk of 15 to 35 points whose steps are uniform on {-2, ..., 2} along each axis and
    which keeps two voxels away from the faces. The visited voxels are blurred with a Gaussian (0.9 voxel), divided by
    their maximum and passed through a sigmoid (slope 14 at 0.35), shifted so that empty space is exactly zero.

    Raises
    ------
    TypeError, ValueError
        If ``n`` is not a nonnegative integer or ``shape`` not three integers of at least 6.

    Notes
    -----
    The published training volumes (Manisali, Oral, Oktem, Digital Signal Processing 144:104274, 2024) are random
    points in a sub-cube, blurred and squashed in this manner; their generator is not public and these are its numbers
    as far as the text gives them.
    """
    _checks.count("n", n)
    if len(shape) != 3:
        raise ValueError(f"shape must have three entries, got {shape}")
    for i, size in enumerate(shape):
        _checks.count(f"shape[{i}]", size, low=6)
    device = generator.device
    walls = torch.tensor(shape, device=device)
    margin = 2
    low, high = torch.full_like(walls, margin), walls - 1 - margin

    def integers(first: Tensor, last: Tensor, *size: int) -> Tensor:
        u = torch.rand(*size, generator=generator, device=device)
        return (first + (u * (last - first + 1)).floor()).long().clamp(max=last)

    # A walk starts in the middle half, so that it seldom creeps along a face.
    quarter = walls // 4
    at = integers(torch.maximum(low, quarter), torch.minimum(high, walls - 1 - quarter), n, 3)
    points = integers(torch.tensor(_WALK[0], device=device), torch.tensor(_WALK[1], device=device), n)
    steps = integers(torch.tensor(-_STEP, device=device), torch.tensor(_STEP, device=device), n, _WALK[1], 3)
    visited = torch.zeros(n, *shape, device=device)
    rows = torch.arange(n, device=device)
    for i in range(_WALK[1]):
        here = i < points
        visited[rows[here], at[here, 0], at[here, 1], at[here, 2]] = 1.0
        at = (at + steps[:, i]).clamp(low, high)
    smooth = _blur(visited)
    peak = smooth.flatten(1).amax(1).clamp(min=torch.finfo(torch.float32).tiny)
    soft = torch.sigmoid(_SLOPE * (smooth / peak[:, None, None, None] - _LEVEL))
    floor, top = (1 / (1 + math.exp(_SLOPE * (_LEVEL - v))) for v in (0.0, 1.0))
    return ((soft - floor) / (top - floor)).clamp(0, 1)


def random_phase(magnitude: Float[Tensor, "*shape"], generator: torch.Generator) -> Complex[Tensor, "*shape"]:
    """Give every voxel of a magnitude volume an independent phase, uniform on [0, 2 pi).

    Raises
    ------
    TypeError, ValueError
        If ``magnitude`` is not real, finite and nonnegative.
    """
    if _checks.inexact("magnitude", magnitude).is_complex():
        raise TypeError(f"magnitude must be real, got {magnitude.dtype}")
    _checks.nonnegative("magnitude", magnitude)
    phase = torch.rand(magnitude.shape, generator=generator, device=generator.device, dtype=magnitude.dtype)
    return torch.polar(magnitude, (2 * math.pi * phase).to(magnitude.device))


@dataclass(frozen=True)
class Simulation:
    """A scene, what the radar measured of it, and how much of that is noise.

    Attributes
    ----------
    scene
        Complex reflectivity.
    y
        Noisy measurement, A s + w.
    noise_std
        sigma_w, with E|w|^2 = sigma_w^2 per sample; one number per volume of the batch.
    """

    scene: Tensor
    y: Tensor
    noise_std: Tensor

    @property
    def eps(self) -> Tensor:
        """Radius of the data ball, sqrt(M) sigma_w with M samples per volume (Oral and Oktem, 2024)."""
        samples = self.y[0].numel() if self.noise_std.ndim else self.y.numel()
        return self.noise_std * math.sqrt(samples)


def simulate(magnitude: Float[Tensor, "..."], A: LinearOperator, *, snr_db: float,
             generator: torch.Generator) -> Simulation:
    """Measure volumes of random phase through ``A`` with circular white Gaussian noise.

    Parameters
    ----------
    magnitude
        Shape ``(*A.in_shape)`` or ``(batch, *A.in_shape)``, real, nonnegative.
    A
        Complex operator such as `BornMIMO`.
    snr_db
        Mean power of A s over noise power, in dB, for each volume.
    generator
        Draws the phases, then the noise.

    Raises
    ------
    TypeError, ValueError
        If the shapes do not fit, ``A`` is not complex, or ``snr_db`` is not finite.
    """
    if not A.in_dtype.is_complex:
        raise TypeError(f"A must act on complex volumes, got {A.in_dtype}")
    snr_db = _checks.number("snr_db", snr_db)
    _checks.trailing_shape("magnitude", _checks.inexact("magnitude", magnitude), A.in_shape)
    if magnitude.ndim > len(A.in_shape) + 1:
        raise ValueError(f"magnitude must have at most one batch axis, got shape {tuple(magnitude.shape)}")
    scene = random_phase(magnitude.to(A.in_dtype.to_real()), generator)
    clean = A(scene)
    axes = tuple(range(-len(A.out_shape), 0))
    std = (clean.abs().square().mean(dim=axes) * 10 ** (-snr_db / 10)).sqrt()
    noise = torch.randn(clean.shape, generator=generator, device=generator.device, dtype=clean.dtype)
    return Simulation(scene, clean + noise.to(clean.device) * std.reshape(*std.shape, *[1] * len(axes)), std)


def _blur(x: Tensor) -> Tensor:
    """Separable Gaussian of three standard deviations to either side; ``(n, x, y, z)`` in and out."""
    reach = math.ceil(3 * _BLUR)
    t = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (t / _BLUR) ** 2)
    kernel = kernel / kernel.sum()
    for axis in (1, 2, 3):
        rows = x.movedim(axis, -1)
        smooth = torch.nn.functional.conv1d(rows.reshape(-1, 1, rows.shape[-1]), kernel[None, None], padding=reach)
        x = smooth.reshape(rows.shape).movedim(-1, axis)
    return x
