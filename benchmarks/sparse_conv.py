"""Sparse 1 x 1 convolutions against dense ones, MKL's and SciPy's CSR products; linear layers; a whole pruned network.

    python benchmarks/sparse_conv.py

The shapes are those of MobileNetV2's 1 x 1 convolutions with at least 64 input channels, batch 1. The dense peer is the
fastest of `torch.mm`, `torch.conv2d` and `torch.conv2d` in channels_last on that shape; all have one thread, except in
the rows on two. Weights are drawn: unstructured ones have a random support, blocks of four output channels share one.
"""

from __future__ import annotations

import copy
import math
import operator
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import Any

import scipy.sparse
import torch
from _paired import Paired, command, paired, row, seconds, time_row
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional

from sparsepriors.kernels import pack_1x1, spmm_chw
from sparsepriors.networks import SparseInference, SparseLinear, efficientnet_lite0, sparsify_for_inference
from sparsepriors.networks.prune import prune
from sparsepriors.networks.sparse import Selector, Uniform
from sparsepriors.priors import Unstructured

SHAPES = ((12544, 96, 16), (3136, 144, 24), (784, 144, 32), (784, 192, 32), (196, 192, 64), (196, 64, 384),
          (196, 384, 64), (196, 384, 96), (196, 96, 576), (196, 576, 96), (49, 576, 160), (49, 160, 960),
          (49, 960, 160), (49, 960, 320), (49, 320, 1280))
"""Pixels, input channels, output channels."""
SPARSITIES = (0.5, 0.65, 0.8, 0.9, 0.95)
DENSE = "torch dense, fastest of three"
LEAST = 1e-3  # seconds of one timing
SHARED = 1 << 20  # multiply-adds that a second thread takes part in


