"""Random undersampling of k-space: denser in the middle, where the energy of images is."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsepriors import _checks


def polynomial_density(shape: tuple[int, ...], power: float = 3.0) -> Float[Tensor, "..."]:
    """Relative sampling density (1 - r)^power, with r the distance from the zero frequency, 1 at the farthest point.

    The zero frequency lies at index ``n // 2`` of each axis, as in a centred Fourier transform.

    Raises
    ------
    TypeError, ValueError
        If the shape holds something else than positive integers, or ``power`` is negative.
    """
    shape = _checks.shape("shape", shape)
    if not shape or not all(shape):
        raise ValueError(f"shape must have at least one axis and no zero, got {shape}")
    _checks.nonnegative("power", power)
    square = torch.zeros(shape, dtype=torch.float64)
    for axis, n in enumerate(shape):
        offset = (torch.arange(n, dtype=torch.float64) - n // 2) / max(n / 2, 1)
        square = square + offset.square().reshape(-1, *[1] * (len(shape) - axis - 1))
    radius = square.sqrt()
    return (1 - radius / radius.max().clamp(min=1e-12)) ** power


def variable_density(shape: tuple[int, ...], acceleration: float, *, generator: torch.Generator, power: float = 3.0,
                     centre: float = 0.04, tries: int = 1) -> Bool[Tensor, "..."]:
    """A random mask of exactly ``round(n / acceleration)`` of the n points, drawn in proportion to a density.

    Points are drawn without replacement with probability in proportion to `polynomial_density`; those in the middle are
    all taken. Where ``tries`` is more than one, so many masks are drawn and the one whose aliasing is least coherent is
    kept: the smallest largest side lobe of its point spread function (Lustig, Donoho and Pauly, Magn. Reson. Med.
    58:1182-1195, 2007, section on variable density sampling).

    Parameters
    ----------
    shape
        Shape of k-space. One axis: phase-encode lines, see `cartesian_lines`.
    acceleration
        Points over points sampled, at least 1.
    generator
        Draws the points.
    power
        Exponent of the density; 0 is uniform.
    centre
        Share of all points that is sampled in the middle, a ball around the zero frequency; at most ``1/acceleration``.
    tries
        Number of masks to choose from.

    Raises
    ------
    TypeError, ValueError
        If an argument is not in its range.
    """
    density = polynomial_density(shape, power)
    _checks.positive("acceleration", acceleration)
    _checks.nonnegative("centre", centre)
    _checks.count("tries", tries, low=1)
    if acceleration < 1 or centre > 1 / acceleration:
        raise ValueError(f"acceleration must be at least 1 and centre at most 1 / acceleration, got {acceleration} and "
                         f"{centre}")
    wanted = max(round(density.numel() / acceleration), 1)
    radius = 1 - polynomial_density(shape, 1.0).reshape(-1)
    middle = torch.zeros(density.numel(), dtype=torch.bool)
    middle[radius.argsort(stable=True)[:min(round(centre * density.numel()), wanted)]] = True
    left = wanted - int(middle.sum())
    logits = density.reshape(-1).clamp(min=1e-9).log().masked_fill(middle, -torch.inf)
    best, least = middle, torch.inf
    for _ in range(tries):
        # The largest of log p + Gumbel noise are a draw without replacement in proportion to p.
        u = torch.rand(logits.shape, generator=generator, dtype=torch.float64, device=generator.device).cpu()
        keys = logits - (-(u.clamp(min=1e-300)).log()).log()
        mask = middle.clone()
        mask[keys.topk(left).indices] = True
        lobe = _largest_side_lobe(mask.reshape(shape)) if tries > 1 else 0.0
        if lobe < least:
            best, least = mask, lobe
    return best.reshape(shape)


def cartesian_lines(shape: tuple[int, int], acceleration: float, *, generator: torch.Generator, power: float = 3.0,
                    centre: float = 0.08, tries: int = 1) -> Bool[Tensor, "height width"]:
    """A mask of whole rows: phase-encode lines of a Cartesian scan, each read out in full.

    Parameters
    ----------
    shape
        Height (phase encodes) and width (read-out).
    acceleration, generator, power, centre, tries
        As in `variable_density`, of lines; ``centre`` is the share of all lines.
    """
    if len(shape) != 2:
        raise ValueError(f"shape must have two entries, got {shape}")
    lines = variable_density((shape[0],), acceleration, generator=generator, power=power, centre=centre, tries=tries)
    return lines[:, None].expand(*shape).contiguous()


def _largest_side_lobe(mask: Tensor) -> float:
    psf = torch.fft.fftn(mask.double()).abs().reshape(-1)
    return float(psf[1:].max() / psf[0]) if psf.numel() > 1 else 0.0
