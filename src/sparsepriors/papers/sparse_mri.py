"""Lustig, Donoho and Pauly (2007): brain images from a quarter and an eighth of their Fourier samples.

Axial slices of the MNI152 brain (the mean of 152 real T1 scans) get a smooth random phase and are sampled in k-space at
random, denser in the middle, with complex noise; photographs likewise, without a phase. The strengths were chosen on
other slices and photographs by ``scripts/tune_sparse_mri.py``, the same number of trials for each method.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparsepriors import _files
from sparsepriors.data.photos import luma, photos
from sparsepriors.data.scans import mni152
from sparsepriors.imaging import mri
from sparsepriors.imaging.metrics import psnr, ssim
from sparsepriors.imaging.sampling import variable_density
from sparsepriors.priors import Denoiser
from sparsepriors.runs import Claim, Paper, Run, Scale

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER = Paper(
    slug="sparse-mri",
    title="Sparse MRI: The application of compressed sensing for rapid MR imaging",
    authors="Michael Lustig, David Donoho, John M. Pauly",
    year=2007,
    url="https://doi.org/10.1002/mrm.21391",
    room="imaging.mri",
    method=(
        "Measure a random part of k-space, denser in its middle, so that undersampling looks like noise.",
        "Estimate the slowly varying phase from the middle of k-space and make it part of the operator.",
        "Look for the image that fits the samples and is sparse: in wavelets, in its gradient (TV), or in both.",
        "Beside it, as later work has it: an image that a network trained on photographs takes for clean.",
    ),
    claims=(
        Claim("wavelet-4x", "At 4x, sparsity in wavelets beats filling with zeros (PSNR in dB, brain slices)",
              "shown in figures, no PSNR reported", "zero-filled", margin=2.0),
        Claim("tv-4x", "At 4x, sparsity of the gradient beats filling with zeros (PSNR in dB, brain slices)",
              "shown in figures, no PSNR reported", "zero-filled", margin=4.0),
        Claim("joint-over-wavelet-4x", "At 4x, both penalties together beat wavelets alone (PSNR in dB, brain slices)",
              "both are used together, no PSNR reported", "wavelet", margin=1.0),
        Claim("joint-over-tv-4x", "At 4x, both penalties together are no worse than TV alone (PSNR, dB, brain slices)",
              "both are used together, no PSNR reported", "tv"),
        Claim("joint-8x", "At 8x, both penalties together beat filling with zeros (PSNR in dB, brain slices)",
              "shown in figures, no PSNR reported", "zero-filled", margin=4.0),
        Claim("learned-photo-4x", "At 4x, a denoiser learned from photographs beats both penalties on photographs "
              "(PSNR in dB)", "not in the paper: learned priors came later", "tv+wavelet", margin=0.5),
    ),
)

SLICES, PHOTOGRAPHS = (70, 78, 86, 104, 112), ("camera", "chelsea", "china", "rocket")
NOISE_STD = 0.01
METHODS = ("zero-filled", "wavelet", "tv", "tv+wavelet", "plug-and-play")
DENOISER = "photo-unet2d"
"""Trained on photographs alone; none of those judged here, and no brain."""

TUNING_SLICES, TUNING_PHOTOGRAPHS = (60, 95), ("astronaut", "coffee")
"""What the strengths were chosen on; no seed draws these images."""

TUNING = Path(__file__).with_name("sparse_mri_tuning.json")
"""The strengths chosen, and everything that was tried."""


@dataclass(frozen=True)
class Case:
    """One image to reconstruct."""

    name: str
    image: Tensor
    acceleration: int
    real: bool


def run(scale: Scale, seed: int, run: Run) -> None:
    """Reconstruct the seed's slice and photograph with every method, and compare."""
    found = _measure(run, _cases(scale, seed), seed, max_iter=10 if scale is Scale.SMOKE else 100)
    for claim, case, ours, baseline in (
            ("wavelet-4x", "brain-4x", "wavelet", "zero-filled"), ("tv-4x", "brain-4x", "tv", "zero-filled"),
            ("joint-over-wavelet-4x", "brain-4x", "tv+wavelet", "wavelet"),
            ("joint-over-tv-4x", "brain-4x", "tv+wavelet", "tv"),
            ("joint-8x", "brain-8x", "tv+wavelet", "zero-filled"),
            ("learned-photo-4x", "photo-4x", "plug-and-play", "tv+wavelet")):
        run.claim(claim, ours=found[case, ours], baseline=found[case, baseline])


def demo(run: Run) -> None:
    """One slice and one photograph, with pictures."""
    _measure(run, _cases(Scale.DEFAULT, 0), 0, max_iter=100)


