"""The kernels that multiply, for the table of kernels: dense, compressed and packed matrices."""

from __future__ import annotations

import math
from typing import Any

import torch

from sparsepriors import kernels
from sparsepriors.kernels import reference
from sparsepriors.testing.descent_instances import bodies
from sparsepriors.testing.kernel import BadCall, KernelCase

_F32, _F64 = torch.float32, torch.float64


def product_cases() -> list[KernelCase]:
    """Cases of every kernel that multiplies."""
    return [_column_products(), *_csc(), *_dense(), *_nm_linear(), *_sparse_convolutions()]


def _column_products() -> KernelCase:
    """Sizes are (columns, rows); a piece of work is 131072 entries."""
    def draw(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator):
        p, n = size
        return (torch.randn(p, n, generator=generator).to(dtype), torch.randn(n, dtype=_F64, generator=generator),
                torch.rand(p, generator=generator) < 0.7)

    columns, r, keep = draw((3, 5), _F64, torch.Generator().manual_seed(0))
    return KernelCase(
        kernels.column_products, reference.column_products, draw, ((0, 3), (2, 0), (1, 1), (7, 33), (300, 1000)),
        dtypes=(_F32, _F64), rounding=1e3, bodies=bodies(),
        refused=(BadCall((columns.half(), r), TypeError, "columns must be float32 or float64, got torch.float16"),
                 BadCall((columns, r.float()), TypeError, "r must be a float64 tensor"),
                 BadCall((columns, r[:3]), ValueError, r"r \(n,\), got \(3, 5\) and \(3,\)"),
                 BadCall((columns, r, keep[:2]), ValueError, "keep must hold 3 booleans"),
                 BadCall((columns, r), ValueError, "instruction_set must be", {"instruction_set": "avx9"})))


