"""The kernels of descent by coordinates and by gradients, for the table of kernels."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from sparsepriors import kernels
from sparsepriors.kernels import Penalty, reference
from sparsepriors.testing.kernel import BadCall, KernelCase

_F32, _F64 = torch.float32, torch.float64
NUMBERS = {Penalty.elastic: (0.3, 0.1), Penalty.positive: (0.3, 0.0), Penalty.box: (-0.2, 0.4),
            Penalty.l0: (0.1, 0.0), Penalty.mcp: (0.3, 3.0), Penalty.scad: (0.3, 3.7), Penalty.log_sum: (0.3, 0.5),
            Penalty.power: (0.3, 0.5)}


def bodies() -> tuple[dict[str, str], ...]:
    """The instruction sets that run here, as keywords."""
    return tuple({"instruction_set": name} for name in kernels.instruction_sets()) or ({},)


def descent_cases() -> list[KernelCase]:
    """Sizes are (coordinates, penalty, epochs); few epochs, since rounding decides where jumps fall after many."""
    def draw(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator):
        k, kind, epochs = size
        X = torch.randn(2 * k + 1, k, dtype=dtype, generator=generator)
        gram, linear = X.mT @ X / (2 * k + 1), torch.randn(k, dtype=dtype, generator=generator)
        x = torch.randn(k, dtype=dtype, generator=generator).round()
        weight, second = (torch.full((k,), v, dtype=dtype) for v in NUMBERS[Penalty(kind)])
        return gram, linear, x, linear - gram @ x, kind, weight, second, 0.7, 0.0, epochs, epochs > 1

    sizes = ((0, 0, 1), (1, 0, 3), *((k, int(kind), epochs) for kind in NUMBERS for k, epochs in ((3, 1), (17, 6))),
             (40, 0, 12))
    good = draw((3, 0, 2), _F64, torch.Generator().manual_seed(0))
    return [KernelCase(
        kernels.gram_descent, reference.gram_descent, draw, sizes, dtypes=(_F64,), rounding=1e5, bodies=bodies(),
        refused=(BadCall((good[0].float(), *good[1:]), TypeError, "gram must be a float64 tensor, got torch.float32"),
                 BadCall((good[0][:2], *good[1:]), ValueError, "gram must be square with at least 3 rows"),
                 BadCall((*good[:2], good[2][:2], *good[3:]), ValueError, r"x must have shape \(3,\), got \(2,\)"),
                 BadCall((*good[:4], 8, *good[5:]), ValueError, "kind must be from 0 to 7"),
                 BadCall((*good[:7], -1.0, *good[8:]), ValueError, "factor must be"),
                 BadCall(good, ValueError, "instruction_set must be", {"instruction_set": "avx9"}))),
        _group_descent(), _block_descent(), *_newton(), *_optimality(), *_momentum()]


def _group_descent() -> KernelCase:
    """Sizes are (rows of groups, tasks, penalty, epochs)."""
    def draw(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator):
        k, tasks, kind, epochs = size
        X = torch.randn(2 * k + 1, k, dtype=dtype, generator=generator)
        gram = X.mT @ X / (2 * k + 1)
        linear, x = (torch.randn(k, tasks, dtype=dtype, generator=generator) for _ in range(2))
        starts = torch.tensor([0, *(i for i in (1, 1, 4, 9) if i < k), k] if k else [0])
        groups = len(starts) - 1
        curvature = torch.full((groups,), 4.0, dtype=dtype)
        curvature[1:2] = 0
        weight, second = (torch.full((groups,), v, dtype=dtype) for v in NUMBERS[Penalty(kind)])
        return (gram, linear, x, linear - gram @ x, starts, curvature, kind, weight, second, 0.7, 0.0, epochs,
                epochs > 1)

    sizes = ((0, 1, 0, 1), (1, 1, 0, 3), (7, 2, 4, 3), (17, 1, 0, 7), (17, 3, 0, 6), (12, 1, 3, 6))
    good = draw((3, 2, 0, 2), _F64, torch.Generator().manual_seed(0))
    return KernelCase(
        kernels.gram_group_descent, reference.gram_group_descent, draw, sizes, dtypes=(_F64,), rounding=1e6,
        bodies=bodies(),
        refused=(BadCall((good[0].float(), *good[1:]), TypeError, "gram must be a float64 tensor, got torch.float32"),
                 BadCall((good[0], good[1][:2], *good[2:]), ValueError, r"x must be \(k, tasks\) like linear"),
                 BadCall((good[0], good[1].float(), *good[2:]), TypeError, "linear must be a float64 tensor"),
                 BadCall((*good[:4], good[4].int(), *good[5:]), TypeError, "starts must be an int64 tensor"),
                 BadCall((*good[:4], good[4].flip(0), *good[5:]), ValueError, "starts must rise from 0 to 3"),
                 BadCall((*good[:6], 8, *good[7:]), ValueError, "kind must be from 0 to 7"),
                 BadCall(good, ValueError, "instruction_set must be", {"instruction_set": "avx9"})))


def _block_descent() -> KernelCase:
    """Sizes are (columns, rows, tasks, penalty, epochs)."""
    def draw(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator):
        k, n, tasks, kind, epochs = size
        edges = [0, *(i for i in (1, 1, 4, 9) if i < k), k] if k else [0]
        columns, squares = (torch.randn(s, dtype=dtype, generator=generator) for s in ((k, n), (k,)))
        for i, j in itertools.pairwise(edges):
            columns[i:j] = torch.linalg.qr(columns[i:j].mT)[0].mT
        squares = squares.square()
        squares[1:2] = 0
        columns *= squares[:, None].sqrt()
        x, y = (torch.randn(s, dtype=dtype, generator=generator) for s in ((k, tasks), (n, tasks)))
        weight, second = (torch.full((len(edges) - 1,), v, dtype=dtype) for v in NUMBERS[Penalty(kind)])
        return (columns, squares, x, y - columns.mT @ x, torch.tensor(edges), kind, weight, second, 0.7, 0.0, epochs,
                epochs > 1)

    sizes = ((0, 3, 1, 0, 1), (1, 1, 1, 0, 3), (7, 9, 2, 4, 3), (17, 33, 1, 0, 7), (17, 30, 3, 0, 6), (12, 40, 1, 3, 6))
    good = draw((3, 5, 2, 0, 2), _F64, torch.Generator().manual_seed(0))
    return KernelCase(
        kernels.block_descent, reference.block_descent, draw, sizes, dtypes=(_F64,), rounding=1e6, bodies=bodies(),
        refused=(BadCall((good[0].float(), *good[1:]), TypeError, "columns must be a float64 tensor"),
                 BadCall((good[0], good[1][:2], *good[2:]), ValueError, r"squares must have shape \(3,\), got \(2,\)"),
                 BadCall((*good[:2], good[2][:2], *good[3:]), ValueError, r"x \(k, tasks\)"),
                 BadCall((*good[:3], good[3][0], *good[4:]), ValueError, "r must be a matrix"),
                 BadCall((*good[:4], good[4].flip(0), *good[5:]), ValueError, "starts must rise from 0 to 3"),
                 BadCall(good, ValueError, "instruction_set must be", {"instruction_set": "avx9"})))


def _newton() -> list[KernelCase]:
    """Sizes are (coordinates, rows behind the Gram matrix, penalty, steps)."""
    def draw(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator):
        k, n, kind, steps = size
        X = torch.randn(n, k, dtype=dtype, generator=generator)
        linear, x = (torch.randn(k, dtype=dtype, generator=generator) for _ in range(2))
        x[::5] = 0
        weight, second = torch.full((k,), 0.2, dtype=dtype), torch.full((k,), 0.01, dtype=dtype)
        x = x.abs() if kind == Penalty.positive else x
        return X.mT @ X / n, linear, x, kind, weight, second, 0.7, steps

    sizes = ((0, 1, 0, 1), (1, 4, 0, 2), *((k, 3 * k, kind, steps) for k, steps in ((3, 1), (18, 3), (45, 8))
                                           for kind in (Penalty.elastic, Penalty.positive)))
    good = draw((3, 6, 0, 2), _F64, torch.Generator().manual_seed(0))
    return [KernelCase(
        kernels.gram_newton, reference.gram_newton, draw, sizes, dtypes=(_F64,), rounding=1e5, bodies=bodies(),
        refused=(BadCall((good[0].float(), *good[1:]), TypeError, "gram must be a float64 tensor, got torch.float32"),
                 BadCall((good[0][:2], *good[1:]), ValueError, "gram must be square with at least 3 rows"),
                 BadCall((*good[:2], good[2][:2], *good[3:]), ValueError, r"x must have shape \(3,\), got \(2,\)"),
                 BadCall((*good[:3], 2, *good[4:]), ValueError, "kind must be from 0 to 1"),
                 BadCall((*good[:7], 0), ValueError, "max_steps must be"),
                 BadCall(good, ValueError, "instruction_set must be", {"instruction_set": "avx9"})))]


def _optimality() -> list[KernelCase]:
    """Sizes are (coordinates, penalty)."""
    def draw(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator):
        p, kind = size
        x, q = (torch.randn(p, dtype=dtype, generator=generator) for _ in range(2))
        curvature = torch.rand(p, dtype=dtype, generator=generator)
        x[::2], curvature[::7] = 0, 0
        weight, second = (torch.full((p,), v, dtype=dtype) for v in NUMBERS[Penalty(kind)])
        return x, q, curvature, kind, weight, second, 0.7, 1.5, 0.9

    good = draw((3, 0), _F64, torch.Generator().manual_seed(0))
    return [KernelCase(
        kernels.optimality, reference.optimality, draw,
        sizes=((0, 0), *((p, int(kind)) for p in (1, 29) for kind in NUMBERS)),
        dtypes=(_F64,), rounding=1e3, bodies=bodies(),
        refused=(BadCall((good[0].float(), *good[1:]), TypeError, "x must be a float64 tensor, got torch.float32"),
                 BadCall((good[0], good[1][:2], *good[2:]), ValueError, r"q must have shape \(3,\), got \(2,\)"),
                 BadCall((*good[:3], 8, *good[4:]), ValueError, "kind must be from 0 to 7"),
                 BadCall(good, ValueError, "instruction_set must be", {"instruction_set": "avx9"})))]


def _momentum() -> list[KernelCase]:
    """Sizes are (problems, entries of a point, of its image); a piece of work is 32768 entries."""
    dtypes = (_F32, _F64, torch.complex64, torch.complex128)

    def draw(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, many: bool = True):
        problems, entries, measured = size
        real, batch = dtype.to_real() if dtype.is_complex else dtype, (problems,) if many else ()
        points, images = (torch.randn(k, *batch, n, dtype=dtype, generator=generator)
                          for k, n in ((3, entries), (2, measured)))
        momentum = 1 + 5 * torch.rand(batch, dtype=real, generator=generator)
        return *points, *images, momentum, torch.rand(batch, dtype=real, generator=generator), problems % 2 == 1

    def alone(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator):
        return draw(size, dtype, generator, many=False)

    good: tuple[Any, ...] = draw((2, 3, 4), _F32, torch.Generator().manual_seed(0))
    refused = (
        BadCall((good[0].double(), *good[1:]), TypeError, "old must be of the precision of momentum, torch.float32"),
        BadCall((*good[:6], good[6].double(), True), TypeError, "floor must be of the precision of momentum"),
        BadCall((good[0][:, :2], *good[1:]), ValueError, r"one shape that begins with \(2,\), got \(2, 2\)"),
        BadCall((*good[:3], good[3][:1], *good[4:]), ValueError, r"image and new_image must have one shape"),
        BadCall((*good[:6], good[6][:1], True), ValueError, r"the shape of floor, got .* and \(1,\)"),
        BadCall(good, ValueError, "instruction_set must be", {"instruction_set": "avx9"}))
    sizes = ((0, 3, 2), (1, 0, 0), (1, 1, 1), (3, 7, 33), (2, 1025, 40), (1, 70_000, 33_000))
    return [KernelCase(kernels.momentum_step, reference.momentum_step, of, sizes[first:], dtypes, rounding=100,
                       bodies=bodies(), refused=refused, name=f"momentum_step {name}")
            for of, first, name in ((draw, 0, "of a batch"), (alone, 1, "of one problem"))]
