"""Linear layers with packed N:M weights against dense ones and CSR products of PyTorch (MKL) and SciPy.

    python benchmarks/nm_linear.py

Shapes are those of SmolLM2-135M and of Llamas of 7B parameters, batches those of decoding one and sixteen sequences and
of a prompt. Both sides walk through as many copies of their weights as the caches cannot hold, because a decoded token
reads every weight of a model once; rows marked "in cache" repeat one weight. One thread, except in the rows on two.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import scipy.sparse
import torch
from _paired import Paired, command, paired, row, time_row
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn.functional import linear

from sparsepriors.kernels import PackedNM, nm_linear, nm_mask, pack_linear_nm

SMALL = ((576, 576), (192, 576), (1536, 576), (576, 1536))
"""Outputs and inputs of SmolLM2-135M's layers."""
LARGE, WIDE = (4096, 4096), (11008, 4096)
BATCHES = (1, 16, 128)
COLD = 96 << 20
"""Bytes of all copies of a weight: three times the caches."""
SHARE = 0.75  # of the ratio of bytes that a product bound by memory should reach
DTYPES = (torch.float32, torch.bfloat16)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


def drawn(shape: tuple[int, int], n: int, m: int, generator: torch.Generator) -> Tensor:
    weight = torch.randn(shape, generator=generator)
    return torch.where(nm_mask(weight.abs(), n, m), weight, 0)


def copies(nbytes: int, cold: int) -> int:
    return max(1, math.ceil(cold / nbytes))


def packed_copies(packed: PackedNM, cold: int) -> list[PackedNM]:
    return [dataclasses.replace(packed, values=packed.values.clone(), places=packed.places.clone())
            for _ in range(copies(packed.nbytes, cold))]


def walk(call: Callable[[Any], object], weights: Sequence[Any], steps: int) -> Callable[[], None]:
    """All of ``steps`` products, each with the next weight."""
    def run() -> None:
        for i in range(steps):
            call(weights[i % len(weights)])

    return run


def each(found: Paired, steps: int) -> Paired:
    """Seconds of one of ``steps`` products."""
    return Paired(tuple(s / steps for s in found.ours), tuple(s / steps for s in found.peer), found.first / steps)


def name(shape: tuple[int, int], n: int, m: int, dtype: torch.dtype, batch: int, note: str = "") -> str:
    return f"{n}:{m}, {shape[0]} x {shape[1]}, {str(dtype)[6:]}, batch {batch}{note}"


def same(case: str, ours: Tensor, peer: Tensor) -> None:
    """Raise unless the peer computes what ours does, to rounding."""
    error = float((ours.double() - peer.double()).abs().max() / peer.double().abs().max())
    if not error < (1e-4 if ours.dtype == torch.float32 else 0.03):
        raise AssertionError(f"{case}: results differ by {error:g} of the largest entry")


def against_dense(shape: tuple[int, int], n: int, m: int, dtype: torch.dtype, batches: Sequence[int],
                  generator: torch.Generator, cold: int, note: str = "") -> list[dict[str, Any]]:
    weight = drawn(shape, n, m, generator).to(dtype)
    packed = pack_linear_nm(weight, n, m)
    ours, peers = packed_copies(packed, cold), [weight.clone() for _ in range(copies(weight.nbytes, cold))]
    rows = []
    for batch in batches:
        case = name(shape, n, m, dtype, batch, note)
        x = torch.randn(batch, shape[1], generator=generator).to(dtype)
        same(case, nm_linear(x, packed), linear(x, weight))
        steps = len(ours) if cold else 16
        found = each(paired(walk(lambda w, x=x: nm_linear(x, w), ours, steps),
                            walk(lambda w, x=x: linear(x, w), peers, steps), pairs=7, budget=1.0), steps)
        target = round(SHARE * packed.dense_nbytes / packed.nbytes, 2) if batch <= 16 and cold else None
        rows.append(time_row(case, "torch.nn.functional.linear, dense", found, target=target))
        if batch == 1 and cold and shape == LARGE:
            rate = packed.nbytes / median(found.ours) / 1e9
            peer = weight.nbytes / median(found.peer) / 1e9
            rows.append(row(case, "GB/s", round(rate, 1), "dense", round(peer, 1), round(rate / peer, 3)))
    return rows


