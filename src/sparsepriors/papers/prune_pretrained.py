"""Han, Pool, Tran and Dally (2015): how much of a trained network can be cut away, here before any retraining.

EfficientNet-Lite0 with its ImageNet weights is pruned by the priors that the rest of the library uses. Without the
ImageNet labels, which cannot be shipped, the measure is agreement: how often the pruned network gives the same first
answer as the dense one on views of real photographs that it was not calibrated on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from sparsepriors.data.imagenet import ClassFolder, imagenet_names, random_views, to_input
from sparsepriors.data.photos import PHOTOS, photos
from sparsepriors.networks.batchnorm import Moments, batchnorm_moments, recalibrate_batchnorm
from sparsepriors.networks.models import efficientnet_lite0
from sparsepriors.networks.prune import Pruned, prune
from sparsepriors.networks.sparse import (
    ERK,
    Distribution,
    Global,
    MagnitudeScore,
    RandomScore,
    Selector,
    Uniform,
    select,
)
from sparsepriors.priors.patterns import NM, Channel, Pattern, Unstructured
from sparsepriors.runs import Claim, Paper, Run, Scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAPER = Paper(
    slug="prune-pretrained",
    title="Learning both Weights and Connections for Efficient Neural Networks",
    authors="Song Han, Jeff Pool, John Tran, William J. Dally",
    year=2015,
    url="https://arxiv.org/abs/1506.02626",
    room="networks",
    method=(
        "Take a trained network and keep, of each layer or of all layers together, the weights of largest magnitude.",
        "The same projection serves every pattern: single weights, 2 of every 4, whole output channels.",
        "Optionally set the batch-normalisation statistics so that each channel keeps its dense mean and deviation.",
        "The paper retrains the kept weights afterwards; this experiment does not and says what that costs.",
    ),
    claims=(
        Claim("magnitude-over-random", "At half the weights, keeping the largest preserves far more answers than "
              "keeping random ones (share of equal first answers)", "not reported", "random weights kept", margin=0.2),
        Claim("free-lunch", "Half of the weights can go without retraining at no loss (share of equal first answers, "
              "2 % allowed)", "2x fewer connections without loss before retraining (AlexNet)", "the dense network",
              margin=-0.02),
        Claim("nine-fold", "A ninth of the weights serves as well as all (here without the paper's retraining, "
              "2 % allowed)", "9x fewer parameters without loss after retraining (AlexNet)", "the dense network",
              margin=-0.02),
        Claim("moments-help", "At half the weights, matching batch-normalisation moments on unlabelled photographs "
              "recovers answers", "not reported", "statistics left as trained", margin=0.05),
        Claim("global-over-uniform", "At half the weights, one threshold for the network preserves more answers than "
              "one for each layer", "thresholds are set for each layer", "uniform density"),
        Claim("unstructured-over-2-4", "At half the weights, free positions preserve more answers than 2 of every 4",
              "not reported", "2:4 in each layer"),
    ),
)

HALF, NINTH = 0.5, 1 / 9
WHERE = Selector(skip=("_conv_stem", "_depthwise_conv"))
"""The 1x1 convolutions and the classifier: 95 % of the weights. Stem and depthwise filters stay dense."""


@dataclass(frozen=True)
class Arm:
    """One way to prune: a name for the family, the pattern, and what fills it."""

    family: str
    pattern: Pattern
    distribution: Distribution
    random: bool = False

    @property
    def key(self) -> str:
        """Name of the unit of work."""
        density = getattr(self.pattern, "density", HALF)
        return f"{self.family.replace(':', '-').replace(' ', '-')}-{density:.3f}"


@dataclass(frozen=True)
class Sizes:
    """How much is measured at a scale."""

    photographs: tuple[str, ...]
    views: int
    calibration: int
    pixels: int
    densities: tuple[float, ...]
    channels: tuple[float, ...]


SIZES = {
    Scale.SMOKE: Sizes(("astronaut", "chelsea", "china", "flower"), 2, 2, 64, (HALF, NINTH), (0.9,)),
    Scale.DEFAULT: Sizes(PHOTOS, 12, 5, 128, (0.8, 0.65, HALF, 0.3, NINTH), (0.95, 0.9, 0.8)),
    Scale.FULL: Sizes(PHOTOS, 64, 16, 224, (0.9, 0.8, 0.7, 0.6, HALF, 0.4, 0.3, 0.2, NINTH), (0.95, 0.9, 0.8, 0.7)),
}
DEMO = Sizes(PHOTOS, 8, 4, 128, (0.8, HALF, 0.3), (0.95, 0.8))
SHOWN = ("flower", "china", "chelsea", "coffee")


def arms(sizes: Sizes) -> list[Arm]:
    """Every pattern at every density."""
    found = [Arm(name, Unstructured(d), spread) for d in sizes.densities
             for name, spread in (("global", Global()), ("uniform", Uniform()), ("ERK", ERK()))]
    found += [Arm("random", Unstructured(d), Global(), random=True)
              for d in dict.fromkeys((sizes.densities[0], HALF))]
    return [*found, Arm("2:4", NM(2, 4), Uniform()), *(Arm("channels", Channel(d), Uniform()) for d in sizes.channels)]


@dataclass(frozen=True)
class Images:
    """What the networks are compared on.

    Attributes
    ----------
    calibration
        Classifier inputs for batch normalisation, from other photographs than those of ``batches``.
    batches
        Gives batches of classifier inputs with their labels, where labels exist.
    """

    calibration: Tensor
    batches: Callable[[], Iterator[tuple[Tensor, Tensor | None]]]


def run(scale: Scale, seed: int, run: Run) -> None:
    """Prune, count, and compare with the dense network; the seed draws photographs, views and random masks."""
    sizes = SIZES[scale]
    images = _folder(run, sizes, seed) if run.data_dir is not None else _photographs(sizes, seed)
    rows = _measure(run, sizes, seed, images)
    dense = 1.0
    table = {(r["family"], r["density_asked"], r["moments"]): r["agreement"] for r in rows}
    run.claim("magnitude-over-random", ours=table["global", HALF, "matched"], baseline=table["random", HALF, "matched"])
    run.claim("free-lunch", ours=table["global", HALF, "trained"], baseline=dense)
    run.claim("nine-fold", ours=table["global", NINTH, "matched"], baseline=dense)
    run.claim("moments-help", ours=table["global", HALF, "matched"], baseline=table["global", HALF, "trained"])
    run.claim("global-over-uniform", ours=table["global", HALF, "matched"],
              baseline=table["uniform", HALF, "matched"])
    run.claim("unstructured-over-2-4", ours=table["uniform", HALF, "matched"], baseline=table["2:4", HALF, "matched"])
    _draw_curves(run, rows)


def demo(run: Run) -> None:
    """Prune once with every pattern and show what the network says of photographs before and after."""
    images = _photographs(DEMO, run.seed)
    rows = _measure(run, DEMO, run.seed, images)
    _draw_curves(run, rows)
    _draw_answers(run)


def _measure(run: Run, sizes: Sizes, seed: int, images: Images) -> list[dict[str, Any]]:
    model = _network(run)
    calibration = _layout(images.calibration, run)
    moments = batchnorm_moments(model, calibration)
    answers = _answers(run, model, images)
    todo = arms(sizes)
    rows: list[dict[str, Any]] = []
    with run.progress(len(todo), "pruning EfficientNet-Lite0") as bar:
        for i, arm in enumerate(todo):
            unit = run.once(arm.key, lambda arm=arm, i=i: _unit(
                run, arm, model, images, calibration, moments, answers, seed * 1000 + i))
            rows += unit["rows"]
            bar.advance()
    peer = run.once("peer", lambda: {"different": _peer_difference(model)})
    for row in rows:
        run.log(**row)
    run.log(family="global", peer="torch.nn.utils.prune", density_asked=HALF, masks_different=peer["different"])
    return rows


def _unit(run: Run, arm: Arm, model: nn.Module, images: Images, calibration: Tensor, moments: Mapping[str, Moments],
          answers: Tensor, seed: int) -> dict[str, Any]:
    pruned = copy.deepcopy(model)
    report = _prune(arm, pruned, seed).report
    books = {"family": arm.family, "density_asked": float(getattr(arm.pattern, "density", HALF)),
             "density": report.density, "bytes": report.bytes_sparse, "bytes_dense": report.bytes_dense,
             "macs": report.macs_kept, "macs_dense": report.macs_dense,
             "zeroed_channels": sum(r.zeroed_channels for r in report.layers)}
    trained = _compare(run, pruned, images, answers)
    recalibrate_batchnorm(pruned, calibration, like=moments)
    matched = _compare(run, pruned, images, answers)
    return {"rows": [{**books, "moments": "trained", **trained}, {**books, "moments": "matched", **matched}]}


def _prune(arm: Arm, model: nn.Module, seed: int) -> Pruned:
    score = RandomScore() if arm.random else MagnitudeScore()
    device = next(model.parameters()).device
    return prune(model, arm.pattern, score=score, where=WHERE, distribution=arm.distribution,
                 generator=torch.Generator().manual_seed(seed),
                 example=torch.zeros(1, 3, 224, 224, device=device))


def _compare(run: Run, model: nn.Module, images: Images, dense: Tensor) -> dict[str, float]:
    """Agreement with the dense network, distances of the predicted distributions, accuracy where labels exist."""
    total = equal = correct = labelled = 0
    variation = divergence = 0.0
    with torch.inference_mode():
        for x, labels in images.batches():
            log_p = dense[total:total + len(x)].to(run.device)
            log_q = model(_layout(x, run)).log_softmax(dim=1)
            equal += int((log_p.argmax(1) == log_q.argmax(1)).sum())
            variation += float((log_p.exp() - log_q.exp()).abs().sum()) / 2
            divergence += float((log_p.exp() * (log_p - log_q)).sum())
            total += len(x)
            if labels is not None:
                correct += int((log_q.argmax(1).cpu() == labels).sum())
                labelled += len(labels)
    result = {"agreement": equal / total, "total_variation": variation / total, "kl_nats": divergence / total,
              "views": total}
    return {**result, "top1": correct / labelled} if labelled else result


def _answers(run: Run, model: nn.Module, images: Images) -> Tensor:
    with torch.inference_mode():
        return torch.cat([model(_layout(x, run)).log_softmax(dim=1).cpu() for x, _ in images.batches()])


def _peer_difference(model: nn.Module) -> int:
    """Mask entries in which PyTorch's own global magnitude pruning differs from ours."""
    ours = prune(copy.deepcopy(model), Unstructured(HALF), where=WHERE, distribution=Global()).masks
    peer = copy.deepcopy(model)
    layers = {name: peer.get_submodule(s.layer) for name, s in select(peer, WHERE).items()}
    torch_prune.global_unstructured([(m, "weight") for m in layers.values()], torch_prune.L1Unstructured,
                                    amount=1 - HALF)
    return sum(int((ours[name] != m.get_buffer("weight_mask").bool()).sum()) for name, m in layers.items())


