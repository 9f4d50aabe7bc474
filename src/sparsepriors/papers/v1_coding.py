"""Rentzeperis et al. (2023): sparse codes of natural images by soft, half, hard and CEL0 thresholding, compared.

Dictionaries learn whitened patches of photographs, each with one of four penalties whose weight follows a stated
number of active units; errors are those on patches of other photographs, at that number of active units to 1 %. Without
a folder of van Hateren's images (``--data``, files ``*.imc``) the photographs are those inside installed packages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparsepriors.data import TEST_PHOTOS, luma, photos
from sparsepriors.data.natural import NATURAL_PHOTOS, random_patches, read_van_hateren, variance_scale, whiten
from sparsepriors.dictionaries import (
    DictionaryLearner,
    calibrate_weight,
    gabor_fit,
    orientation_selectivity,
    refit,
    sparse_codes,
)
from sparsepriors.dictionaries.coding import curvature
from sparsepriors.dictionaries.learning import random_atoms
from sparsepriors.priors import CEL0, L0, L1, Lq
from sparsepriors.priors.penalties import Weighted
from sparsepriors.runs import Claim, Paper, Run, Scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ERROR = "squared error over variance, held-out patches"

PAPER = Paper(
    slug="v1-coding",
    title="Beyond l1 sparse coding in V1",
    authors="Ilias Rentzeperis, Luca Calatroni, Laurent U. Perrinet, Dario Prandi",
    year=2023,
    url="https://doi.org/10.1371/journal.pcbi.1011459",
    room="dictionaries",
    method=(
        "Whiten natural images, cut patches, subtract the mean of each.",
        "Code every patch x by r <- T(r + eta (x - r D) D^T) from zero; D holds one atom of unit length per unit.",
        "T thresholds: soft (l1), half (l1/2), hard (l0), or CEL0, the continuous penalty with the minimisers of l0.",
        "Move the atoms towards less error after every batch, and give them unit length again.",
        "Choose each penalty's weight so that equally many units are active, and compare the errors.",
    ),
    claims=(
        Claim("near-l0-better", f"At equal activity half, hard and CEL0 thresholding all make less error than soft "
              f"(worst of the three; {_ERROR})", "soft thresholding is highly suboptimal", "soft", better="lower"),
        Claim("five-times", "Three times as many units as pixels: soft thresholding makes about five times the error "
              "of CEL0 (ratio of errors)", "approximately five times better reconstruction by l0", "five",
              margin=-0.5),
        Claim("cel0-best", f"CEL0 makes less error than half and hard thresholding ({_ERROR})", "not reported",
              "the better of half and hard", better="lower"),
        Claim("denser", f"Soft thresholding with twice the active units still makes more error than CEL0 ({_ERROR})",
              "l1 gives a denser code for the same error", "CEL0"),
        Claim("ten-times", f"Soft thresholding with up to ten times the units, equally many active, does not come "
              f"down to the error of CEL0 ({_ERROR}; codes that stand still)",
              "l1 needs a dictionary of ten times more units", "CEL0"),
        Claim("refit", "With amplitudes fitted anew on the same supports, CEL0's error is at most 0.9 of soft's (ratio "
              "of errors)", "not reported", "0.9", better="lower"),
        Claim("stands-still", "Iterated until the codes stand still, the ratio of the errors of soft and CEL0 grows",
              "not reported", "the published stop"),
        Claim("oriented", "With every penalty at least 35 % of the units are more orientation-selective than 95 % of "
              "noise of the patches' covariance (least share)", "all penalties develop orientation selectivity",
              "0.35"),
        Claim("gabor", "With every penalty Gabor functions explain the median unit better by 0.3 than such noise "
              "(least median share)", "receptive fields similar to those in V1", "noise", margin=0.3),
    ),
)

PENALTIES: dict[str, Callable[[float], Weighted]] = {
    "soft": L1, "half": lambda lam: Lq(lam / 2, 0.5), "hard": lambda lam: L0(lam / 2), "CEL0": CEL0}
"""Priors of the published thresholds at a published lambda; half and hard leave out the half before the square."""

FIRST_WEIGHT = 0.1
STEP, STOP, RATE = 0.05, 1e-2, 5e-3
"""Of the codes, when they are ready, and of the dictionary: as published."""

STILL = 1e-4
"""When codes stand still."""

COLOURS = {"soft": "#c0392b", "half": "#d68910", "hard": "#7d8a2e", "CEL0": "#1f618d"}


@dataclass(frozen=True)
class Sizes:
    """How much is measured at a scale.

    Attributes
    ----------
    patch
        Side of a patch.
    units, more, many
        Atoms of the dictionaries; ``more`` for all penalties, ``many`` for soft thresholding.
    active
        Active units; base dictionaries also learn with twice as many.
    batches, batch
        Patches that are learned from, each seen once.
    held
        Patches that are judged on.
    curve
        Numbers of active units at which the base dictionaries are looked at.
    rate
        Of the dictionaries' gradient steps; None for online learning without a rate, which needs fewer patches.
    """

    patch: int
    units: int
    more: int
    many: int
    active: float
    batches: int
    batch: int
    held: int
    curve: tuple[float, ...]
    rate: float | None = None


SIZES = {
    Scale.SMOKE: Sizes(8, 64, 96, 128, 4, 12, 100, 200, (2, 4, 8)),
    Scale.DEFAULT: Sizes(12, 144, 432, 1440, 8, 240, 250, 1200, (2, 4, 6, 8, 12, 16, 24)),
    Scale.FULL: Sizes(16, 500, 1000, 5000, 16, 4000, 250, 10_000, (4, 8, 16, 32, 64), RATE),
}


@dataclass(frozen=True)
class Arm:
    """One dictionary to learn."""

    penalty: str
    units: int
    active: float
    rate: float | None

    @property
    def key(self) -> str:
        """For files."""
        return f"{self.penalty}-{self.units}-{self.active:g}" + ("" if self.rate is None else f"-{self.rate:g}")


@dataclass(frozen=True)
class Patches:
    """What is learned from and what is judged on."""

    train: Tensor
    held: Tensor


def run(scale: Scale, seed: int, run: Run) -> None:
    """Learn every dictionary and compare; the seed draws the patches and the first atoms."""
    sizes = SIZES[scale]
    patches = _patches(run, sizes)
    base = {p: Arm(p, sizes.units, sizes.active, sizes.rate) for p in PENALTIES}
    dense = {p: Arm(p, sizes.units, 2 * sizes.active, sizes.rate) for p in PENALTIES}
    more = {p: Arm(p, sizes.more, sizes.active, sizes.rate) for p in PENALTIES}
    many = Arm("soft", sizes.many, sizes.active, sizes.rate)
    published = () if sizes.rate == RATE else tuple(replace(base[p], rate=RATE) for p in ("soft", "CEL0"))
    arms = (*base.values(), *dense.values(), *more.values(), many, *published)
    atoms: dict[Arm, Tensor] = {}
    found: dict[Arm, dict[str, Any]] = {}
    with run.progress(len(arms), "learning dictionaries") as bar:
        for arm in arms:
            kept = run.tensors(f"atoms-{arm.key}", partial(_learn, arm, sizes, patches.train, seed))
            atoms[arm] = kept["atoms"].to(run.device)
            found[arm] = run.once(f"held-{arm.key}", partial(_judge, arm, patches.held, atoms[arm],
                                                             float(kept["weight"])))
            run.log(penalty=arm.penalty, units=arm.units, target=arm.active,
                    learning="published" if arm.rate == RATE else "online", never_used=int(kept["never_used"]),
                    **found[arm])
            bar.advance()
    looks: dict[str, dict[str, Any]] = {}
    for penalty, arm in base.items():
        looks[penalty] = run.once(f"look-{penalty}", partial(_look, arm, sizes, patches.held, atoms[arm],
                                                             found[arm]["weight"]))
        for a, error in zip(sizes.curve, looks[penalty]["curve"], strict=True):
            run.log(penalty=penalty, units=arm.units, target=arm.active, at_active=a, error=error)
    noise = run.once("noise", partial(_noise, sizes, patches.train, seed))
    run.log(penalty="noise", selectivity_95=noise["selectivity_95"], gabor_explained=noise["explained"])
    share = {p: _share(look["selectivity"], noise["selectivity_95"]) for p, look in looks.items()}
    for penalty, look in looks.items():
        run.log(penalty=penalty, units=sizes.units, target=sizes.active, oriented=share[penalty],
                **{k: v for k, v in look.items() if isinstance(v, float)})
    first, second = ({p: found[arm] for p, arm in group.items()} for group in (base, more))
    _claims(run, first, found[dense["soft"]], second, found[many])
    run.claim("oriented", ours=min(share.values()), baseline=0.35)
    run.claim("gabor", ours=min(look["gabor_explained"] for look in looks.values()), baseline=noise["explained"])
    _draw_fields(run, sizes, {p: atoms[arm] for p, arm in base.items()}, first)
    _draw_errors(run, sizes, looks, noise, first, second, found[many])


def _patches(run: Run, sizes: Sizes) -> Patches:
    if run.data_dir is None:
        images, others = ([whiten(luma(p)) for p in photos(names).values()] for names in (NATURAL_PHOTOS, TEST_PHOTOS))
    else:
        files = sorted(run.data_dir.glob("*.imc"))
        if len(files) < 4:
            raise FileNotFoundError(f"{run.data_dir} must hold at least 4 photographs *.imc, got {len(files)}")
        white = [whiten(read_van_hateren(f)) for f in files]
        images, others = white[:-(len(white) // 4)], white[-(len(white) // 4):]
    scale = variance_scale(images)
    generator = torch.Generator().manual_seed(run.seed)
    train, held = (random_patches([x * scale for x in part], count, sizes.patch, generator).to(run.device)
                   for part, count in ((images, sizes.batches * sizes.batch), (others, sizes.held)))
    return Patches(train, held)


def _learn(arm: Arm, sizes: Sizes, train: Tensor, seed: int) -> dict[str, Tensor]:
    start = random_atoms(arm.units, train.shape[1], torch.Generator().manual_seed(seed)).to(train.device)
    learner = DictionaryLearner(start, PENALTIES[arm.penalty](FIRST_WEIGHT), active=arm.active, rate=arm.rate,
                                step=STEP, tol=STOP)
    for batch in train.split(sizes.batch):
        learner.update(batch)
    assert isinstance(learner.prior, Weighted)
    return {"atoms": learner.dictionary, "weight": torch.as_tensor(learner.prior.weight),
            "never_used": (learner.usage == 0).sum()}


def _coded(arm: Arm, held: Tensor, atoms: Tensor, weight: float, active: float, tol: float) -> dict[str, Any]:
    """The held-out patches at this number of active units."""
    step = min(STEP, 1 / curvature(atoms))
    first = replace(PENALTIES[arm.penalty](1.0), weight=weight)
    prior = calibrate_weight(held, atoms, first, active, step=step, tol=tol)
    codes = sparse_codes(held, atoms, prior, step=step, tol=tol)
    variance = held.square().mean()
    again = refit(held, atoms, codes.codes)
    return {"error": float((held - codes.codes @ atoms).square().mean() / variance),
            "refit_error": float((held - again @ atoms).square().mean() / variance), "active": codes.active,
            "steps": float(codes.steps.double().mean()), "weight": float(torch.as_tensor(prior.weight)),
            "unused": int((codes.codes == 0).all(dim=0).sum())}


def _judge(arm: Arm, held: Tensor, atoms: Tensor, weight: float) -> dict[str, Any]:
    """By the published stop, and with codes that stand still."""
    loose = _coded(arm, held, atoms, weight, arm.active, STOP)
    still = _coded(arm, held, atoms, loose["weight"], arm.active, STILL)
    return {**loose, **{f"still_{k}": still[k] for k in ("error", "refit_error", "steps")}}


def _look(arm: Arm, sizes: Sizes, held: Tensor, atoms: Tensor, weight: float) -> dict[str, Any]:
    """Errors at other activities, and the shapes of the units."""
    fields = atoms.reshape(-1, sizes.patch, sizes.patch)
    fit = gabor_fit(fields)
    along, across = fit.cycles.median(dim=0).values.tolist()
    return {"curve": [_coded(arm, held, atoms, weight, a, STOP)["error"] for a in sizes.curve],
            "selectivity": orientation_selectivity(fields).tolist(),
            "gabor_explained": float(fit.explained.median()), "cycles_along": along, "cycles_across": across}


def _noise(sizes: Sizes, train: Tensor, seed: int) -> dict[str, Any]:
    """Selectivity and Gabor-likeness of Gaussian noise with the covariance of the patches."""
    covariance = (train.mT @ train / len(train)).double().cpu()
    values, vectors = torch.linalg.eigh(covariance)
    drawn = torch.randn(1000, len(values), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    fields = ((drawn * values.clamp(min=0).sqrt()) @ vectors.mT).reshape(-1, sizes.patch, sizes.patch)
    return {"selectivity_95": float(orientation_selectivity(fields).quantile(0.95)),
            "explained": float(gabor_fit(fields[:100]).explained.median())}


def _share(selectivity: list[float], threshold: float) -> float:
    return sum(s > threshold for s in selectivity) / len(selectivity)


def _claims(run: Run, base: dict[str, dict[str, Any]], dense: dict[str, Any], more: dict[str, dict[str, Any]],
            many: dict[str, Any]) -> None:
    error = {p: found["error"] for p, found in base.items()}
    run.claim("near-l0-better", ours=max(error[p] for p in ("half", "hard", "CEL0")), baseline=error["soft"])
    run.claim("five-times", ours=more["soft"]["error"] / more["CEL0"]["error"], baseline=5)
    run.claim("cel0-best", ours=error["CEL0"], baseline=min(error["half"], error["hard"]))
    run.claim("denser", ours=dense["error"], baseline=error["CEL0"])
    run.claim("ten-times", ours=min(found["still_error"] for found in (base["soft"], more["soft"], many)),
              baseline=base["CEL0"]["still_error"])
    run.claim("refit", ours=base["CEL0"]["refit_error"] / base["soft"]["refit_error"], baseline=0.9)
    run.claim("stands-still", ours=base["soft"]["still_error"] / base["CEL0"]["still_error"],
              baseline=error["soft"] / error["CEL0"])


def _draw_fields(run: Run, sizes: Sizes, atoms: dict[str, Tensor], found: dict[str, dict[str, Any]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.4), layout="constrained")
    for ax, (penalty, fields) in zip(figure.subplots(1, len(atoms)), atoms.items(), strict=True):
        ax.imshow(mosaic(fields.cpu(), sizes.patch).numpy(), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        ax.set_title(f"{penalty}: error {found[penalty]['error']:.3f}", color=COLOURS[penalty])
        ax.set_axis_off()
    run.figure("fields", figure, caption=(
        f"Units of the dictionaries, {sizes.active:g} of {sizes.units} active on average, the most selective first, "
        f"each scaled to its largest entry; above them the error on other photographs (one seed)."))


def _draw_errors(run: Run, sizes: Sizes, looks: dict[str, dict[str, Any]], noise: dict[str, Any],
                 base: dict[str, dict[str, Any]], more: dict[str, dict[str, Any]], many: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    curve, pool, spread = figure.subplots(1, 3)
    units = (sizes.units, sizes.more, sizes.many)
    for penalty, look in looks.items():
        curve.plot(sizes.curve, look["curve"], "o-", color=COLOURS[penalty], label=penalty)
        spread.hist(look["selectivity"], bins=20, range=(0, 1), histtype="step", color=COLOURS[penalty], lw=1.6)
        pool.plot(units[:2], [d[penalty]["error"] for d in (base, more)], "o-", color=COLOURS[penalty])
        pool.plot(units[:2], [d[penalty]["still_error"] for d in (base, more)], "s:", color=COLOURS[penalty])
    pool.plot(units[1:], (more["soft"]["error"], many["error"]), "o-", color=COLOURS["soft"])
    pool.plot(units[1:], (more["soft"]["still_error"], many["still_error"]), "s:", color=COLOURS["soft"])
    curve.set(xscale="log", yscale="log", xlabel="active units on average", ylabel="error over variance",
              title="More units active, less error")
    pool.set(xscale="log", yscale="log", xlabel="units", title=f"More units, {sizes.active:g} of them active")
    curve.legend(frameon=False)
    curve.set_xticks(sizes.curve, [f"{a:g}" for a in sizes.curve])
    pool.set_xticks(units, [str(n) for n in units])
    for ax in (curve, pool):
        ax.xaxis.set_minor_formatter("")
        ax.yaxis.set_major_formatter("{x:.1g}")
        ax.yaxis.set_minor_formatter("{x:.1g}")
    spread.axvline(noise["selectivity_95"], color="grey", ls=":", label="95 % of noise")
    spread.set(xlabel="orientation selectivity", ylabel="units", title="Units prefer orientations")
    spread.legend(frameon=False)
    for ax in (curve, pool, spread):
        _plain(ax)
    run.figure("errors", figure, caption=(
        "Errors on held-out patches against activity and against the size of the dictionary (dotted: codes that stand "
        "still), and the orientation selectivity of the units (one seed)."))


def _plain(ax: Axes) -> None:
    ax.grid(alpha=0.3, which="both")
    ax.spines[["top", "right"]].set_visible(False)


def mosaic(atoms: Tensor, patch: int) -> Tensor:
    """Atoms as one picture, the most selective for orientation first, each over its largest modulus, frames white."""
    fields = atoms.reshape(-1, patch, patch)
    fields = fields[orientation_selectivity(fields).argsort(descending=True)]
    fields = fields / fields.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    columns = -int(-(len(fields) ** 0.5) // 1)
    rows = -(-len(fields) // columns)
    sheet = fields.new_ones(rows * columns, patch + 1, patch + 1)
    sheet[:len(fields), :patch, :patch] = fields
    sheet = sheet.reshape(rows, columns, patch + 1, patch + 1)
    return sheet.permute(0, 2, 1, 3).reshape(rows * (patch + 1), columns * (patch + 1))
