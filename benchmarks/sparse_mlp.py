"""Perceptrons that skip silent neurons beside dense ones: one token, a few tokens, matrices that come from memory.

The size is that of T5-Large, width 1024 and 4096 neurons. Matrices of several layers take turns, more than
the caches hold. Results are compared before times are. A row for the second matrix alone times the choice of the active
neurons along with the product.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import torch
from _paired import command, paired, time_row
from torch import nn
from torch.nn import functional

from sparsepriors.kernels import largest_positive, sum_rows
from sparsepriors.networks import SparseMLP, TopKActivation
from sparsepriors.networks.models import seeded

LAYERS = 6


def perceptrons(width: int, neurons: int, active: int) -> list[nn.Sequential]:
    with seeded(torch.Generator().manual_seed(0)):
        return [nn.Sequential(nn.Linear(width, neurons), TopKActivation(nn.ReLU(), active), nn.Linear(neurons, width))
                for _ in range(LAYERS)]


def through(call: Callable[[int], object]) -> Callable[[], None]:
    """All layers, one after the other, so that none of them stays in a cache."""
    def run() -> None:
        for i in range(LAYERS):
            call(i)

    return run


@torch.no_grad()
def rows(width: int, neurons: int, active: int, tokens: int) -> list[dict[str, Any]]:
    dense = perceptrons(width, neurons, active)
    sparse = [SparseMLP.from_dense(mlp) for mlp in dense]
    x = torch.randn(tokens, width, generator=torch.Generator().manual_seed(1))
    for a, b in zip(dense, sparse, strict=True):
        torch.testing.assert_close(b(x), a(x), atol=1e-5, rtol=0)
    inner = [mlp[:2](x) for mlp in dense]
    weights = [(mlp[2].get_parameter("weight"), mlp[2].get_parameter("bias")) for mlp in dense]
    kept = [w.detach().mT.contiguous() for w, _ in weights]

    def second(i: int) -> None:
        sum_rows(sparse[i].rows, *largest_positive(inner[i], neurons)).add_(weights[i][1])

    def gathered(i: int) -> None:
        for a in inner[i]:
            at = a.nonzero()[:, 0]
            torch.mv(kept[i][at].mT, a[at]).add_(weights[i][1])

    case = f"{tokens} x {width}, {active} of {neurons} active"
    peers: list[tuple[str, Callable[[int], object]]] = [
        ("dense second matrix", lambda i: functional.linear(inner[i], *weights[i])),
        ("rows gathered by torch", gathered)]
    found = [time_row(f"second matrix, {case}", name, paired(through(second), through(peer), pairs=15, budget=10),
                      target=2.0 if (active, tokens, name) == (128, 1, "dense second matrix") else None)
             for name, peer in peers]
    whole = paired(through(lambda i: sparse[i](x)), through(lambda i: dense[i](x)), pairs=15, budget=10)
    return [*found, time_row(f"perceptron, {case}", "dense with Top-k", whole)]


def measure(quick: bool) -> list[dict[str, Any]]:
    sizes = [(128, 512)] if quick else [(1024, 4096)]
    counts = (16,) if quick else (64, 128, 256, 1024)
    cases = itertools.chain(itertools.product(sizes, counts, (1,)), itertools.product(sizes, counts[:2], (8,)))
    return [r for (width, neurons), active, tokens in cases for r in rows(width, neurons, active, tokens)]


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print and write the rows."""
    return command("sparse_mlp", __doc__ or "", measure, ["--threads", "1", *(arguments or [])])


if __name__ == "__main__":
    main(sys.argv[1:])
