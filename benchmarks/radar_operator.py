"""Time of a conjugate-gradient iteration of the near-field radar: against the dense matrix and the machine's limits.

    python benchmarks/radar_operator.py

The published array of 25 antennas and grid of 25 x 25 x 49 voxels, with 5, 20 and 40 frequencies. One iteration is one
forward and one adjoint product. The limit is the larger of two times, both from rates measured in this run: the
arithmetic at the rate of complex matrix products in torch, 8 operations for each voxel, frequency and pair of antennas;
and one reading of the tables at the bandwidth of a triad a = b + s c. The kernel saves a quarter of the
multiplications by Gauss's trick, so that its share of the limit may in principle exceed 1.
"""

from __future__ import annotations

import math
import statistics
import sys
from typing import Any

import torch
from _paired import command, paired, row, seconds, time_row
from torch import Tensor

from sparsepriors.operators.radar import SPEED_OF_LIGHT, BornMIMO


def dense_matrix(op: BornMIMO) -> Tensor:
    """The Born model as a matrix (K T R, voxels), straight from its definition."""
    distances = [torch.cdist(p, op.grid.points(), compute_mode="donot_use_mm_for_euclid_dist")
                 for p in (op.transmitters, op.receivers)]
    matrix = torch.empty(*op.out_shape, math.prod(op.in_shape), dtype=op.dtype)
    for at, f in zip(matrix, op.frequencies, strict=True):
        sent, received = (torch.exp(-2j * math.pi * f / SPEED_OF_LIGHT * d) / (math.sqrt(4 * math.pi) * d)
                          for d in distances)
        at.copy_(sent[:, None] * received)
    return matrix.flatten(0, 2)


def product_rate(n: int) -> float:
    """Operations per second of complex64 matrix products of order n."""
    a, b = torch.randn(2, n, n, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    out = torch.empty_like(a)
    return 8 * n**3 / statistics.median(seconds(lambda: torch.mm(a, b, out=out)) for _ in range(7))


def triad_rate(n: int) -> float:
    """Bytes per second of a = b + 3 c in float32, two arrays read and one written."""
    b, c = torch.ones(2, n)
    out = torch.empty_like(b)
    return 3 * 4 * n / statistics.median(seconds(lambda: torch.add(b, c, alpha=3.0, out=out)) for _ in range(7))


def measure(quick: bool) -> list[dict[str, Any]]:
    shape = (5, 5, 9) if quick else (25, 25, 49)
    rows = []
    for frequencies in (5, 20, 40):
        op = BornMIMO.crossed(shape, frequencies)
        x = torch.randn(op.in_shape, dtype=op.dtype, generator=torch.Generator().manual_seed(frequencies))
        case = f"CG iteration, {'x'.join(map(str, shape))}, K = {frequencies}"
        matrix, flat = dense_matrix(op), x.flatten()
        size = float((matrix @ flat).abs().max())
        assert float((op(x).flatten() - matrix @ flat).abs().max()) <= 1e-4 * size
        adjoint = matrix.mH
        found = paired(lambda op=op, x=x: op.adjoint(op(x)), lambda m=matrix, a=adjoint, v=flat: a @ (m @ v))
        rows.append(time_row(case, "dense complex64 matrix, torch", found))
        flops = 8 * 2 * math.prod(op.out_shape) * math.prod(shape)
        read = 2 * op._propagators.nbytes
        compute, memory = flops / product_rate(256 if quick else 1536), read / triad_rate(1 << (16 if quick else 25))
        limit, ours = max(compute, memory), statistics.median(found.ours)
        bound = "arithmetic at torch's complex product rate" if compute >= memory else "tables at the triad's bandwidth"
        rows.append(row(case, "share of limit", round(limit / ours, 3), bound, 1.0, round(limit / ours, 3)))
        rows.append(row(case, "GFLOP/s nominal", round(flops / ours / 1e9, 1), "complex matrix product, torch",
                        round(flops / compute / 1e9, 1), round(compute / ours, 3)))
        rows.append(row(case, "memory (MB)", round(op._propagators.nbytes / 1e6, 1), "dense complex64 matrix, torch",
                        round(matrix.nbytes / 1e6, 1), round(matrix.nbytes / op._propagators.nbytes, 1)))
    return rows


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print and write the rows."""
    return command("radar_operator", __doc__ or "", measure, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