def against_csr(shape: tuple[int, int], n: int, m: int, generator: torch.Generator, cold: int) -> list[dict[str, Any]]:
    weight = drawn(shape, n, m, generator)
    packed = pack_linear_nm(weight, n, m)
    ours, rows = packed_copies(packed, cold), []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        csr = weight.to_sparse_csr()
    other = scipy.sparse.csr_array(weight.numpy())
    held = sum(t.nbytes for t in (csr.values(), csr.crow_indices(), csr.col_indices()))
    both = [csr.clone() for _ in range(copies(held, cold))], [other.copy() for _ in range(copies(held, cold))]
    for batch in (1, 16):
        case = name(shape, n, m, torch.float32, batch)
        x = torch.randn(batch, shape[1], generator=generator)
        turned = x.T.contiguous()
        array = turned.numpy()
        for peer, weights, call in (("torch.sparse CSR (MKL)", both[0], lambda w, v=turned: w @ v),
                                    ("scipy.sparse CSR", both[1], lambda w, v=array: w @ v)):
            same(case, nm_linear(x, packed), torch.as_tensor(call(weights[0])).T)
            found = paired(walk(lambda w, x=x: nm_linear(x, w), ours, len(ours)), walk(call, weights, len(ours)),
                           pairs=5, budget=1.0)
            rows.append(time_row(case, peer, each(found, len(ours))))
    return rows


def on_two_threads(shape: tuple[int, int], dtype: torch.dtype, generator: torch.Generator,
                   cold: int) -> list[dict[str, Any]]:
    with threads(2):
        rows = against_dense(shape, 2, 4, dtype, BATCHES, generator, cold, ", 2 threads")
    packed = packed_copies(pack_linear_nm(drawn(shape, 2, 4, generator).to(dtype), 2, 4), cold)
    for batch in BATCHES:
        x = torch.randn(batch, shape[1], generator=generator).to(dtype)

        def run(count: int, x: Tensor = x) -> None:
            with threads(count):
                walk(lambda w: nm_linear(x, w), packed, len(packed))()

        found = each(paired(lambda run=run: run(2), lambda run=run: run(1), pairs=7, budget=1.0), len(packed))
        rows.append(time_row(name(shape, 2, 4, dtype, batch, ", 2 threads"), "ours on one thread", found))
    return rows


def stream(generator: torch.Generator) -> dict[str, Any]:
    """What this machine reads: a dot product of a long vector with itself, one thread."""
    vector = torch.randn(COLD // 2, generator=generator)
    packed = packed_copies(pack_linear_nm(drawn(LARGE, 2, 4, generator), 2, 4), COLD)
    x = torch.randn(1, LARGE[1], generator=generator)
    found = paired(walk(lambda w: nm_linear(x, w), packed, len(packed)), lambda: vector.dot(vector), pairs=7)
    ours = sum(w.nbytes for w in packed) / median(found.ours) / 1e9
    peer = vector.nbytes / median(found.peer) / 1e9
    return row(name(LARGE, 2, 4, torch.float32, 1), "GB/s", round(ours, 1), "torch.dot, a stream of reads",
               round(peer, 1), round(ours / peer, 3))


@torch.inference_mode()
def measure(quick: bool) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    large, wide, cold = ((64, 64), (96, 64), 1 << 16) if quick else (LARGE, WIDE, COLD)
    rows: list[dict[str, Any]] = []
    with threads(1):
        if not quick:
            rows.append(stream(generator))
        for dtype in DTYPES:
            for n, m in ((2, 4), (1, 4), (1, 8)):
                rows += against_dense(large, n, m, dtype, BATCHES, generator, cold)
            for shape in (wide, *SMALL[:1 if quick else None]):
                rows += against_dense(shape, 2, 4, dtype, BATCHES, generator, cold)
            rows += against_dense(SMALL[0], 2, 4, dtype, BATCHES[:2], generator, 0, ", in cache")
        for n, m in ((2, 4), (1, 8)):
            rows += against_csr(large, n, m, generator, cold)
    for dtype in DTYPES:
        rows += on_two_threads(large, dtype, generator, cold)
    return rows


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print and write the rows."""
    return command("nm_linear", __doc__ or "", measure, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
