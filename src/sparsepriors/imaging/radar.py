"""Near-field radar imaging: reflectivity volumes of random phase from few antennas and frequencies.

The phase of a reflectivity jumps from voxel to voxel and only its magnitude has structure, so that every prior here
acts on magnitudes (Oral and Oktem, "Plug-and-play regularization on magnitude with deep priors for 3D near-field MIMO
imaging", IEEE Trans. Computational Imaging 10, 2024). `reconstruct` solves

    minimise R(|s|)  subject to  ||y - A s||_2 <= eps

with C-SALSA; `migrate` gives the direct inversions that radar practice compares with.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Complex, Float, Inexact
from torch import Tensor

from sparsepriors import _checks, _files
from sparsepriors.imaging.inexact_tv import InexactTV
from sparsepriors.operators.radar import BornMIMO
from sparsepriors.priors import L1, TV, Denoiser, Magnitude, PlugAndPlay, Prior
from sparsepriors.solvers import Callback, Solution, csalsa

DENOISER = "radar-unet3d"
"""The shipped weights of the magnitude denoiser."""

MIGRATIONS = ("adjoint", "backprojection", "kirchhoff")
PRIORS = ("network", "tv", "tv-inexact", "l1")
TUNING = Path(__file__).with_name("radar_tuning.json")
"""What was tried when the settings were tuned, and what was chosen."""


@dataclass(frozen=True)
class Settings:
    """How C-SALSA is run with one prior.

    Parameters
    ----------
    alpha
        Step of the prior's prox for magnitudes with maximum 1: a noise variance for the network, a threshold for l1.
    kappa_ratio
        Weight of the split on the prior over the mean diagonal of A^H A. The published kappa = 500 at 20 frequencies
        on the paper's grid is the ratio 1.5.
    max_iter
        Iterations at most.

    Raises
    ------
    TypeError, ValueError
        If a number is not positive.
    """

    alpha: float
    kappa_ratio: float
    max_iter: int

    def __post_init__(self) -> None:
        for name in ("alpha", "kappa_ratio"):
            _checks.positive_number(name, getattr(self, name))
        _checks.count("max_iter", self.max_iter, low=1)


def tuned_settings(prior: str, snr_db: float = 30.0) -> Settings:
    """The settings for a named prior, tuned at the signal-to-noise ratio nearest to ``snr_db``.

    They gave the best mean PSNR on two scenes that no experiment uses, out of a grid of the same size for every
    prior; ``scripts/tune_radar.py`` searches it and keeps the whole table beside this module.

    Raises
    ------
    ValueError
        If the prior is none of `PRIORS`, or the ratio is not finite.
    """
    _checks.one_of("prior", prior, PRIORS)
    snr_db = _checks.number("snr_db", snr_db)
    chosen = _tuned()[prior]
    return chosen[min(chosen, key=lambda tuned: abs(tuned - snr_db))]


@functools.cache
def _tuned() -> dict[str, dict[float, Settings]]:
    chosen = _files.read_json(TUNING)["chosen"]
    return {prior: {float(snr): Settings(**values) for snr, values in by_snr.items()}
            for prior, by_snr in chosen.items()}


def named_prior(name: str, *, scale_invariant: bool = False) -> Prior:
    """The prior of 3-D magnitudes that `reconstruct` uses under this name.

    ``"network"``: the shipped denoiser, `PlugAndPlay`; ``"tv"``: isotropic total variation, its prox to a stated gap;
    ``"tv-inexact"``: the same by the paper's five primal-dual steps; ``"l1"``.

    Raises
    ------
    ValueError
        If the name is another.
    """
    match _checks.one_of("name", name, PRIORS):
        case "network":
            return Magnitude(PlugAndPlay(Denoiser(DENOISER, scale_invariant=scale_invariant)))
        case "tv":
            return Magnitude(TV(1.0, dims=3))
        case "tv-inexact":
            return Magnitude(PlugAndPlay(InexactTV()))
        case _:
            return L1(1.0, dims=3)


def data_radius(y: Complex[Tensor, "..."], snr_db: float) -> Float[Tensor, "..."]:
    """Radius eps of the data ball of measurements whose noise is only known as a ratio: ``||y|| 10^(-SNR/20)``.

    One number per item, shape ``y.shape[:-3]``. This is how the paper sets eps for measured data (SNR 10 dB); for
    simulated data it takes ``sqrt(M) sigma``, see `sparsepriors.data.radar.Simulation.eps`.

    Raises
    ------
    TypeError, ValueError
        If ``y`` has fewer than three axes or is not finite, or ``snr_db`` is not finite.
    """
    if _checks.inexact("y", y).ndim < 3:
        raise ValueError(f"y must have shape (..., K, T, R), got {tuple(y.shape)}")
    snr_db = _checks.number("snr_db", snr_db)
    return torch.linalg.vector_norm(y, dim=(-3, -2, -1)) * 10 ** (-snr_db / 20)


def reconstruct(y: Complex[Tensor, "..."], A: BornMIMO, prior: str | Prior = "network", *,
                eps: float | Tensor | None = None, snr_db: float | None = None, scale: float | None = None,
                settings: Settings | None = None, alpha: float | None = None, kappa: float | None = None,
                max_iter: int | None = None, tol: float = 5e-4, callback: Callback | None = None) -> Solution:
    """Image a scene from near-field measurements.

    Parameters
    ----------
    y
        Measurements ``(..., K, T, R)`` in the operator's dtype; leading axes are separate scenes.
    A
        The array, its frequencies and the grid of voxels.
    prior
        A name of `named_prior`, or any prior of complex volumes, such as ``Magnitude(...)`` of your own, which needs
        ``alpha`` (or ``settings``).
    eps, snr_db
        How much of y is noise: its norm, or the signal-to-noise ratio in dB from which `data_radius` computes it.
        Exactly one of the two.
    scale
        Largest magnitude to expect in the scene; the settings are made for 1. ``None``: it is estimated from the data,
        and the network, made scale-invariant, sees every iterate divided by its own maximum.
    settings, alpha, kappa, max_iter
        In place of those of `tuned_settings` for the prior. ``kappa`` is in the units of ``A^H A``, by default
        ``kappa_ratio`` times the mean of its diagonal, which carries the published value to other arrays and grids.
    tol, callback
        As in `sparsepriors.solvers.csalsa`.

    Returns
    -------
    Solution
        ``x`` is the complex reflectivity ``(..., X, Y, Z)``, in the units of y; trace and extras as C-SALSA states
        them, the extras ``t``, ``v``, ``d1``, ``d2`` in units of the scale.

    Raises
    ------
    TypeError, ValueError
        If the measurements do not fit the operator, are real or hold NaN, or a parameter is missing or out of range.
    """
    if not isinstance(A, BornMIMO):
        raise TypeError(f"A must be a BornMIMO operator, got {type(A).__name__}")
    _checks.trailing_shape("y", _checks.inexact("y", y), A.out_shape)
    _checks.same_dtype("y", y, A.out_dtype)
    if (eps is None) == (snr_db is None):
        raise ValueError(f"give exactly one of eps and snr_db, got eps={eps!r} and snr_db={snr_db!r}")
    norm = torch.linalg.vector_norm(y, dim=(-3, -2, -1))
    if not bool((norm > 0).all()):
        raise ValueError("y must not be zero: there is nothing to image")
    if snr_db is not None:
        eps = data_radius(y, snr_db)
    assert eps is not None
    _checks.positive("eps", eps)
    if isinstance(eps, Tensor) and eps.shape not in ((), (1,), norm.shape):
        raise ValueError(f"eps must be a number or have the batch shape {tuple(norm.shape)}, got {tuple(eps.shape)}")
    _checks.instance("prior", prior, (str, Prior))
    if settings is None:
        settings = _settings(prior, alpha, float((20 * torch.log10(norm / eps)).mean()))
    changes = {k: v for k, v in (("alpha", alpha), ("max_iter", max_iter)) if v is not None}
    settings = dataclasses.replace(settings, **changes)
    if isinstance(prior, str):
        prior = named_prior(prior, scale_invariant=scale is None)
    if kappa is None:
        kappa = settings.kappa_ratio * A.mean_diagonal()
    if scale is None:
        unit = estimated_scale(y, A)
    else:
        scale = _checks.positive_number("scale", scale)
        unit = torch.full(y.shape[:-3], scale, dtype=A.dtype.to_real(), device=y.device)
    spread = unit.reshape(*unit.shape, 1, 1, 1)
    solution = csalsa(A, y / spread, prior, eps=eps / unit, kappa=kappa, alpha=settings.alpha,
                      max_iter=settings.max_iter, tol=tol, callback=callback)
    return dataclasses.replace(solution, x=solution.x * spread)


def migrate(y: Complex[Tensor, "..."], A: BornMIMO, method: str = "kirchhoff") -> Complex[Tensor, "..."]:
    """Image a scene directly, without a prior: ``"adjoint"``, ``"backprojection"`` or ``"kirchhoff"``.

    Raises
    ------
    TypeError, ValueError
        If the measurements do not fit the operator or the method is another.
    """
    if not isinstance(A, BornMIMO):
        raise TypeError(f"A must be a BornMIMO operator, got {type(A).__name__}")
    return getattr(A, _checks.one_of("method", method, MIGRATIONS))(y)


def estimated_scale(y: Complex[Tensor, "..."], A: BornMIMO) -> Float[Tensor, "..."]:
    """A guess of the largest magnitude in the scene, one per item: the peak of the matched filter.

    The peak of ``|A^H y|`` over the mean diagonal of ``A^H A``: right for a single voxel, to the extent that the
    diagonal is constant; for a body it is off by what its other voxels add at random.

    Raises
    ------
    TypeError, ValueError
        If the measurements do not fit the operator, or one of them is zero.
    """
    peak = A.adjoint(y).abs().amax((-3, -2, -1))
    if not bool((peak > 0).all()):
        raise ValueError("y must not be zero: there is nothing to image")
    return peak / A.mean_diagonal()


def magnitude_psnr(estimate: Inexact[Tensor, "..."], target: Float[Tensor, "..."],
                   scaling: str = "peak") -> Float[Tensor, "..."]:
    """Peak signal-to-noise ratio of magnitude volumes in dB, one number per volume (the last three axes).

    Parameters
    ----------
    estimate
        Complex or real; its modulus is compared.
    target
        The true magnitude.
    scaling
        ``"peak"``: the estimate is divided by its own maximum and the target by its, as the paper reports, so that one
        hot voxel spoils it; ``"best"``: the estimate is scaled to the smallest error.

    Raises
    ------
    TypeError, ValueError
        If the shapes differ, a volume is zero, or the scaling is another.
    """
    _checks.one_of("scaling", scaling, ("peak", "best"))
    if _checks.inexact("target", target).is_complex():
        raise TypeError(f"target must be a real magnitude, got {target.dtype}")
    if _checks.inexact("estimate", estimate).shape != target.shape or target.ndim < 3:
        raise ValueError(f"estimate and target must have one shape (..., x, y, z), got {tuple(estimate.shape)} and "
                         f"{tuple(target.shape)}")
    axes = (-3, -2, -1)
    found = estimate.abs()
    peaks = found.amax(axes, keepdim=True), target.amax(axes, keepdim=True)
    if not all(bool((p > 0).all()) for p in peaks):
        raise ValueError("estimate and target must not be zero: a peak ratio is not defined")
    target = target / peaks[1]
    if scaling == "peak":
        found = found / peaks[0]
    else:
        found = found * ((found * target).sum(axes, keepdim=True) / found.square().sum(axes, keepdim=True))
    return -10 * (found - target).square().mean(axes).log10()


def _settings(prior: str | Prior, alpha: float | None, snr_db: float) -> Settings:
    if isinstance(prior, str):
        return tuned_settings(prior, snr_db)
    if alpha is None:
        raise ValueError(f"a {type(prior).__name__} of your own needs alpha, the step of its prox for magnitudes with "
                         f"maximum 1")
    return tuned_settings("network", snr_db)