def _csc() -> list[KernelCase]:
    """Sizes are (columns, rows, largest entries of a column, tasks); a piece of work is 32 columns."""
    def compressed(size: tuple[int, ...], generator: torch.Generator):
        p, n, most, tasks = size
        lengths = torch.randint(0, most + 1, (p,), generator=generator) if most > 1 else torch.full((p,), most)
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        rows = [torch.randperm(n, generator=generator)[:c].sort().values for c in lengths.tolist()]
        at = torch.cat([torch.zeros(0, dtype=torch.int64), *rows])
        starts, at = (v.int() if p % 2 else v for v in (starts, at))
        values = torch.randn(at.numel(), dtype=_F64, generator=generator)
        return (values, at, starts), torch.randperm(p, generator=generator)[:(p + 1) // 2], n, tasks

    def products(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator):
        columns, index, n, tasks = compressed(size, generator)
        return *columns, torch.randn(n, tasks, dtype=dtype, generator=generator), index, size[3] == 2

    def combination(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator):
        columns, index, n, tasks = compressed(size, generator)
        return *columns, torch.randn(len(index), tasks, dtype=dtype, generator=generator), index, n

    def gram(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator):
        columns, index, n, tasks = compressed(size, generator)
        # Few short columns beside many, as many long ones, and many short ones: each is another way.
        left = index if tasks == 1 else index[:2]
        return *columns, left, index.flip(0)[:40], torch.rand(n, dtype=dtype, generator=generator)

    sizes = ((0, 3, 0, 1), (1, 1, 1, 1), (7, 9, 5, 2), (64, 40, 40, 1), (33, 40, 20, 3), (401, 1500, 1400, 1))
    found = []
    for kernel, plain, draw, at, own in (
            (kernels.csc_products, reference.csc_products, products, 4, (
                (3, torch.ones(5, 1), TypeError, "r must be a float64"),
                (3, torch.ones(5, dtype=_F64), ValueError, "r must be a matrix with a column for each task"))),
            (kernels.csc_combination, reference.csc_combination, combination, 4, (
                (3, torch.ones(2, 1, dtype=_F64), ValueError, "x must have a row for each of 3 columns"),)),
            (kernels.csc_gram, reference.csc_gram, gram, 3, (
                (4, None, TypeError, "right must be an int64 tensor, got None"),
                (5, torch.ones(5), TypeError, "weights must be a float64 tensor"),
                (5, torch.ones(5, 1, dtype=_F64), ValueError, "weights must be a vector")))):
        good: tuple[Any, ...] = draw((6, 5, 4, 2), _F64, torch.Generator().manual_seed(0))
        bad = ((0, good[0].float(), TypeError, "values must be a float64 tensor"),
               (1, good[1].int(), TypeError, "int32 or int64, both alike"),
               (1, good[1][1:], ValueError, "values and rows must be equally long"),
               (1, good[1] + 5, ValueError, "rows must be from 0 to n - 1"),
               (1, good[1] - 5, ValueError, "rows must be from 0 to n - 1"),
               (2, good[2] + 1, ValueError, "starts must rise within the entries"),
               (at, good[at] + 6, ValueError, "a column must be from 0 to p - 1"),
               (at, good[at].int(), TypeError, "must be an int64 tensor"),
               (at, good[at][None], ValueError, "must be a vector"), *own)
        found.append(KernelCase(kernel, plain, draw, sizes, dtypes=(_F64,), rounding=1e3, refused=tuple(
            BadCall((*good[:i], v, *good[i + 1:]), error, words) for i, v, error, words in bad)))
    return found


def _dense() -> list[KernelCase]:
    """Sizes are (rows, columns); a piece of work is 32768 entries, a tile 2048 columns."""
    def right(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator):
        return (torch.randn(size, dtype=dtype, generator=generator),
                torch.randn(size[1], dtype=dtype, generator=generator))

    def left(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator):
        return (torch.randn(size[0], dtype=dtype, generator=generator),
                torch.randn(size, dtype=dtype, generator=generator))

    sizes = ((0, 3), (3, 0), (1, 1), (5, 37), (6, 2049), (9, 40_000), (301, 1000), (5000, 17))
    found = []
    for kernel, plain, draw, swapped in ((kernels.matrix_vector, reference.matrix_vector, right, False),
                                         (kernels.vector_matrix, reference.vector_matrix, left, True)):
        matrix, vector = torch.ones(4, 4), torch.ones(4)
        bad = ((matrix, vector.double(), TypeError, "one dtype, got torch.float32 and torch.float64"),
               (matrix, vector[:3], ValueError, r"got shapes \(4, 4\) and \(3,\)"),
               (vector, vector, ValueError, "matrix must have two axes"),
               (matrix, matrix, ValueError, r"got shapes \(4, 4\) and \(4, 4\)"))
        refused = [BadCall((b, a) if swapped else (a, b), error, words) for a, b, error, words in bad]
        unknown = BadCall((vector, matrix) if swapped else (matrix, vector), ValueError, "instruction_set must be",
                          {"instruction_set": "avx9"})
        found.append(KernelCase(kernel, plain, draw, sizes, dtypes=(_F32, _F64), rounding=100, bodies=bodies(),
                                nonfinite=dict.fromkeys((math.nan, math.inf, -math.inf)),
                                refused=(*refused, unknown)))
    return found


def _nm_linear() -> list[KernelCase]:
    """Sizes are (rows, outputs, groups); the last is enough work for two threads. Panels hold 16 outputs."""
    sizes = ((0, 3, 2), (1, 1, 1), (1, 65, 9), (2, 16, 3), (5, 17, 5), (9, 33, 2), (83, 20, 7), (33, 200, 150))
    packed = kernels.pack_linear_nm(torch.tensor([[0.0, 5.0, 0.0, 7.0], [1.0, 0.0, 0.0, 0.0]]), 2, 4)
    x = torch.ones(3, 4)
    refused = (
        BadCall((x[:, :3], packed), ValueError, r"x must have shape \(\.\.\., 4\), got \(3, 3\)"),
        BadCall((x.sum(), packed), ValueError, r"x must have shape \(\.\.\., 4\), got \(\)"),
        BadCall((x.double(), packed), TypeError, "x must be a float32 or bfloat16 tensor, got torch.float64"),
        BadCall((x, packed.dense()), TypeError, "packed must be a PackedNM, got Tensor"),
        BadCall((x, packed), ValueError, "instruction_set must be one of", {"instruction_set": "altivec"}))
    made = []
    kinds = tuple((weights, dtype) for dtype in (_F32, torch.bfloat16) for weights in (_F32, torch.bfloat16))
    for n, m, bias, of in ((2, 4, True, kinds), (1, 8, False, (*kinds[:2], kinds[3])), (5, 16, True, kinds[:2]),
                           (3, 32, False, kinds[:2]), (3, 5, True, kinds[1:2]), (1, 1, True, kinds[:1])):
        for weights, dtype in of:
            def layer(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, n: int = n, m: int = m,
                      weights: torch.dtype = weights, bias: bool = bias):
                rows, outputs, groups = size
                weight = torch.randn(outputs, groups * m, generator=generator)
                weight[torch.rand(weight.shape, generator=generator) < 0.1] = 0.0
                weight = torch.where(reference.nm_mask(weight.abs(), n, m), weight, 0.0)
                return (torch.randn(rows, groups * m, generator=generator).to(dtype),
                        kernels.pack_linear_nm(weight, n, m, weight[:, 0] if bias else None, dtype=weights))

            made.append(KernelCase(
                kernels.nm_linear, reference.nm_linear, layer, sizes, (dtype,), 100.0 if dtype == _F32 else 2.0,
                bodies(), refused=refused, nonfinite=dict.fromkeys((math.nan, math.inf, -math.inf)), least=m,
                name=f"nm_linear {n}:{m} {str(weights)[6:]} x {str(dtype)[6:]}"))
    return made


def _sparse_convolutions() -> list[KernelCase]:
    """Sizes are (images, input channels, output channels, pixels)."""
    sizes = ((0, 3, 2, 4), (1, 1, 1, 1), (2, 5, 7, 15), (3, 33, 18, 16), (1, 96, 41, 49), (2, 17, 64, 129),
             (5, 8, 6, 7), (600, 64, 130, 1), (1, 300, 400, 200), (2, 64, 3, 784), (1, 24, 144, 3136),
             (2, 40, 90, 18), (1, 6, 70, 35), (3, 50, 90, 52))
    x, packed = torch.ones(2, 4, 9), kernels.pack_1x1(torch.eye(4)[:3])
    nonfinite = dict.fromkeys((math.nan, math.inf, -math.inf))
    refused = (
        BadCall((x.double(), packed), TypeError, "x must be a float32 tensor, got torch.float64"),
        BadCall((x[0], packed), ValueError, r"x must have shape \(batch, 4, \*pixels\), got \(4, 9\)"),
        BadCall((x[:, :3], packed), ValueError, r"x must have shape \(batch, 4, \*pixels\), got \(2, 3, 9\)"),
        BadCall((x, torch.eye(4)), TypeError, "packed must be PackedCHW, got Tensor"),
        BadCall((x, packed, 1.0, 0.0), ValueError, "lo must be at most hi, got 1.0 and 0.0"),
        BadCall((x, packed, math.nan), ValueError, "lo must be at most hi, got nan"),
        BadCall((x, packed, 0.0, 6.0, torch.empty(2, 4, 9)), ValueError, r"out must be contiguous.* \(2, 3, 9\)"),
        BadCall((x, packed, 0.0, 6.0, x[:, :3]), ValueError, "out must be contiguous"),
        BadCall((x, packed, 0.0, 6.0, torch.empty(2, 3, 9, dtype=_F64)), TypeError, "out must be torch.float32"),
        BadCall((x[:, :, :1], packed, 0.0, 6.0, x.view(-1)[:6].view(2, 3, 1)), ValueError, "share memory"),
        BadCall((x, packed), ValueError, "instruction_set must be one of", {"instruction_set": "altivec"}))
    made = []
    for block, density, bounds in ((1, 0.2, (0.0, 6.0)), (2, 0.3, (-math.inf, math.inf)), (4, 0.1, (-1.0, 1.0)),
                                   (1, 0.0, (0.0, 6.0)), (4, 1.0, (-math.inf, 2.0))):
        def layer(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, block: int = block,
                  density: float = density, bounds: tuple[float, float] = bounds):
            images, channels, outputs, pixels = size
            weight = torch.randn(outputs, channels, dtype=dtype, generator=generator)
            weight[torch.rand(outputs, channels, generator=generator) >= density] = 0
            bias = torch.randn(outputs, dtype=dtype, generator=generator)
            x = torch.randn(images, channels, pixels, dtype=dtype, generator=generator)
            return x, kernels.pack_1x1(weight, bias, block), *bounds

        made.append(KernelCase(
            kernels.spmm_chw, reference.spmm_chw, layer, sizes, (_F32,), rounding=100, bodies=bodies(),
            nonfinite=nonfinite, refused=refused, name=f"spmm_chw blocks of {block}, {density:.0%} kept"))
    return made
