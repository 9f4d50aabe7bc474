"""Elsen et al. (2020): sparse 1 x 1 convolutions that are faster than dense ones, and what that does to networks.

Kernels on MobileNetV2's shapes, EfficientNet-Lite0 with pruned weights, and small MobileNets that are wide and sparse
or narrow and dense at equal multiply-adds.
"""

from __future__ import annotations

import math
import operator
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from sparsepriors.data.imagenet import random_views
from sparsepriors.data.photos import PHOTOS, photos
from sparsepriors.kernels import pack_1x1, spmm_chw
from sparsepriors.kernels.dispatch import torch_threads
from sparsepriors.networks.augment import Augment
from sparsepriors.networks.classification import accuracy
from sparsepriors.networks.models import MobileNetV1, efficientnet_lite0
from sparsepriors.networks.prune import prune
from sparsepriors.networks.recipe import Recipe, train_classifier
from sparsepriors.networks.sparse import Selector, SparsePlan, Uniform, preset, select, sparsity_report
from sparsepriors.networks.sparse_inference import sparsify_for_inference
from sparsepriors.papers._axes import plain_ticks
from sparsepriors.papers._images import Drawn, ImageSizes
from sparsepriors.priors.patterns import OutputBlocks, Pattern, Unstructured
from sparsepriors.runs import Claim, Paper, Run, Scale

PAPER = Paper(
    slug="fast-sparse-convnets",
    title="Fast Sparse ConvNets",
    authors="Erich Elsen, Marat Dukhan, Trevor Gale, Karen Simonyan",
    year=2020,
    url="https://arxiv.org/abs/1911.09723",
    room="networks.sparse_inference",
    method=(
        "1 x 1 convolutions do most of the work in mobile networks; they are pruned by magnitude while training.",
        "Activations stay dense, channel by channel: each kept weight multiplies a run of pixels, nothing is gathered.",
        "A strip of pixels is held in registers while the weights of all output channels pass by.",
        "Blocks of 2 or 4 output channels may share their support: a loaded pixel then serves all of them.",
        "Batch normalisation and ReLU6 are folded into the sparse convolution.",
    ),
    claims=(
        Claim("over-dense", "At 90 % zeros the kernel is three times as fast as the fastest dense way of PyTorch "
              "(geometric mean over MobileNetV2's shapes with at least 64 input channels)",
              "1.3 to 2.4 times for whole networks (Snapdragon 835)", "dense = 1", margin=2.0),
        Claim("over-csr", "At 90 % zeros it is 1.5 times as fast as MKL's CSR product (the same mean)",
              "faster than MKL and TACO at 70 to 95 %", "MKL = 1", margin=0.5),
        Claim("blocks-faster", "With as many weights, blocks of four output channels are 1.3 times as fast as "
              "unstructured ones (the same mean)", "blocks raise the throughput", "unstructured = 1", margin=0.3),
        Claim("whole-network", "EfficientNet-Lite0 with 80 % zeros is 1.3 times as fast as dense in PyTorch (batch 1)",
              "1.3 to 2.4 times, EfficientNet-B0 at 80 % (Snapdragon 835)", "dense, the faster memory format = 1",
              margin=0.3),
        Claim("same-answers", "Packed networks give the logits of the pruned ones to 1e-3 and the same first answer "
              "(share)", "not reported", "all comparisons"),
        Claim("wide-sparse", "At equal multiply-adds wide sparse networks are more accurate than narrow dense ones "
              "(mean of two pairs, share of test images)",
              "MobileNetV1 1.4 at 90 %: 72.0 %, dense 1.0: 70.9 % (ImageNet)", "narrow and dense"),
        Claim("late-blocks", "Blocks of four in the last, wide layers cost at most 0.005 (share of test images)",
              "little accuracy", "unstructured, the same density", margin=-0.005),
    ),
)

SHAPES = ((12544, 96, 16), (3136, 144, 24), (784, 192, 32), (196, 64, 384), (196, 384, 64), (196, 96, 576),
          (49, 960, 160), (49, 320, 1280))