def _network(run: Run) -> nn.Module:
    return efficientnet_lite0(pretrained=True).to(run.device)


def _layout(x: Tensor, run: Run) -> Tensor:
    return x.to(run.device, memory_format=torch.channels_last)


def _photographs(sizes: Sizes, seed: int) -> Images:
    """Views of photographs: half of the photographs calibrate, the others are looked at."""
    generator = torch.Generator().manual_seed(seed)
    pictures = photos(sizes.photographs)
    order = [sizes.photographs[i] for i in torch.randperm(len(pictures), generator=generator).tolist()]
    half = len(order) // 2
    calibration, seen = (
        torch.cat([random_views(pictures[n], count, generator, size=sizes.pixels) for n in names])
        for names, count in ((order[:half], sizes.calibration), (order[half:], sizes.views)))
    return Images(calibration, lambda: ((x, None) for x in seen.split(32)))


def _folder(run: Run, sizes: Sizes, seed: int) -> Images:
    """Centre crops of labelled images in ImageNet's class folders; a seeded sample calibrates and is not judged."""
    assert run.data_dir is not None
    folder = ClassFolder(run.data_dir)
    if len(folder.classes) != 1000:
        raise ValueError(f"{run.data_dir} must hold ImageNet-1k's 1,000 class folders, got {len(folder.classes)}")
    order = torch.randperm(len(folder), generator=torch.Generator().manual_seed(seed)).tolist()
    count = min(sizes.calibration * len(sizes.photographs), len(order) // 2)

    def batches() -> Iterator[tuple[Tensor, Tensor | None]]:
        for first in range(count, len(order), 32):
            items = [folder[i] for i in order[first:first + 32]]
            yield (torch.stack([to_input(image, sizes.pixels) for image, _ in items]),
                   torch.tensor([label for _, label in items]))

    return Images(torch.stack([to_input(folder[i][0], sizes.pixels) for i in order[:count]]), batches)


def _draw_curves(run: Run, rows: list[dict[str, Any]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    for ax, moments, title in zip(figure.subplots(1, 2, sharey=True), ("trained", "matched"),
                                  ("statistics as trained", "moments matched on other photographs"), strict=True):
        for family, style in (("global", "o-"), ("ERK", "s-"), ("uniform", "^-"), ("channels", "D--"), ("random", "x:"),
                              ("2:4", "*")):
            points = sorted((1 - r["density"], r["agreement"]) for r in rows
                            if r["family"] == family and r["moments"] == moments)
            ax.plot([100 * s for s, _ in points], [100 * a for _, a in points], style, label=family,
                    markersize=13 if family == "2:4" else 6)
        ax.set(title=title, xlabel="weights removed (%)", ylim=(-3, 103), xlim=(0, 92))
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("same first answer as the dense network (%)")
    figure.axes[1].legend(frameon=False, title="pattern")
    views = max(r["views"] for r in rows)
    run.figure("agreement", figure, caption=(
        f"EfficientNet-Lite0 pruned once, without retraining: agreement with the dense network on {views} views. "
        f"The right panel also sets batch-normalisation statistics on photographs that are not judged."))


def _draw_answers(run: Run) -> None:
    from matplotlib.figure import Figure

    names = imagenet_names()
    generator = torch.Generator().manual_seed(run.seed)
    others = photos(n for n in PHOTOS if n not in SHOWN)
    model = _network(run)
    calibration = _layout(torch.cat([random_views(p, 3, generator, size=160) for p in others.values()]), run)
    moments = batchnorm_moments(model, calibration)
    columns: list[tuple[str, nn.Module]] = [("dense, 18.6 MB", model)]
    for title, arm in (("global, 35 % removed", Arm("global", Unstructured(0.65), Global())),
                       ("global, half removed", Arm("global", Unstructured(HALF), Global())),
                       ("2:4", Arm("2:4", NM(2, 4), Uniform()))):
        pruned = copy.deepcopy(model)
        report = _prune(arm, pruned, run.seed).report
        recalibrate_batchnorm(pruned, calibration, like=moments)
        columns.append((f"{title}, {report.bytes_sparse / 1e6:.1f} MB", pruned))
    pictures = photos(SHOWN)
    x = torch.stack([to_input(p) for p in pictures.values()])
    with torch.inference_mode():
        answers = [m(_layout(x, run)).softmax(dim=1).cpu() for _, m in columns]
    figure = Figure(figsize=(3 + 2.9 * len(columns), 2.1 * len(SHOWN)), layout="constrained")
    axes = figure.subplots(len(SHOWN), len(columns) + 1, squeeze=False)
    for i, row in enumerate(axes):
        row[0].imshow((x[i].permute(1, 2, 0) * 128 + 127).round().clamp(0, 255).byte().numpy())
        row[0].set_axis_off()
        best = int(answers[0][i].argmax())
        for j, (title, _) in enumerate(columns):
            _draw_bars(row[j + 1], answers[j][i], names, best)
            if i == 0:
                row[j + 1].set_title(title, fontsize=11)
    run.figure("answers", figure, caption=(
        "First three answers before and after pruning (batch-normalisation moments matched on other photographs). "
        "Dark bars: the dense network's first answer."))


def _draw_bars(ax: Axes, answer: Tensor, names: tuple[str, ...], best: int) -> None:
    values, classes = answer.topk(3)
    colours = ["#1b4965" if c == best else "#bcd4e6" for c in classes.tolist()]
    ax.barh([2, 1, 0], values.tolist(), color=colours, height=0.8)
    for y, value, c in zip((2, 1, 0), values.tolist(), classes.tolist(), strict=True):
        inside = value > 0.6
        ax.text(value - 0.02 if inside else value + 0.02, y, f"{names[c]} {100 * value:.0f} %", va="center",
                ha="right" if inside else "left", fontsize=9, color="white" if inside and c == best else "black")
    ax.set(xlim=(0, 1), xticks=[], yticks=[])
    ax.spines[["top", "right", "bottom"]].set_visible(False)
