"""Liu et al. (2022): random masks with sensible densities of the layers, drawn before training, as the baseline.

Perceptrons and residual networks of growing width on small pictures of clothes: dense, random with two distributions,
SNIP, and SNIP's densities at random positions, on one recipe.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional

from sparsepriors.data.image_sets import ImageSet
from sparsepriors.data.vision import image_set
from sparsepriors.networks.augment import Augment
from sparsepriors.networks.classification import accuracy, predict
from sparsepriors.networks.models import model
from sparsepriors.networks.models.images import start_by_inputs
from sparsepriors.networks.recipe import Examples, Recipe, train_classifier
from sparsepriors.networks.reliability import auroc, ece, fgsm
from sparsepriors.networks.sparse import ERK, SparsePlan, Uniform, connectivity, preset
from sparsepriors.papers._images import ImageSizes
from sparsepriors.priors.patterns import kept
from sparsepriors.runs import Claim, Paper, Run, Scale

_POINTS = "share of test images"
_WIDTHS = (32, 64, 128, 256, 512)

PAPER = Paper(
    slug="random-pruning",
    title="The Unreasonable Effectiveness of Random Pruning: Return of the Most Naive Baseline for Sparse Training",
    authors="Shiwei Liu, Tianlong Chen, Xiaohan Chen, Li Shen, Decebal Constantin Mocanu, Zhangyang Wang, "
            "Mykola Pechenizkiy",
    year=2022,
    url="https://arxiv.org/abs/2202.02643",
    room="networks.sparse",
    method=(
        "Choose a density for each layer: the same for all, or more for layers with few weights (ERK).",
        "Draw the positions of the kept weights at random, before the first step; they never move.",
        "Train as one would train the dense network; pruned weights are zero after every step.",
        "Compare with the dense network at several widths and depths, and with masks that a score chose (SNIP).",
        "SNIP ratio: the densities that SNIP gives to the layers, at random positions.",
    ),
    claims=(
        Claim("width-gap", f"From the narrowest to the widest perceptron the gap dense - ERK at density 0.05 shrinks "
              f"by 0.08 ({_POINTS})", "the gap shrinks to zero (ResNets, CIFAR-10)", "gap of the narrowest network",
              margin=0.08, better="lower"),
        Claim("width-order", "The gap falls with every width: Spearman's correlation of width and gap is -0.9 or less",
              "the gap shrinks as networks widen", "no order (0)", margin=0.9, better="lower"),
        *(Claim(f"erk-over-uniform-{w}", f"At width {w} and density 0.05 ERK beats equal densities by 0.04 ({_POINTS})",
                "ERK above uniform at high sparsity", "uniform density", margin=0.04) for w in _WIDTHS[:2]),
        *(Claim(f"erk-not-below-uniform-{w}", f"At width {w} ERK is no worse than equal densities (0.005 allowed, "
                f"{_POINTS})", "ERK above uniform at high sparsity", "uniform density", margin=-0.005)
          for w in _WIDTHS[2:]),
        Claim("wide-enough", f"At density 0.1 the widest ERK network loses at most 0.04 against dense ({_POINTS})",
              "matches dense up to 70-80 % sparsity (ResNet-56 and -110)", "the dense network", margin=-0.04),
        Claim("conv-width", f"The gap of the residual network is smaller at the largest width than at the smallest "
              f"({_POINTS})", "the gap shrinks as ResNet-20 widens", "gap of the narrowest network", better="lower"),
        *(Claim(name, f"In the widest residual network SNIP and SNIP ratio, scored at {weights}, differ by at most "
                f"0.02 ({_POINTS}, either way)", "positions hardly matter", "no difference", margin=-0.02,
                better="lower") for name, weights in (("positions-conv", "weights drawn for that"),
                                                      ("positions-conv-own", "the network's own first weights"))),
        Claim("exact-counts", "Every layer keeps the number of weights that was asked, within one, and a Bernoulli "
              "draw does not (share of the checks)", "not reported", "all checks"),
    ),
)


@dataclass(frozen=True)
class Sizes(ImageSizes):
    """How much is measured at a scale.

    Attributes
    ----------
    widths, scored, denser
        Widths of the perceptrons; those at which SNIP is tried; those at which density 0.1 is.
    depths
        Hidden layers of the depth sweep, at the width in the middle.
    residual
        Layers, widths, epochs and training images of the residual networks.
    """

    epochs: int
    widths: tuple[int, ...]
    scored: tuple[int, ...]
    denser: tuple[int, ...]
    depths: tuple[int, ...]
    residual: tuple[int, tuple[int, ...], int, int]
    augment: bool = False


SIZES = {
    Scale.SMOKE: Sizes("digits8", 1, 600, 0, 300, 2, (8, 32), (), (32,), (), (8, (2, 4), 1, 256)),
    Scale.DEFAULT: Sizes("fashion-mnist", 2, 5000, 0, 5000, 15, _WIDTHS, (32, 128), (32, 128, 512), (1, 4),
                         (8, (4, 8, 16), 6, 2500)),
    Scale.FULL: Sizes("cifar10", 1, 45_000, 0, 10_000, 60, _WIDTHS, _WIDTHS, _WIDTHS, (1, 4),
                      (20, (8, 16, 24), 160, 45_000), augment=True),
}
SPARSE, DENSER = 0.05, 0.1
BATCH = 128


@dataclass(frozen=True)
class Arm:
    """One training: a family of networks, its size, a method and the density.

    SNIP scores weights that are drawn for it, or with "own" the first weights of the network that is trained.
    """

    family: str
    width: int
    depth: int
    method: str
    density: float = 1.0

    @property
    def key(self) -> str:
        """Name of the unit of work."""
        return f"{self.family}-{self.width}-{self.depth}-{self.method.replace(' ', '-')}-{self.density:g}"

    def plan(self) -> SparsePlan | None:
        """The masks."""
        match self.method:
            case "dense":
                return None
            case "SNIP" | "SNIP own":   # the published code for CIFAR scores weights that it draws for that
                return preset("snip", density=self.density, xavier=self.method == "SNIP")
            case "SNIP ratio" | "SNIP ratio own":
                return preset("snip-ratio", density=self.density, xavier=self.method == "SNIP ratio")
            case "uniform":
                return preset("random", density=self.density, distribution=Uniform())
            case _:
                return preset("random", density=self.density, exact=self.method != "Bernoulli",
                              scale_init=self.method == "ERK scaled")


def arms(sizes: Sizes) -> list[Arm]:
    """Every training of a seed."""
    layers, widths, _, _ = sizes.residual
    middle = sizes.widths[len(sizes.widths) // 2]
    found = [Arm("mlp", w, 2, m, 1.0 if m == "dense" else SPARSE) for w in sizes.widths
             for m in ("dense", "ERK", "uniform")]
    found += [Arm("mlp", w, 2, m, SPARSE) for w in sizes.scored for m in ("SNIP", "SNIP ratio")]
    found += [Arm("mlp", w, 2, "ERK", DENSER) for w in sizes.denser]
    found += [Arm("mlp", w, 2, "ERK scaled", DENSER) for w in sizes.denser[:2]]
    found += [Arm("mlp", sizes.widths[0], 2, m, SPARSE) for m in ("ERK scaled", "Bernoulli")]
    found += [Arm("mlp", middle, d, m, 1.0 if m == "dense" else SPARSE) for d in sizes.depths for m in ("dense", "ERK")]
    found += [Arm("resnet", w, layers, m, 1.0 if m == "dense" else DENSER) for w in widths for m in ("dense", "ERK")]
    found += [Arm("resnet", widths[-1], layers, m, DENSER)
              for m in ("uniform", "SNIP", "SNIP ratio", "SNIP own", "SNIP ratio own")]
    return list(dict.fromkeys(found))


def run(scale: Scale, seed: int, run: Run) -> None:
    """Train every arm; the seed draws the images, the first weights, the masks and the order of the batches."""
    sizes = SIZES[scale]
    images = image_set(sizes.data, data_dir=run.data_dir).shrink(sizes.shrink)
    drawn = sizes.draw(run)
    train, test = drawn.train, drawn.test
    strange = _strange(images, len(test[0]), torch.Generator().manual_seed(seed))
    todo = arms(sizes)
    rows: dict[Arm, dict[str, Any]] = {}
    with run.progress(len(todo), "training with random masks") as bar:
        for arm in todo:
            rows[arm] = run.once(arm.key, lambda arm=arm: _train(run, arm, sizes, images, train, test, strange))
            run.log(family=arm.family, width=arm.width, depth=arm.depth, method=arm.method, density_asked=arm.density,
                    **rows[arm])
            bar.advance()
    _claims(run, sizes, {arm: row["accuracy"] for arm, row in rows.items()}, rows)
    _draw(run, sizes, {arm: row["accuracy"] for arm, row in rows.items()})


def _train(run: Run, arm: Arm, sizes: Sizes, images: ImageSet, train: Examples, test: Examples,
           strange: dict[str, Tensor]) -> dict[str, Any]:
    channels, classes = images.channels, len(images.classes)
    first = torch.Generator().manual_seed(1000 + run.seed)
    epochs, augment = sizes.epochs, None
    if arm.family == "mlp":
        network = model("mlp", generator=first, hidden=(arm.width,) * arm.depth, size=test[0].shape[-1],
                        in_channels=channels, classes=classes)
        start_by_inputs(network, first)   # as the residual family
    else:
        _, _, epochs, count = sizes.residual
        train = (train[0][:count], train[1][:count])
        augment = Augment(shift=4, flip=True) if sizes.augment else None
        network = model(f"cifar_resnet_{arm.depth}_{arm.width}", generator=first, in_channels=channels, classes=classes)
    recipe = Recipe(epochs=epochs, batch=BATCH, rate=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4,
                    schedule="steps", milestones=(0.5, 0.75), factor=0.1, augment=augment)
    done = train_classifier(network.to(run.device), train, recipe, plan=arm.plan(),
                            generator=torch.Generator().manual_seed(run.seed))
    logits = predict(network, test[0])
    sure = logits.softmax(dim=1).amax(dim=1)
    mean, std = (torch.tensor(m, device=run.device)[:, None, None] for m in (images.mean, images.std))
    attacked = torch.cat([
        fgsm(network, x, y, step=8 / 255 / std, low=-mean / std, high=(1 - mean) / std)
        for x, y in zip(test[0].split(1000), test[1].split(1000), strict=True)])
    result = {
        "accuracy": float((logits.argmax(dim=1) == test[1]).double().mean()), "ece": ece(logits, test[1]),
        "nll": float(functional.cross_entropy(logits, test[1])), "fgsm": accuracy(network, attacked, test[1]),
        **{f"auroc_{name}": auroc(sure, predict(network, x.to(run.device)).softmax(dim=1).amax(dim=1))
           for name, x in strange.items()}}
    report = done.report
    if report is None:
        return {**result, "density": 1.0, "live": 1.0, "collapsed": 0, "train_ratio": 1.0, "exact": True}
    live = connectivity(network, report.masks, test[0][:1])
    return {**result, "density": report.density, "live": live.density, "collapsed": len(live.collapsed),
            "train_ratio": report.train_ratio, "exact": _exact(arm, report.masks)}


def _exact(arm: Arm, masks: dict[str, Tensor]) -> bool:
    """Whether every layer keeps what its density asks, within one weight; scores promise only the total."""
    counts = {n: int(m.sum()) for n, m in masks.items()}
    if arm.method.startswith("SNIP"):
        return abs(sum(counts.values()) - kept(sum(m.numel() for m in masks.values()), arm.density)) <= 1
    asked = (Uniform() if arm.method == "uniform" else ERK()).densities({n: tuple(m.shape) for n, m in masks.items()},
                                                                        arm.density)
    return all(abs(count - max(1, asked[n] * masks[n].numel())) <= 1 for n, count in counts.items())


def _strange(images: ImageSet, count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Inputs that are of no class: handwritten digits of the same size, and uniform noise."""
    side = tuple(images.test.images.shape[2:])
    digits = image_set("digits8").train.images[:count].float()
    digits = functional.interpolate(digits, size=side, mode="bilinear").round().to(torch.uint8)
    noise = torch.randint(0, 256, (count, images.channels, *side), generator=generator, dtype=torch.uint8)
    return {"digits": images.normalise(digits.expand(-1, images.channels, -1, -1)), "noise": images.normalise(noise)}