"""Pixels, input and output channels: 1 x 1 convolutions of MobileNetV2 at 224 x 224 pixels."""
LAYOUT = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 1))
"""Channels at width 1 and strides of the small MobileNets."""
PAIRS = ((0.25, 0.5), (0.25, 0.75))
"""Widths of the dense and of the sparse network that are compared at equal multiply-adds."""
BLOCKED = PAIRS[1]
WHERE = Selector(skip=("_conv_stem", "_depthwise_conv", "_fc"))
POINTWISE = Selector(only=("blocks.*.1.0",))
"""The 1 x 1 convolutions of EfficientNet-Lite0, and of the small MobileNets; everything else stays dense."""


@dataclass(frozen=True)
class Sizes(ImageSizes):
    """How much is measured at a scale."""

    shapes: tuple[tuple[int, int, int], ...]
    sparsities: tuple[float, ...]
    repeats: int
    side: int
    pruned: tuple[float, ...]
    epochs: int


SIZES = {
    Scale.SMOKE: Sizes("digits8", 1, 256, 0, 200, SHAPES[3:6], (0.9,), 3, 64, (0.8,), 1),
    Scale.DEFAULT: Sizes("fashion-mnist", 2, 3000, 0, 5000, SHAPES, (0.5, 0.7, 0.9, 0.95), 12, 224, (0.7, 0.8, 0.9), 4),
    Scale.FULL: Sizes("fashion-mnist", 1, 60_000, 0, 10_000, SHAPES, (0.5, 0.6, 0.7, 0.8, 0.9, 0.95), 50, 224,
                      (0.7, 0.8, 0.9), 30),
}


def run(scale: Scale, seed: int, run: Run) -> None:
    """Time kernels and the pruned network, train the small ones; the seed draws weights, photographs and batches."""
    sizes = SIZES[scale]
    arms = [(narrow, None, None) for narrow in dict.fromkeys(n for n, _ in PAIRS)]
    arms += [(wide, narrow, None) for narrow, wide in PAIRS] + [(BLOCKED[1], BLOCKED[0], 4)]
    with run.progress(2 + len(arms), "measuring") as bar:
        with torch_threads(1):
            kernels = run.once("kernels", lambda: _kernels(sizes, seed))["rows"]
            bar.advance()
            networks = run.once("networks", lambda: _networks(sizes, seed))["rows"]
            bar.advance()
        data, trained = sizes.draw(run), {}
        for wide, narrow, block in arms:
            key = f"w{wide:g}" + ("" if narrow is None else f"-at-{narrow:g}") + ("" if block is None else f"-b{block}")
            trained[wide, narrow, block] = run.once(key, partial(_train, run, sizes, data, wide, narrow, block))
            bar.advance()
    for row in (*kernels, *networks, *trained.values()):
        run.log(**row)
    _claims(run, kernels, networks, trained)
    _draw(run, kernels, networks, trained)


def _kernels(sizes: Sizes, seed: int) -> dict[str, Any]:
    generator, rows = torch.Generator().manual_seed(seed), []
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        for sparsity in sizes.sparsities:
            ratios: dict[str, list[float]] = {}
            for pixels, channels, outputs in sizes.shapes:
                free, blocked = (_weight(outputs, channels, sparsity, block, generator) for block in (1, 4))
                x, csr = torch.randn(1, channels, pixels, generator=generator), free.to_sparse_csr()
                seconds = _fastest({
                    "ours": partial(spmm_chw, x, pack_1x1(free, block=1)), **_dense(x, free),
                    "blocks": partial(spmm_chw, x, pack_1x1(blocked, block=4)),
                    "csr": partial(operator.matmul, csr, x[0])}, sizes.repeats)
                dense = min(seconds[name] for name in ("mm", "nchw", "nhwc"))
                for name, ratio in (("over_dense", dense / seconds["ours"]),
                                    ("over_csr", seconds["csr"] / seconds["ours"]),
                                    ("blocks_over_dense", dense / seconds["blocks"])):
                    ratios.setdefault(name, []).append(ratio)
            rows.append({"part": "kernel", "sparsity": sparsity, **{name: _mean(of) for name, of in ratios.items()}})
    return {"rows": rows}