def _cases(scale: Scale, seed: int) -> list[Case]:
    """The images of a seed; at smoke scale every other pixel."""
    step = 2 if scale is Scale.SMOKE else 1
    return cases(SLICES[seed % len(SLICES)], PHOTOGRAPHS[seed % len(PHOTOGRAPHS)], step)


def cases(z: int, photograph: str, step: int = 1) -> list[Case]:
    """One axial slice at two accelerations and the middle of one photograph, every ``step``-th pixel."""
    brain = mri.axial_slice(_brain(), z)[::step, ::step].contiguous()
    photo = luma(photos([photograph])[photograph])
    top, left = ((n - 256) // 2 for n in photo.shape)
    photo = photo[top:top + 256:step, left:left + 256:step].contiguous()
    return [Case("brain-4x", brain, 4, real=False), Case("brain-8x", brain, 8, real=False),
            Case("photo-4x", photo, 4, real=True)]


def measure(case: Case, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Samples of k-space with their noise, and the mask of where they lie."""
    shape = (case.image.shape[0], case.image.shape[1])
    mask = variable_density(shape, case.acceleration, generator=generator)
    phase = None if case.real else mri.smooth_phase(shape, generator)
    y = mri.acquisition(mask, phase)(case.image)
    return y + NOISE_STD * torch.randn(y.shape, dtype=y.dtype, generator=generator), mask


def reconstruct(case: Case, y: Tensor, mask: Tensor, method: str, *, weights: tuple[float, ...] | None,
                max_iter: int = 100) -> Tensor:
    """The image that one method finds."""
    denoiser = Denoiser(DENOISER) if method == "plug-and-play" else None
    return mri.reconstruct(y, mask, method, real=case.real, weights=weights, denoiser=denoiser, max_iter=max_iter).x


def tuned(case: str, method: str) -> tuple[float, ...] | None:
    """The strengths chosen for a method; ``None`` for one that has none."""
    chosen = _chosen()[case].get(method)
    return None if chosen is None else tuple(chosen)


@cache
def _chosen() -> dict[str, dict[str, list[float]]]:
    return _files.read_json(TUNING)["chosen"]


@cache
def _brain() -> Tensor:
    return mni152().values


def _measure(run: Run, cases: list[Case], seed: int, max_iter: int) -> dict[tuple[str, str], float]:
    """PSNR by case and method; keeps rows and a figure for each case."""
    found: dict[tuple[str, str], float] = {}
    with run.progress(len(cases) * len(METHODS), "reconstructions") as bar:
        for number, case in enumerate(cases):
            y, mask = measure(case, torch.Generator().manual_seed(1000 * number + seed))
            images: dict[str, Tensor] = {}
            for method in METHODS:
                images[method] = run.tensors(f"{case.name}-{method}", lambda y=y, mask=mask, case=case, method=method: {
                    "x": reconstruct(case, y, mask, method, weights=tuned(case.name, method), max_iter=max_iter)})["x"]
                found[case.name, method] = float(psnr(images[method], case.image))
                run.log(case=case.name, method=method, psnr_db=found[case.name, method],
                        ssim=float(ssim(images[method], case.image)), acceleration=case.acceleration)
                bar.advance()
            run.figure(case.name, _figure(case, mask, images, found),
                       caption=f"{case.name}: reconstructions from 1/{case.acceleration} of k-space with PSNR in dB, a "
                               f"detail below, and the absolute error (white: a tenth of the largest value or more).")
    return found


def _figure(case: Case, mask: Tensor, images: dict[str, Tensor], found: dict[tuple[str, str], float]) -> Figure:
    from matplotlib.figure import Figure

    h, w = case.image.shape
    detail = (slice(h * 3 // 8, h * 5 // 8), slice(w * 3 // 8, w * 5 // 8))
    fig = Figure(figsize=(2.4 * (len(images) + 1), 7.4), layout="constrained")
    axes = fig.subplots(3, len(images) + 1)
    columns = {"truth": case.image, **images}
    for column, (name, image) in enumerate(columns.items()):
        title = name if name == "truth" else f"{name}  {found[case.name, name]:.1f} dB"
        error = (image - case.image).abs()
        for row, (shown, top) in enumerate(((image, 1.0), (image[detail], 1.0), (error, 0.1))):
            axis = axes[row, column]
            axis.set_axis_off()
            if row == 2 and column == 0:
                axis.imshow(mask.numpy(), cmap="gray", interpolation="nearest")
                axis.set_title("samples", fontsize=9)
                continue
            axis.imshow(shown.numpy(), cmap="gray" if row < 2 else "magma", vmin=0, vmax=top, interpolation="nearest")
            if row == 0:
                axis.set_title(title, fontsize=9)
    return fig