def _claims(run: Run, sizes: Sizes, found: dict[Arm, float], rows: dict[Arm, dict[str, Any]]) -> None:
    layers, residual, _, _ = sizes.residual

    def mlp(width: int, method: str, density: float = SPARSE) -> float:
        return found[Arm("mlp", width, 2, method, 1.0 if method == "dense" else density)]

    def conv(width: int, method: str) -> float:
        return found[Arm("resnet", width, layers, method, 1.0 if method == "dense" else DENSER)]

    gaps = [mlp(w, "dense") - mlp(w, "ERK") for w in sizes.widths]
    run.claim("width-gap", ours=gaps[-1], baseline=gaps[0])
    run.claim("width-order", ours=float(np.corrcoef(rankdata(sizes.widths), rankdata(gaps))[0, 1]), baseline=0.0)
    for w in _WIDTHS:   # the smoke scale has other widths, and claims nothing
        name = "erk-over-uniform" if w in _WIDTHS[:2] else "erk-not-below-uniform"
        at = w in sizes.widths
        run.claim(f"{name}-{w}", ours=mlp(w, "ERK") if at else math.nan, baseline=mlp(w, "uniform") if at else math.nan)
    widest = sizes.denser[-1]
    run.claim("wide-enough", ours=mlp(widest, "ERK", DENSER), baseline=mlp(widest, "dense"))
    narrow, wide = (conv(w, "dense") - conv(w, "ERK") for w in (residual[0], residual[-1]))
    run.claim("conv-width", ours=wide, baseline=narrow)
    for name, own in (("positions-conv", ""), ("positions-conv-own", " own")):
        apart = conv(residual[-1], f"SNIP{own}") - conv(residual[-1], f"SNIP ratio{own}")
        run.claim(name, ours=abs(apart), baseline=0.0)
    checks = [row["exact"] != (arm.method == "Bernoulli") for arm, row in rows.items() if arm.method != "dense"]
    run.claim("exact-counts", ours=sum(checks) / len(checks), baseline=1.0)