def _weight(outputs: int, channels: int, sparsity: float, block: int, generator: torch.Generator) -> Tensor:
    """Random weights; every block of output channels keeps as many random input channels."""
    scores = torch.rand(-(-outputs // block), channels, generator=generator)
    keep = scores.argsort(dim=1).argsort(dim=1) < round((1 - sparsity) * channels)
    weight = torch.randn(outputs, channels, generator=generator)
    return torch.where(keep.repeat_interleave(block, dim=0)[:outputs], weight, 0)


def _dense(x: Tensor, weight: Tensor) -> dict[str, Callable[[], Tensor]]:
    side = math.isqrt(x.shape[2])
    image, kernel = x.unflatten(2, (side, side)), weight[:, :, None, None].contiguous()
    last = (t.contiguous(memory_format=torch.channels_last) for t in (image, kernel))
    return {"mm": partial(torch.matmul, weight, x[0]), "nchw": partial(torch.conv2d, image, kernel),
            "nhwc": partial(torch.conv2d, *last)}


def _networks(sizes: Sizes, seed: int) -> dict[str, Any]:
    """EfficientNet-Lite0 pruned by magnitude, one view of a photograph."""
    generator, rows = torch.Generator().manual_seed(seed), []
    name = PHOTOS[seed % len(PHOTOS)]
    x = random_views(photos([name])[name], 1, generator, size=sizes.side)
    for sparsity in sizes.pruned:
        model = efficientnet_lite0(pretrained=True)
        prune(model, Unstructured(1 - sparsity), where=WHERE, distribution=Uniform())
        fast, folded = sparsify_for_inference(model, x), sparsify_for_inference(model, x, min_sparsity=1.0)
        last = efficientnet_lite0(pretrained=True)
        last.load_state_dict(model.state_dict())
        last = last.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        with torch.inference_mode():
            want, got = model(x), fast(x)
            seconds = _fastest({
                "fast": partial(fast, x), "nchw": partial(model, x), "folded": partial(folded, x),
                "nhwc": partial(last, x.contiguous(memory_format=torch.channels_last))}, 2 * sizes.repeats)
        report = fast.report(repeats=3)
        off = float((want - got).abs().max() / want.abs().max())
        rows.append({"part": "network", "sparsity": sparsity, "ms": 1e3 * seconds["fast"], "off": off,
                     "same": float(off <= 1e-3 and int(want.argmax()) == int(got.argmax())),
                     "over_dense": min(seconds["nchw"], seconds["nhwc"]) / seconds["fast"],
                     "over_nchw": seconds["nchw"] / seconds["fast"], "over_folded": seconds["folded"] / seconds["fast"],
                     "layers_over_dense": report.gain or 1.0, "packed": len(report.packed)})
    return {"rows": rows}


def _train(run: Run, sizes: Sizes, data: Drawn, width: float, narrow: float | None,
           block: int | None) -> dict[str, Any]:
    """A dense network, or a sparse one of the multiply-adds that a dense one of width ``narrow`` does."""
    example = data.train[0][:1]
    network = _network(width, run)
    recipe = Recipe(epochs=sizes.epochs, batch=32, optimizer="adamw", rate=2e-3, weight_decay=0.01, warmup=0.1,
                    augment=Augment(shift=1, flip=True))
    density, plan = 1.0, None
    if narrow is not None:
        density = _density(network, _multiply_adds(_network(narrow, run), example), example)
        late = round(256 * width)
        pattern: Pattern = Unstructured(density) if block is None else OutputBlocks(density, block, late)
        every = max(1, recipe.steps(len(data.train[0])) // 40)
        gmp = preset("gmp", density=density, start=0.2, end=0.75, every=every, distribution=Uniform())
        plan = SparsePlan(pattern, gmp.distribution, schedule=gmp.schedule, where=POINTWISE)
    train_classifier(network, data.train, recipe, plan=plan, generator=torch.Generator().manual_seed(run.seed))
    network.eval()
    masks = {name: s.parameter.detach() != 0 for name, s in select(network, POINTWISE).items()}
    fast = sparsify_for_inference(network, example.cpu()) if run.device.type == "cpu" else None
    return {"part": "training", "width": width, "narrow": narrow or width, "block": block or 1, "density": density,
            "accuracy": accuracy(network, *data.test),
            "multiply_adds": sparsity_report(network, masks, example=example).macs_kept,
            "packed": 0 if fast is None else sum(not c.why for c in fast.choices)}


def _network(width: float, run: Run) -> nn.Module:
    """The first weights depend on the seed and the width alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        network = MobileNetV1(width=width, in_channels=1, classes=10, stem="cifar", layout=LAYOUT)
    return network.to(run.device)


def _multiply_adds(network: nn.Module, example: Tensor) -> int:
    return sparsity_report(network, example=example).macs_dense or 0


def _density(network: nn.Module, budget: int, example: Tensor) -> float:
    """Density of the 1 x 1 convolutions at which the network does ``budget`` multiply-adds."""
    chosen = select(network, POINTWISE)
    report = sparsity_report(network, example=example)
    pointwise = sum(row.macs_dense or 0 for row in report.layers if row.name in chosen)
    return (budget - ((report.macs_dense or 0) - pointwise)) / pointwise


def _claims(run: Run, kernels: list[dict[str, Any]], networks: list[dict[str, Any]],
            trained: Mapping[tuple[float, float | None, int | None], dict[str, Any]]) -> None:
    at = {row["sparsity"]: row for row in kernels}[0.9]
    run.claim("over-dense", ours=at["over_dense"], baseline=1.0)
    run.claim("over-csr", ours=at["over_csr"], baseline=1.0)
    run.claim("blocks-faster", ours=at["blocks_over_dense"] / at["over_dense"], baseline=1.0)
    run.claim("whole-network", ours={row["sparsity"]: row for row in networks}[0.8]["over_dense"], baseline=1.0)
    run.claim("same-answers", ours=fmean(row["same"] for row in networks), baseline=1.0)
    run.claim("wide-sparse", ours=fmean(trained[w, n, None]["accuracy"] for n, w in PAIRS),
              baseline=fmean(trained[n, None, None]["accuracy"] for n, _ in PAIRS))
    narrow, wide = BLOCKED
    run.claim("late-blocks", ours=trained[wide, narrow, 4]["accuracy"],
              baseline=trained[wide, narrow, None]["accuracy"])


def _fastest(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of the fastest run of each call; they take turns."""
    found = dict.fromkeys(calls, math.inf)
    for _ in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            found[name] = min(found[name], time.perf_counter() - start)
    return found


def _mean(ratios: list[float]) -> float:
    return math.exp(fmean(map(math.log, ratios)))


def _draw(run: Run, kernels: list[dict[str, Any]], networks: list[dict[str, Any]],
          trained: Mapping[tuple[float, float | None, int | None], dict[str, Any]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    x = [100 * row["sparsity"] for row in kernels]
    for key, label, style in (("over_dense", "unstructured / dense", "o-"),
                              ("blocks_over_dense", "blocks of 4 / dense", "s-"),
                              ("over_csr", "unstructured / MKL CSR", "^--")):
        left.plot(x, [row[key] for row in kernels], style, label=label)
    left.axhline(1, color="#777777", lw=1)
    left.set(title="one 1 x 1 convolution", xlabel="zeros (%)", ylabel="times as fast", yscale="log")
    plain_ticks(left.yaxis)
    x = [100 * row["sparsity"] for row in networks]
    for key, label, style in (("over_dense", "PyTorch, the faster format", "o-"), ("over_nchw", "PyTorch, NCHW", "s-"),
                              ("over_folded", "dense, folded", "^--"),
                              ("layers_over_dense", "packed layers alone", "x:")):
        middle.plot(x, [row[key] for row in networks], style, label=label)
    middle.axhline(1, color="#777777", lw=1)
    middle.set(title="EfficientNet-Lite0, one image", xlabel="zeros in 1 x 1 convolutions (%)", ylabel="times as fast")
    for (width, narrow, block), row in trained.items():
        colour = "#777777" if narrow is None else "#cb181d" if block else "#08519c"
        right.plot(row["multiply_adds"] / 1e6, 100 * row["accuracy"], "os"[narrow is not None], color=colour)
        name = f"{width:g}" if narrow is None else f"{width:g}, {100 * (1 - row['density']):.0f} %" + (
            ", blocks" if block else "")
        right.annotate(name, (row["multiply_adds"] / 1e6, 100 * row["accuracy"]), fontsize=8, xytext=(5, 2),
                       textcoords="offset points")
    right.set(title="small MobileNets: width, zeros", xlabel="multiply-adds (million)", ylabel="test accuracy (%)")
    for ax in (left, middle, right):
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=8)
    middle.legend(frameon=False, fontsize=8)
    run.figure("speed", figure, caption=(
        "One seed, one thread. Left and middle: time of the peer over ours. Right: narrow dense networks (circles) and "
        "wide sparse ones (squares) at equal multiply-adds."))
