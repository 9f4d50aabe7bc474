"""Oral and Oktem (2024): a denoiser of magnitudes as the prior of a complex radar volume.

Scenes are soft-edged bodies whose voxels have independent random phases, measured by the paper's crossed array through
the Born model. Every method sees the same measurements; alpha, kappa and the number of iterations of each were chosen
on two other scenes with the same effort (``scripts/tune_radar.py``).
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sparsepriors.data.radar import Simulation, random_blobs, simulate
from sparsepriors.data.radar_files import read_measurement, write_volume
from sparsepriors.imaging.radar import (
    DENOISER,
    MIGRATIONS,
    Settings,
    magnitude_psnr,
    migrate,
    named_prior,
    reconstruct,
    tuned_settings,
)
from sparsepriors.imaging.radar_figures import projections, traces
from sparsepriors.operators.algebra import RealToComplex
from sparsepriors.operators.base import LinearOperator
from sparsepriors.operators.radar import BornMIMO, VoxelGrid
from sparsepriors.priors import L1, Denoiser, ElasticNet, Huber, Magnitude, PlugAndPlay, Prior
from sparsepriors.runs import Claim, Paper, Run, Scale
from sparsepriors.solvers import Solution, State, csalsa

_OURS = "the learned magnitude prior"

PAPER = Paper(
    slug="radar-pnp",
    title="Plug-and-Play Regularization on Magnitude with Deep Priors for 3D Near-Field MIMO Imaging",
    authors="Okyanus Oral, Figen S. Oktem",
    year=2024,
    url="https://arxiv.org/abs/2312.16024",
    room="imaging.radar",
    method=(
        "Reflectivities have random phase, so only magnitudes are regularised: min R(|s|) subject to |y - A s| <= eps.",
        "The prox of R(|s|) keeps the phase of its argument and applies the prox of R to its magnitude.",
        "Hence any denoiser of real nonnegative volumes is a prior of complex ones; here a 3-D U-Net trained on them.",
        "C-SALSA alternates a few conjugate gradients, the denoiser, and a projection onto the ball of the data.",
        "Compared with l1, total variation, adjoint, back-projection and Kirchhoff migration from the same data.",
    ),
    claims=(
        Claim("prox-exact", "The prox of a prior of magnitudes is the prox of the magnitude with the phase kept "
              "(largest error against brute force)", "proposition 1, with proof", "tolerance 1e-6", better="lower"),
        Claim("psnr-over-l1", f"PSNR of {_OURS}, 5 frequencies, 30 dB (dB)", "better than l1 (abstract; qualitative)",
              "l1, tuned", margin=1.0),
        Claim("psnr-over-tv", f"PSNR of {_OURS}, 5 frequencies, 30 dB (dB)", "better than TV (abstract; qualitative)",
              "the better of two TV solvers, tuned", margin=0.5),
        Claim("psnr-over-direct", f"PSNR of {_OURS}, 5 frequencies, 30 dB (dB)",
              "better than direct inversion (abstract; qualitative)", "best of adjoint, back-projection, Kirchhoff",
              margin=4.0),
        Claim("noisy-over-l1", f"PSNR of {_OURS}, 5 frequencies, 10 dB (dB)", "also for noisy data (abstract)",
              "l1, tuned", margin=0.5),
        Claim("fewer-iterations", "Iterations until the PSNR that l1 ends with", "30 against up to 10000 iterations",
              "iterations of l1 until 0.1 dB below its end", better="lower"),
        Claim("ten-frequencies", "PSNR with 10 frequencies (dB)", "grows with the number of frequencies (qualitative)",
              "with 5"),
        Claim("five-frequencies", "PSNR with 5 frequencies (dB)", "grows with the number of frequencies (qualitative)",
              "with 3"),
        Claim("phase-matters", f"PSNR of {_OURS} (dB)", "real positive values are an incorrect assumption (code)",
              "the same with zero phase enforced", margin=1.0),
        Claim("magnitude-matters", f"PSNR of {_OURS} (dB)", "the phase has no structure to regularise (text)",
              "real and imaginary parts denoised instead", margin=1.0),
    ),
)


@dataclass(frozen=True)
class Case:
    """One geometry and noise level."""

    shape: tuple[int, int, int]
    frequencies: int
    snr_db: float

    @property
    def key(self) -> str:
        """Name in keys of units of work."""
        return f"K{self.frequencies}-{self.snr_db:g}dB"

    def measure(self, seed: int) -> tuple[BornMIMO, Tensor, Simulation]:
        """Operator, true magnitude and measurement; the scene depends on the seed and the grid alone."""
        op = BornMIMO.crossed(self.shape, self.frequencies)
        generator = torch.Generator().manual_seed(seed)
        magnitude = random_blobs(1, self.shape, generator)[0]
        return op, magnitude, simulate(magnitude, op, snr_db=self.snr_db, generator=generator)


@dataclass(frozen=True)
class Size:
    """What a scale runs: the grid, numbers of frequencies (few, usual, many), further ones, a bound on iterations."""

    shape: tuple[int, int, int]
    frequencies: tuple[int, int, int] = (3, 5, 10)
    sweep: tuple[int, ...] = ()
    most_iterations: int = 10**6


SIZES = {
    Scale.SMOKE: Size((13, 13, 17), (2, 3, 4), most_iterations=4),
    Scale.DEFAULT: Size((21, 21, 25)),
    Scale.FULL: Size((25, 25, 49), sweep=(15, 20, 30, 40)),
}
NOISY_DB, CLEAR_DB = 10.0, 30.0
TOLERANCE = 1e-6
"""Small enough that every method runs the number of iterations that was tuned."""

OWN_GRID = (61, 61, 61)
"""Voxels of measured scenes: 5 mm apart, as in the paper."""

ITERATIVE = ("network", "l1", "tv", "tv-inexact")
ABLATIONS = ("zero-phase", "real-imaginary")


def run(scale: Scale, seed: int, run: Run) -> None:
    """Measure every claim on the scene of this seed."""
    size = SIZES[scale]
    few, usual, many = (Case(size.shape, k, CLEAR_DB) for k in size.frequencies)
    noisy = Case(size.shape, usual.frequencies, NOISY_DB)
    plan = [(usual, MIGRATIONS + ITERATIVE + ABLATIONS)]
    plan += [(case, (*MIGRATIONS, "network", "l1")) for case in (noisy, few, many)]
    plan += [(Case(size.shape, k, CLEAR_DB), (*MIGRATIONS, "network", "l1")) for k in size.sweep]
    psnr: dict[tuple[str, str], float] = {}
    images: dict[str, Tensor] = {}
    trace: dict[str, Tensor] = {}
    with run.progress(sum(len(methods) for _, methods in plan), "radar images") as bar:
        for case, methods in plan:
            op, magnitude, data = case.measure(seed)
            for method in methods:
                unit = run.tensors(f"{case.key}-{method}",
                                   functools.partial(_image, method, op, data, magnitude, size.most_iterations))
                psnr[case.key, method] = float(unit["psnr"][-1])
                if case == usual:
                    images[method], trace[method] = unit["magnitude"], unit["psnr"]
                run.log(seed=seed, method=method, frequencies=case.frequencies, snr_db=case.snr_db,
                        psnr=psnr[case.key, method], psnr_best_scale=float(unit["psnr_best_scale"]),
                        residual_over_eps=float(unit["residual_over_eps"]), iterations=int(unit["iterations"]),
                        seconds=float(unit["seconds"]))
                bar.advance()
    prox = run.once("prox", lambda: {"error": prox_error(seed)})
    _claims(run, psnr, trace, prox["error"], (few.key, usual.key, many.key, noisy.key))
    if seed == PAPER.seeds[0]:
        _, magnitude, _ = usual.measure(seed)
        _figures(run, usual, magnitude, images, trace)
    if scale is Scale.FULL and run.data_dir is not None:
        _own_measurements(run, run.data_dir)


def demo(run: Run) -> None:
    """One scene, every method, and the pictures."""
    case = Case(SIZES[Scale.DEFAULT].shape, 5, CLEAR_DB)
    op, magnitude, data = case.measure(run.seed)
    images: dict[str, Tensor] = {}
    trace: dict[str, Tensor] = {}
    methods = (*MIGRATIONS, "l1", "tv", "network")
    with run.progress(len(methods), "radar images") as bar:
        for method in methods:
            unit = _image(method, op, data, magnitude)
            images[method], trace[method] = unit["magnitude"], unit["psnr"]
            run.log(method=method, frequencies=case.frequencies, snr_db=case.snr_db, psnr=float(unit["psnr"][-1]),
                    psnr_best_scale=float(unit["psnr_best_scale"]), residual_over_eps=float(unit["residual_over_eps"]),
                    iterations=int(unit["iterations"]), seconds=float(unit["seconds"]))
            bar.advance()
    _figures(run, case, magnitude, images, trace)


def _claims(run: Run, psnr: dict[tuple[str, str], float], trace: dict[str, Tensor], prox: float,
            keys: tuple[str, str, str, str]) -> None:
    few, usual, many, noisy = keys
    ours = psnr[usual, "network"]
    run.claim("prox-exact", ours=prox, baseline=1e-6)
    run.claim("psnr-over-l1", ours=ours, baseline=psnr[usual, "l1"])
    run.claim("psnr-over-tv", ours=ours, baseline=max(psnr[usual, "tv"], psnr[usual, "tv-inexact"]))
    run.claim("psnr-over-direct", ours=ours, baseline=max(psnr[usual, m] for m in MIGRATIONS))
    run.claim("noisy-over-l1", ours=psnr[noisy, "network"], baseline=psnr[noisy, "l1"])
    end = float(trace["l1"][-1])
    run.claim("fewer-iterations", ours=first_above(trace["network"], end),
              baseline=first_above(trace["l1"], end - 0.1))
    run.claim("ten-frequencies", ours=psnr[many, "network"], baseline=ours)
    run.claim("five-frequencies", ours=ours, baseline=psnr[few, "network"])
    run.claim("phase-matters", ours=ours, baseline=psnr[usual, "zero-phase"])
    run.claim("magnitude-matters", ours=ours, baseline=psnr[usual, "real-imaginary"])


def first_above(trace: Tensor, level: float) -> float:
    """The first iteration (from 1) whose PSNR is at least ``level``; NaN if there is none."""
    reached = (trace >= level).nonzero()
    return float(reached[0] + 1) if len(reached) else math.nan


def _image(method: str, op: BornMIMO, data: Simulation, magnitude: Tensor,
           most_iterations: int = 10**6) -> dict[str, Tensor]:
    """Image the scene: normalised magnitude, PSNR per iteration and by best scale, residual, iterations, seconds."""
    psnr: list[Tensor] = []

    def watch(state: State) -> None:
        psnr.append(magnitude_psnr(state.x, magnitude))

    start = time.perf_counter()
    if method in MIGRATIONS:
        x = migrate(data.y, op, method)
        watch(State(1, x, {}))
    elif method in ABLATIONS:
        x = _ablation(method, op, data, most_iterations, watch).x
    else:
        settings = tuned_settings(method, _snr_db(data))
        x = reconstruct(data.y, op, method, eps=data.eps, scale=1.0, settings=settings, tol=TOLERANCE,
                        max_iter=min(settings.max_iter, most_iterations), callback=watch).x
    seconds = time.perf_counter() - start
    residual = torch.linalg.vector_norm(op(x.to(op.dtype)) - data.y) / data.eps
    found = x.abs()
    return {"magnitude": found / found.max(), "psnr": torch.stack(psnr),
            "psnr_best_scale": magnitude_psnr(x, magnitude, "best"), "residual_over_eps": residual,
            "iterations": torch.tensor(len(psnr)), "seconds": torch.tensor(seconds)}


def _snr_db(data: Simulation) -> float:
    return float(20 * torch.log10(torch.linalg.vector_norm(data.y) / data.eps))


def _ablation(method: str, op: BornMIMO, data: Simulation, most_iterations: int,
              watch: Callable[[State], None]) -> Solution:
    """The network with its tuned settings, but not as a prior of magnitudes."""
    settings: Settings = tuned_settings("network", _snr_db(data))
    model: LinearOperator = op
    if method == "zero-phase":
        model = op @ RealToComplex(op.in_shape, op.dtype.to_real())
        prior = PlugAndPlay(ZeroPhase(Denoiser(DENOISER)))
    else:
        prior = PlugAndPlay(RealAndImaginary(Denoiser(DENOISER)))
    return csalsa(model, data.y, prior, eps=data.eps, kappa=settings.kappa_ratio * op.mean_diagonal(),
                  alpha=settings.alpha, max_iter=min(settings.max_iter, most_iterations), tol=TOLERANCE,
                  callback=watch)


@dataclass(frozen=True)
class ZeroPhase:
    """Denoise real volumes that are assumed to be nonnegative reflectivities."""

    denoiser: Denoiser
    dims: int = 3

    def __call__(self, x: Tensor, std: float | Tensor) -> Tensor:
        """Clamp, denoise, clamp."""
        return self.denoiser(x.clamp(min=0), std).clamp(min=0)


@dataclass(frozen=True)
class RealAndImaginary:
    """Denoise the moduli of the real and of the imaginary part, each keeping its sign."""

    denoiser: Denoiser
    dims: int = 3
    accepts_complex: bool = True

    def __call__(self, x: Tensor, std: float | Tensor) -> Tensor:
        """Each part is a nonnegative volume to the network, as it was trained on."""
        parts = torch.stack((x.real, x.imag))
        level = std[None].expand(2, *std.shape) if isinstance(std, Tensor) else std
        clean = self.denoiser(parts.abs(), level).clamp(min=0) * parts.sign()
        return torch.complex(clean[0], clean[1])


def prox_error(seed: int) -> float:
    """Largest distance between `Magnitude`'s prox and a brute-force minimiser, float64, over several inner priors.

    For a fixed phase the objective ``alpha R(m) + 1/2 |m e^{j phi} - z|^2`` is convex in m >= 0, so a search
    finds the minimum; phases off that of z are tried on a grid and must not be better. For the network, whose R
    is unknown, the prox must be the denoised magnitude, clamped at zero, at the phase of z.
    """
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(256, generator=generator, dtype=torch.complex128)
    alpha, worst = 0.3, 0.0
    phases = torch.cat((torch.zeros(1), torch.linspace(-math.pi, math.pi, 13))).to(torch.float64)
    inner: tuple[Prior, ...] = (L1(1.0, dims=0), ElasticNet(0.7, 0.5, dims=0), Huber(1.0, 0.2, dims=0))
    for prior in inner:

        def objective(m: Tensor, off: Tensor, prior: Prior = prior) -> Tensor:
            return alpha * prior.value(m) + 0.5 * (torch.polar(m, z.angle() + off) - z).abs().square()

        def lowest(off: Tensor, objective: Callable[[Tensor, Tensor], Tensor] = objective) -> Tensor:
            return _minimisers(lambda m: objective(m, off), z.numel())

        values = torch.stack([objective(lowest(off), off) for off in phases[:, None].expand(-1, z.numel())])
        found = Magnitude(prior).prox(z, alpha)
        modulus = lowest(torch.zeros(z.numel(), dtype=torch.float64))
        worst = max(worst, float((found - torch.polar(modulus, z.angle())).abs().max()),
                    float((values[0] - values.amin(0)).max()))
    volume = torch.randn(8, 8, 8, generator=generator, dtype=torch.complex64)
    denoised = Denoiser(DENOISER)(volume.abs(), math.sqrt(0.01)).clamp(min=0)
    found = named_prior("network").prox(volume, 0.01)
    return max(worst, float((found - torch.polar(denoised, volume.angle())).abs().max()))


def _minimisers(f: Callable[[Tensor], Tensor], n: int) -> Tensor:
    """Minimisers of ``n`` convex functions on [0, 8], by bisection on the sign of their slope, to about 1e-7."""
    low, high = torch.zeros(n, dtype=torch.float64), torch.full((n,), 8.0, dtype=torch.float64)
    for _ in range(60):
        middle = (low + high) / 2
        rising = f(middle + 1e-7) > f((middle - 1e-7).clamp(min=0))
        low, high = torch.where(rising, low, middle), torch.where(rising, middle, high)
    return (low + high) / 2


def _figures(run: Run, case: Case, truth: Tensor, images: dict[str, Tensor], trace: dict[str, Tensor]) -> None:
    setting = (f"{case.frequencies} frequencies, {case.snr_db:g} dB, "
               f"{math.prod(BornMIMO.crossed(case.shape, case.frequencies).out_shape)} measurements for "
               f"{math.prod(case.shape)} voxels")
    best = max(images, key=lambda m: float(trace[m][-1]))
    run.figure("images", projections(truth, {m: (v, float(trace[m][-1])) for m, v in images.items()}),
               caption=f"Reflectivity magnitude from the same data ({setting}): largest values seen from the array and "
                       f"from above, in decibels of PSNR.",
               alt=f"Projections of the true scene and of {len(images)} reconstructions; the best is {best}.")
    run.figure("convergence", traces({m: t for m, t in trace.items() if len(t) > 1}),
               caption=f"PSNR after every iteration ({setting}).",
               alt="Curves of PSNR over iterations, one for each iterative method.")


def _own_measurements(run: Run, folder: Path) -> None:
    """Image every measurement of a folder on the paper's grid for measured data."""
    grid = VoxelGrid.box((-0.15, -0.15, 0.35), (0.15, 0.15, 0.65), OWN_GRID)
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in (".npz", ".mat", ".safetensors")):
        data = read_measurement(path)
        if len(data.freqs) > 11:
            data = data.subset(11, 4e9, 16e9)
        op = BornMIMO(data.freqs, data.tx, data.rx, grid)
        y = data.y.to(op.dtype)
        start = time.perf_counter()
        solution = reconstruct(y, op, snr_db=10.0)
        run.log(file=path.name, method="network", frequencies=len(data.freqs), iterations=solution.iterations,
                residual_over_eps=float(solution.extras["infeasibility"]), seconds=time.perf_counter() - start)
        write_volume(run.folder / "volumes" / f"{path.stem}.npz", solution.x, (grid.x, grid.y, grid.z))
        images = {"kirchhoff": migrate(y, op).abs(), "network": solution.x.abs()}
        run.figure(f"own-{path.stem}", projections(None, {m: (v / v.max(), math.nan) for m, v in images.items()}),
                   caption=f"{path.name}: Kirchhoff migration and the learned prior.")