def drawn(outputs: int, channels: int, sparsity: float, block: int, generator: torch.Generator) -> Tensor:
    """Random weights with the same number of random kept input channels in every block of output channels."""
    kept = max(1, round((1 - sparsity) * channels))
    scores = torch.rand(-(-outputs // block), channels, generator=generator)
    mask = torch.zeros(scores.shape, dtype=torch.bool).scatter_(1, scores.topk(kept, dim=1).indices, True)
    mask = mask.repeat_interleave(block, dim=0)[:outputs]
    return torch.where(mask, torch.randn(outputs, channels, generator=generator), 0)


def dense(x: Tensor, weight: Tensor) -> Callable[[], Tensor]:
    """The fastest dense way for this shape."""
    side = math.isqrt(x.shape[2])
    image = x.unflatten(2, (side, side))
    last, kernel = image.contiguous(memory_format=torch.channels_last), weight[:, :, None, None].contiguous()
    kernel_last = kernel.contiguous(memory_format=torch.channels_last)
    ways = (lambda: weight @ x[0], lambda: torch.conv2d(image, kernel), lambda: torch.conv2d(last, kernel_last))
    for way in ways:
        way()
    return min(ways, key=lambda way: min(seconds(way) for _ in range(9)))


def several(call: Callable[[], object], count: int) -> Callable[[], None]:
    def calls() -> None:
        for _ in range(count):
            call()

    return calls


def measured(ours: Callable[[], object], peer: Callable[[], object], pairs: int) -> Paired:
    """Seconds of one call of each, from timings of at least a millisecond."""
    for call in (ours, peer):
        call()
    a, b = (max(1, math.ceil(LEAST / seconds(call))) for call in (ours, peer))
    found = paired(several(ours, a), several(peer, b), pairs=pairs, budget=2.0)
    return Paired(tuple(s / a for s in found.ours), tuple(s / b for s in found.peer), found.first / a)


def mean_row(case: str, peer: str, found: Sequence[Paired], target: float | None) -> dict[str, Any]:
    """Geometric means over shapes."""
    ours, theirs, ratio = (math.exp(sum(map(math.log, values)) / len(values)) for values in (
        [median(f.ours) for f in found], [median(f.peer) for f in found], [f.ratio for f in found]))
    return row(case, "ms", round(1e3 * ours, 4), peer, round(1e3 * theirs, 4), round(ratio, 3), target)


def kernels(quick: bool) -> list[dict[str, Any]]:
    """Every shape at 90 %, geometric means at every sparsity, and blocks of four."""
    generator, pairs = torch.Generator().manual_seed(0), 3 if quick else 9
    rows: list[dict[str, Any]] = []
    means: dict[tuple[str, str, float | None], list[Paired]] = {}
    for pixels, channels, outputs in SHAPES[::5] if quick else SHAPES:
        x = torch.randn(1, channels, pixels, generator=generator)
        for sparsity in (0.9,) if quick else SPARSITIES:
            weight = drawn(outputs, channels, sparsity, 1, generator)
            packed, way = pack_1x1(weight, block=1), dense(x, weight)
            ours = partial(spmm_chw, x, packed)
            assert torch.allclose(ours()[0], weight @ x[0], atol=1e-3)
            name = f"{sparsity:.0%} zeros"
            found = measured(ours, way, pairs)
            means.setdefault((f"{name}, mean of all", DENSE, {0.65: 1.0, 0.9: 3.0}.get(sparsity)), []).append(found)
            if sparsity != 0.9:
                continue
            rows.append(time_row(f"{outputs} x {channels}, {pixels} pixels, {name}", DENSE, found))
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
                csr = weight.to_sparse_csr()
            other, plane = scipy.sparse.csr_matrix(weight.numpy()), x[0].numpy()
            means.setdefault((f"{name}, mean of all", "torch CSR (MKL)", 1.5), []).append(
                measured(ours, partial(torch.matmul, csr, x[0]), pairs))
            means.setdefault((f"{name}, mean of all", "scipy CSR", 3.0), []).append(
                measured(ours, partial(operator.matmul, other, plane), pairs))
            blocked = pack_1x1(drawn(outputs, channels, sparsity, 4, generator), block=4)
            means.setdefault((f"{name} in blocks of 4, mean of all", "ours, unstructured", 1.3), []).append(
                measured(partial(spmm_chw, x, blocked), ours, pairs))
    return [*(mean_row(case, peer, found, target) for (case, peer, target), found in means.items()), *rows]


def linear(quick: bool) -> list[dict[str, Any]]:
    """Linear layers of a small transformer, on 128 tokens."""
    generator, rows = torch.Generator().manual_seed(3), []
    for outputs, channels in ((1536, 384),) if quick else ((1536, 384), (384, 1536), (768, 768)):
        x = torch.randn(128, channels, generator=generator)
        for sparsity in (0.9,) if quick else (0.5, 0.7, 0.9):
            weight = drawn(outputs, channels, sparsity, 1, generator)
            layer = SparseLinear(pack_1x1(weight))
            found = measured(partial(layer, x), partial(functional.linear, x, weight), 3 if quick else 9)
            case = f"linear layer {channels} to {outputs}, 128 rows, {sparsity:.0%} zeros"
            rows.append(time_row(case, "torch linear", found))
    return rows


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


def scaling(quick: bool) -> list[dict[str, Any]]:
    """Two threads against one, on one image and on sixteen. Little work stays on one thread."""
    generator, rows = torch.Generator().manual_seed(1), []
    for batch in (1, 16):
        found, shared = [], []
        for pixels, channels, outputs in SHAPES[::5] if quick else SHAPES:
            packed = pack_1x1(drawn(outputs, channels, 0.9, 1, generator), block=1)
            x = torch.randn(batch, channels, pixels, generator=generator)

            def run(count: int, packed: Any = packed, x: Tensor = x) -> None:
                torch.set_num_threads(count)
                spmm_chw(x, packed)

            found.append(measured(partial(run, 2), partial(run, 1), 3 if quick else 9))
            torch.set_num_threads(1)
            if batch == 1 and packed.values.numel() * pixels >= SHARED:
                shared.append(found[-1])
        case = f"90% zeros, {batch} images, two threads, mean of"
        rows.append(mean_row(f"{case} all", "ours, one thread", found, 1.7 if batch > 1 else None))
        if shared:
            rows.append(mean_row(f"{case} {len(shared)} with a million multiply-adds", "ours, one thread", shared, 1.7))
    return rows


def network(quick: bool) -> list[dict[str, Any]]:
    """EfficientNet-Lite0 with its trained weights, 1 x 1 convolutions pruned by magnitude, one image."""
    side, pairs, rows = 64 if quick else 224, 3 if quick else 15, []
    x = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(2))
    where = Selector(skip=("_conv_stem", "_depthwise_conv", "_fc"))
    for sparsity in (0.9,) if quick else (0.7, 0.8, 0.9):
        model = efficientnet_lite0(pretrained=True)
        prune(model, Unstructured(1 - sparsity), where=where, distribution=Uniform())
        fast, folded = sparsify_for_inference(model, x), sparsify_for_inference(model, x, min_sparsity=1.0)
        last, x_last = channels_last(model), x.contiguous(memory_format=torch.channels_last)
        want, got = model(x), fast(x)
        off = float((want - got).abs().max() / want.abs().max())
        if off > 1e-3 or int(want.argmax()) != int(got.argmax()):
            raise AssertionError(f"the packed network differs by {off:.1e} of the largest logit")
        case = f"EfficientNet-Lite0, {sparsity:.0%} zeros"
        for peer, run in (("torch eager", partial(model, x)), ("torch eager, channels_last", partial(last, x_last)),
                          ("the same with dense weights, folded", partial(folded, x))):
            target = 1.4 if sparsity == 0.9 and peer == "torch eager" else None
            found = measured(partial(fast, x), run, pairs)
            rows.append(time_row(f"{case}, whole network", peer, found, target=target))
        rows.append(pointwise_row(case, model, fast, pairs, 2.5 if sparsity == 0.9 else None))
    return rows


def channels_last(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def pointwise_row(case: str, model: nn.Module, fast: SparseInference, pairs: int,
                  target: float | None) -> dict[str, Any]:
    """All packed layers, with bias and clamp, beside the convolutions alone of the network as it was."""
    chosen = [(c.name, torch.randn(c.shape)) for c in fast.report(repeats=1).packed]

    def every(network: nn.Module) -> Callable[[], None]:
        layers = [(network.get_submodule(name), x) for name, x in chosen]

        def run() -> None:
            for layer, x in layers:
                layer(x)

        return run

    found = measured(every(fast.network), every(model), pairs)
    return time_row(f"{case}, its {len(chosen)} packed layers", "torch conv2d", found, target=target)


def measure(quick: bool) -> list[dict[str, Any]]:
    with torch.inference_mode(), threads(1):
        return [*kernels(quick), *linear(quick), *scaling(quick), *network(quick)]


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print and write the rows."""
    return command("sparse_conv", __doc__ or "", measure, ["--threads", "1", *(arguments or [])])


if __name__ == "__main__":
    main(sys.argv[1:])
