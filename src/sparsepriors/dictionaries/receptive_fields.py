"""What learned units respond to: orientation selectivity from the spectrum, and the best Gabor function of each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sparsepriors import _checks

_BINS = 32            # sides of the padded spectrum
_RADII = (2.0, 15.0)  # of the spectrum's bins that count
_FOURIER = 64         # sides of the spectrum whose peak starts a Gabor fit
_ENVELOPES = ((0.12, 0.12), (0.2, 0.2), (0.2, 0.1), (0.1, 0.2))  # widths that a fit starts from, of the field's side
_STEPS = 60           # of Levenberg-Marquardt
_LEAST_WIDTH = 0.3    # pixels
_DAMPING = 1e-2       # to begin with


@torch.no_grad()
def orientation_selectivity(fields: Float[Tensor, "n height width"]) -> Float[Tensor, " n"]:
    """How much of a field's spectrum lies at one orientation: 0 for none preferred, 1 for all at one.

    ``|sum P exp(2 i angle)| / sum P`` with P the power of the field, zero-padded to 32 x 32 (more for larger fields),
    at distances from 2 to 15 bins from the centre. Zero for a field without power there.

    Raises
    ------
    TypeError, ValueError
        If ``fields`` is not a stack of finite real fields.
    """
    _stack(fields)
    if not fields.numel():
        return fields.new_zeros(len(fields))
    side = max(_BINS, *(2 ** math.ceil(math.log2(n)) for n in fields.shape[1:]))
    power = torch.fft.fft2(fields, s=(side, side)).abs().square()
    bins = torch.fft.fftfreq(side, dtype=fields.dtype, device=fields.device) * side
    y, x = torch.meshgrid(bins, bins, indexing="ij")
    low, high = (r * side / _BINS for r in _RADII)
    radius = torch.hypot(x, y)
    power = power * ((radius >= low) & (radius <= high))
    angle = 2 * torch.atan2(y, x)
    total = power.sum(dim=(1, 2))
    along = torch.hypot((power * angle.cos()).sum(dim=(1, 2)), (power * angle.sin()).sum(dim=(1, 2)))
    return torch.where(total > 0, along / torch.where(total > 0, total, 1.0), 0.0)


@dataclass(frozen=True)
class GaborFit:
    """Best Gabor functions ``exp(-u^2 / 2 s_u^2 - v^2 / 2 s_v^2) (a cos(2 pi f u) + b sin(2 pi f u))`` of a stack.

    u runs along the modulation, v across it, both from the centre.

    Attributes
    ----------
    centre
        ``(n, 2)``, x and y in pixels from the first pixel's centre.
    widths
        ``(n, 2)``, s_u and s_v in pixels.
    orientation
        ``(n,)`` in radians, from 0 to pi: the direction of u, counted from x towards y.
    frequency
        ``(n,)`` in cycles per pixel.
    amplitudes
        ``(n, 2)``, a (even) and b (odd).
    explained
        ``(n,)``: the share of the field's sum of squares that the function explains.
    """

    centre: Float[Tensor, "n 2"]
    widths: Float[Tensor, "n 2"]
    orientation: Float[Tensor, " n"]
    frequency: Float[Tensor, " n"]
    amplitudes: Float[Tensor, "n 2"]
    explained: Float[Tensor, " n"]

    @property
    def cycles(self) -> Float[Tensor, "n 2"]:
        """Widths in periods, s_u f and s_v f: blobs lie near the origin, fields with many lobes far from it.

        Source: Ringach (2002), Spatial structure and symmetry of simple-cell receptive fields in macaque primary visual
        cortex, J. Neurophysiology 88.
        """
        return self.widths * self.frequency[:, None]


@torch.no_grad()
def gabor_fit(fields: Float[Tensor, "n height width"]) -> GaborFit:
    """Least-squares Gabor functions of all fields at once.

    Levenberg and Marquardt's method from four envelopes at the peak of each field's spectrum, in double precision; the
    best of the four counts. It finds local minima, so ``explained`` is a lower bound.

    Raises
    ------
    TypeError, ValueError
        If ``fields`` is not a stack of finite real fields of at least 4 x 4 pixels.
    """
    _stack(fields)
    n, height, width = fields.shape
    if min(height, width) < 4:
        raise ValueError(f"fields must have at least 4 x 4 pixels, got {height} x {width}")
    z = fields.double()
    total = z.square().sum(dim=(1, 2))
    z = (z / torch.where(total > 0, total, 1.0).sqrt()[:, None, None]).flatten(1)
    y, x = torch.meshgrid(*(torch.arange(s, dtype=torch.float64, device=fields.device) for s in (height, width)),
                          indexing="ij")
    grid = torch.stack((x.flatten(), y.flatten()))
    best = torch.zeros(n, 8, dtype=torch.float64, device=fields.device)
    least = torch.full((n,), torch.inf, dtype=torch.float64, device=fields.device)
    start = _start(z.reshape(n, height, width), grid)
    for su, sv in _ENVELOPES:
        p = start.clone()
        p[:, 2], p[:, 3] = math.log(max(su * width, 0.8)), math.log(max(sv * height, 0.8))
        p, cost = _marquardt(p, z, grid, max(height, width))
        better = cost < least
        best, least = torch.where(better[:, None], p, best), torch.where(better, cost, least)
    angle = best[:, 4]
    flip = torch.where(best[:, 5] < 0, -1.0, 1.0)     # a negative frequency is the same function with b negative
    turned = torch.where(torch.floor(angle / math.pi) % 2 == 0, 1.0, -1.0)
    b = best[:, 7] * flip * turned                    # u changes sign when the direction turns by pi
    scale = total.sqrt()
    amplitudes = torch.stack((best[:, 6], b), dim=1) * scale[:, None]
    parts = (best[:, :2], best[:, 2:4].exp(), angle % math.pi, best[:, 5].abs(), amplitudes,
             torch.where(total > 0, 1 - least, 0.0))
    return GaborFit(*(part.to(fields.dtype) for part in parts))


def _start(z: Tensor, grid: Tensor) -> Tensor:
    """Parameters at the centre of a field's energy and the peak of its spectrum: cx, cy, ., ., angle, f, ., ."""
    n, height, width = z.shape
    energy = z.flatten(1).square().square()   # squared once more: the tails of a field pull its centre less
    energy = energy / energy.sum(dim=1, keepdim=True).clamp(min=1e-300)
    power = torch.fft.fft2(z, s=(_FOURIER, _FOURIER)).abs()
    peak = power.flatten(1).argmax(dim=1)
    bins = torch.fft.fftfreq(_FOURIER, dtype=z.dtype, device=z.device)
    fy, fx = bins[peak // _FOURIER], bins[peak % _FOURIER]
    p = z.new_zeros(n, 8)
    p[:, 0], p[:, 1] = energy @ grid[0], energy @ grid[1]
    p[:, 4] = torch.atan2(fy, fx)
    p[:, 5] = torch.hypot(fx, fy).clamp(min=0.25 / max(height, width))
    return p


def _gabor(p: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Values (n, pixels) and derivatives (n, pixels, 8) for cx, cy, log s_u, log s_v, angle, f, a, b."""
    cx, cy, lu, lv, angle, f, a, b = (column[:, None] for column in p.unbind(1))
    c, s = angle.cos(), angle.sin()
    dx, dy = grid[0] - cx, grid[1] - cy
    u, v = dx * c + dy * s, dy * c - dx * s
    iu, iv = torch.exp(-2 * lu), torch.exp(-2 * lv)
    envelope = torch.exp(-0.5 * (u * u * iu + v * v * iv))
    even, odd = envelope * torch.cos(2 * math.pi * f * u), envelope * torch.sin(2 * math.pi * f * u)
    value, turn = a * even + b * odd, b * even - a * odd
    along, across = 2 * math.pi * f * turn - u * iu * value, -v * iv * value
    columns = (-c * along + s * across, -s * along - c * across, u * u * iu * value, v * v * iv * value,
               v * along - u * across, 2 * math.pi * u * turn, even, odd)
    return value, torch.stack(columns, dim=2)


def _marquardt(p: Tensor, z: Tensor, grid: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Parameters of the least squared error, and that error, from amplitudes that are best for the start."""
    _, derivatives = _gabor(p, grid)
    basis = derivatives[:, :, 6:]
    normal = basis.mT @ basis + 1e-9 * torch.eye(2, dtype=z.dtype, device=z.device)
    p[:, 6:] = torch.linalg.solve(normal, (basis.mT @ z[:, :, None]))[:, :, 0]
    value, derivatives = _gabor(p, grid)
    cost = (z - value).square().sum(dim=1)
    damping = torch.full_like(cost, _DAMPING)
    for _ in range(_STEPS):
        normal = derivatives.mT @ derivatives
        gradient = (derivatives.mT @ (z - value)[:, :, None])[:, :, 0]
        scaled = normal.diagonal(dim1=1, dim2=2).clamp(min=1e-9) * damping[:, None]
        moved = p + torch.linalg.solve(normal + torch.diag_embed(scaled), gradient)
        moved[:, :2] = moved[:, :2].clamp(-0.5 * side, 1.5 * side)
        moved[:, 2:4] = moved[:, 2:4].clamp(math.log(_LEAST_WIDTH), math.log(2.0 * side))
        moved[:, 5] = moved[:, 5].clamp(-0.6, 0.6)
        value_there, derivatives_there = _gabor(moved, grid)
        there = (z - value_there).square().sum(dim=1)
        better = there < cost
        p, cost = torch.where(better[:, None], moved, p), torch.where(better, there, cost)
        value = torch.where(better[:, None], value_there, value)
        derivatives = torch.where(better[:, None, None], derivatives_there, derivatives)
        damping = torch.where(better, damping / 3, damping * 4).clamp(1e-9, 1e9)
    return p, cost


def _stack(fields: object) -> None:
    z = _checks.inexact("fields", fields)
    if z.is_complex() or z.ndim != 3:
        raise ValueError(f"fields must be real of shape (n, height, width), got {z.dtype} of shape {tuple(z.shape)}")