def _draw(run: Run, sizes: Sizes, found: dict[Arm, float]) -> None:
    from matplotlib.figure import Figure

    layers, residual, _, _ = sizes.residual
    styles = {"dense": ("#222222", "o-"), "ERK": ("#1b6ca8", "o-"), "uniform": ("#c0504d", "s--"),
              "SNIP": ("#3a7d44", "^-"), "SNIP ratio": ("#3a7d44", "v:"), "ERK scaled": ("#7ab0d6", "D-.")}
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots(1, 3)
    for ax, family, density, title in ((axes[0], "mlp", SPARSE, f"perceptrons, {SPARSE:.0%} of the weights"),
                                       (axes[1], "mlp", DENSER, f"perceptrons, {DENSER:.0%}"),
                                       (axes[2], "resnet", DENSER, f"ResNet-{layers}, {DENSER:.0%}")):
        depth = 2 if family == "mlp" else layers
        for method, (colour, style) in styles.items():
            points = sorted((a.width, 100 * acc) for a, acc in found.items() if a.family == family
                            and a.depth == depth and a.method == method and a.density in (1.0, density))
            if points:
                ax.plot(*zip(*points, strict=True), style, color=colour, label=method, markersize=5)
        ticks = sizes.widths if family == "mlp" else residual
        ax.set(title=title, xlabel="width", xscale="log")
        ax.set_xticks(ticks, [str(w) for w in ticks])
        ax.minorticks_off()
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("test accuracy (%)")
    axes[0].legend(frameon=False)
    run.figure("width", figure, caption=(
        "Accuracy of networks trained with a mask that was drawn before the first step and never moves, against their "
        "width. Random masks with ERK densities come close to the dense network as it widens."))
