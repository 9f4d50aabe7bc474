"""Images from a fraction of their Fourier samples: compressed-sensing MRI (Lustig, Donoho and Pauly, 2007).

The scan is y = S F (p u) + noise: a real image u times a phase p that varies slowly, through the centred unitary
Fourier transform F, sampled where a mask S says. The phase is estimated from the middle of k-space and becomes part of
the operator, as the paper proposes; the image minimises 1/2 ||A u - y||^2 + R(u), each method with its own R.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.operators import (
    Diagonal,
    FiniteDifference,
    FourierTransform,
    LinearOperator,
    RealToComplex,
    Sampling,
    WaveletTransform,
    greatest_levels,
)
from sparsepriors.priors import L1, Denoiser, GroupL2, InBasis, PlugAndPlay, Zero
from sparsepriors.solvers import Callback, Solution, hqs, noise_schedule, primal_dual, proximal_gradient

METHODS = ("zero-filled", "wavelet", "tv", "tv+wavelet", "plug-and-play")
"""What `reconstruct` knows."""

WEIGHTS = {"wavelet": (0.004,), "tv": (0.003,), "tv+wavelet": (0.003, 0.0003), "plug-and-play": (0.005,)}
"""Default weights where the largest modulus of the zero-filled image is 1: of the l1 norm, of the total variation, of
both, and the last standard deviation that the denoiser is told."""

_WAVELET, _MOST_LEVELS = "db4", 5
_LOUDEST, _ANNEALING = 49 / 255, 30   # first noise level of the denoiser, and how many it falls through
_DUAL_STEP = 0.015   # of images of size 1; the duals are as small as the weights


def acquisition(mask: Bool[Tensor, "h w"], phase: Complex[Tensor, "h w"] | None = None) -> LinearOperator:
    """The operator from a real image to its Fourier samples where ``mask`` is true, complex64.

    Parameters
    ----------
    mask
        Samples of centred k-space that were measured; the zero frequency is at ``(h // 2, w // 2)``.
    phase
        Factors of modulus 1 that the image is multiplied by; 1 by default.

    Raises
    ------
    TypeError, ValueError
        If the mask is not a boolean matrix, or the phase has another shape.
    """
    _checks.boolean("mask", mask)
    if mask.ndim != 2:
        raise ValueError(f"mask must be a matrix, got shape {tuple(mask.shape)}")
    shape = (mask.shape[0], mask.shape[1])
    A = Sampling(mask, torch.complex64) @ FourierTransform(shape)
    if phase is not None:
        _checks.trailing_shape("phase", _checks.inexact("phase", phase), shape)
        A = A @ Diagonal(phase.to(torch.complex64))
    return A @ RealToComplex(shape)


def estimated_phase(y: Complex[Tensor, " samples"], mask: Bool[Tensor, "h w"],
                    width: float = 0.18) -> Complex[Tensor, "h w"]:
    """The phase of the image at low resolution: k-space under a Hann window of ``width`` times its size.

    Raises
    ------
    TypeError, ValueError
        If the samples are not as many as the mask has, or ``width`` is not in (0, 1].
    """
    _checks.positive("width", width)
    if width > 1:
        raise ValueError(f"width must be at most 1, got {width}")
    full = Sampling(mask, torch.complex64)
    k = full.adjoint(y)
    for axis, n in enumerate(mask.shape):
        t = (torch.arange(n) - n // 2) / (width * n)
        window = torch.where(t.abs() < 0.5, torch.cos(torch.pi * t).square(), 0)
        k = k * window.reshape(-1, *[1] * (mask.ndim - axis - 1))
    low = FourierTransform(tuple(mask.shape)).adjoint(k)
    size = low.abs()
    return torch.where(size > 0, low / size.clamp(min=torch.finfo(size.dtype).tiny), 1)


def reconstruct(y: Complex[Tensor, " samples"], mask: Bool[Tensor, "h w"], method: str = "tv+wavelet", *,
                real: bool = False, weights: tuple[float, ...] | None = None, denoiser: Denoiser | None = None,
                max_iter: int = 100, tol: float = 1e-4, callback: Callback | None = None) -> Solution:
    """The image behind undersampled k-space.

    Parameters
    ----------
    y
        The measured samples, complex64, in the row-major order of ``mask``.
    mask
        Where they lie in centred k-space.
    method
        ``"zero-filled"``: the adjoint; ``"wavelet"``: l1 norm of Daubechies' orthonormal wavelet coefficients (FISTA);
        ``"tv"``: isotropic total variation, and ``"tv+wavelet"``: both (Condat-Vu); ``"plug-and-play"``: your
        ``denoiser`` of images (half-quadratic splitting with a falling noise level, `hqs`).
    real
        The image has no phase (a photograph); else it is estimated, see `estimated_phase`.
    weights
        In place of `WEIGHTS`, in the same unit.
    denoiser
        Trained on images with values in [0, 1]; for ``"plug-and-play"`` and for no other method.
    max_iter, tol, callback
        As in the solvers.

    Returns
    -------
    Solution
        ``x`` is the image: real, the phase removed, in the unit of y.

    Raises
    ------
    TypeError, ValueError
        If samples and mask do not fit, the method is unknown, it takes another number of weights, or the denoiser is
        missing or in vain.
    """
    _checks.one_of("method", method, METHODS)
    if (method == "plug-and-play") != (denoiser is not None):
        raise ValueError(f"a denoiser goes with the method 'plug-and-play' and with no other, got {method!r} and "
                         f"denoiser={denoiser!r}")
    A = acquisition(mask, None if real else estimated_phase(y, mask))
    zero_filled = A.adjoint(y)
    if method == "zero-filled":
        return Solution(zero_filled, {}, 0, converged=True, certificate=0.0)
    unit = float(zero_filled.abs().max())
    if unit == 0:
        raise ValueError("y must not be zero: there is nothing to reconstruct")
    weights = WEIGHTS[method] if weights is None else weights
    if len(weights) != len(WEIGHTS[method]):
        raise ValueError(f"{method} takes {len(WEIGHTS[method])} weights, got {weights}")
    found = _solve(A, y / unit, method, weights, denoiser, zero_filled / unit, max_iter, tol, callback)
    return Solution(found.x * unit, found.trace, found.iterations, found.converged, found.certificate)


def axial_slice(volume: Float[Tensor, "x y z"], z: int, shape: tuple[int, int] = (224, 192)) -> Float[Tensor, "h w"]:
    """A horizontal slice of a scan (axes right, anterior, superior), front up, cropped around its middle, maximum 1.

    Raises
    ------
    TypeError, ValueError
        If ``z`` or ``shape`` lie outside of the volume, or the crop is empty.
    """
    if _checks.inexact("volume", volume).ndim != 3:
        raise ValueError(f"volume must have three axes, got shape {tuple(volume.shape)}")
    _checks.count("z", z, low=0, high=volume.shape[2] - 1)
    whole = volume[:, :, z].T.flip(0)
    for name, n, most in zip(("height", "width"), shape, whole.shape, strict=True):
        _checks.count(name, n, low=1, high=most)
    top, left = ((most - n) // 2 for n, most in zip(shape, whole.shape, strict=True))
    cut = whole[top:top + shape[0], left:left + shape[1]]
    if not bool(cut.max() > 0):
        raise ValueError(f"slice {z} is empty")
    return (cut / cut.max()).contiguous()


def smooth_phase(shape: tuple[int, int], generator: torch.Generator,
                 swing: float = 1.5) -> Complex[Tensor, "h w"]:
    """A random phase factor that varies slowly, such as field inhomogeneity gives: a polynomial of degree 3.

    Parameters
    ----------
    shape
        Height and width.
    generator
        Draws the coefficients of the products of Legendre polynomials, standard normal.
    swing
        Standard deviation of the phase over the image, radians.

    Raises
    ------
    TypeError, ValueError
        If the shape is not two positive integers, or ``swing`` is negative.
    """
    if len(_checks.shape("shape", shape)) != 2 or not all(shape):
        raise ValueError(f"shape must be two positive integers, got {shape}")
    _checks.nonnegative("swing", swing)
    coefficients = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    order = torch.arange(4)
    coefficients[order[:, None] + order > 3] = 0
    phi = torch.einsum("ih,jw,ij->hw", _legendre(shape[0]), _legendre(shape[1]), coefficients)
    phi = (phi - phi.mean()) * (swing / phi.std(correction=0).clamp(min=1e-12))
    return torch.polar(torch.ones_like(phi), phi).to(torch.complex64)


def _legendre(n: int) -> Tensor:
    """The Legendre polynomials of degree 0 to 3 at the middles of n cells of [-1, 1]."""
    t = (2 * torch.arange(n, dtype=torch.float64) + 1) / n - 1
    return torch.stack([torch.ones_like(t), t, (3 * t**2 - 1) / 2, (5 * t**3 - 3 * t) / 2])


def _solve(A: LinearOperator, y: Tensor, method: str, weights: tuple[float, ...], denoiser: Denoiser | None,
           start: Tensor, max_iter: int, tol: float, callback: Callback | None) -> Solution:
    shape = A.in_shape
    levels = min(_MOST_LEVELS, greatest_levels(shape))
    strength, *rest = weights
    match method:
        case "wavelet":
            return proximal_gradient(A, y, InBasis(L1(strength), WaveletTransform(shape, _WAVELET, levels)), step=1.0,
                                     objective=False, x0=start, max_iter=max_iter, tol=tol, callback=callback)
        case "plug-and-play":
            assert denoiser is not None
            steps = min(max_iter, _ANNEALING)
            return hqs(A, y, PlugAndPlay(denoiser), noise_std=strength,
                       stds=noise_schedule(max(_LOUDEST, strength), strength, steps), solve="cg", cg_iters=8, x0=start,
                       max_iter=steps, tol=tol, callback=callback)
        case _:
            wavelet = InBasis(L1(rest[0]), WaveletTransform(shape, _WAVELET, levels)) if rest else Zero()
            return primal_dual(A, y, wavelet, terms=[(GroupL2(strength, axis=-3), FiniteDifference(shape))],
                               sigma=_DUAL_STEP, objective=False, x0=start, max_iter=max_iter, tol=tol,
                               callback=callback)
