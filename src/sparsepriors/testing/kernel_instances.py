"""The table of kernels: every exported one beside its reference, in each of its bodies."""

from __future__ import annotations

import math
from typing import Any

import torch

from sparsepriors import kernels
from sparsepriors.kernels import Penalty, reference
from sparsepriors.testing.descent_instances import NUMBERS, bodies, descent_cases
from sparsepriors.testing.kernel import BadCall, KernelCase
from sparsepriors.testing.product_instances import product_cases
from sparsepriors.testing.simplex_instances import simplex_cases, sorted_l1_cases

_F32, _F64 = torch.float32, torch.float64
_HALVES = (torch.float16, torch.bfloat16)


def cases() -> list[KernelCase]:
    """Cases of every exported kernel."""
    return [*_bitmaps(), *_born(), *_codes(), *descent_cases(), *_ista(), *_masks(), *_pursuit(), *product_cases(),
            *simplex_cases(), *sorted_l1_cases(), *_total_variation()]


def _tokens(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Keys or values: many entries tied, some zero of either sign; an empty and a full block among them."""
    x = torch.randn(size, generator=generator)
    drawn = torch.rand(size, generator=generator)
    x = torch.where(drawn < 0.3, torch.randint(-2, 3, size, generator=generator) / 4, x)
    x = torch.where(drawn > 0.9, -0.0, x)
    x[:, 1:2, :64] = 0
    x[:, 2:3, :64] = 1 + x[:, 2:3, :64].abs()
    return x.to(dtype)


def _bitmaps() -> list[KernelCase]:
    """Sizes are (batch, heads, query heads, tokens, channels, dense tokens); a piece of work is 512 or 2048 tokens."""
    sizes = ((0, 2, 2, 64, 64, 3), (1, 1, 1, 64, 1, 1), (2, 3, 9, 128, 64, 33), (1, 2, 10, 64, 128, 0),
             (1, 1, 7, 0, 64, 5), (1, 1, 11, 64, 80, 9), (1, 1, 2, 2112, 64, 32))
    unknown = {"instruction_set": "altivec"}
    x, q = torch.ones(1, 2, 128, 64), torch.ones(1, 4, 64)
    keys, values = kernels.pack_bitmap(x, "key"), kernels.pack_bitmap(x, "value")
    recent, weights = x[:, :, :3], torch.ones(1, 4, 128)
    of_keys = (
        BadCall((q[:, :3], keys), ValueError, r"q must have shape \(1, a multiple of 2 heads, 64 channels\)"),
        BadCall((q[..., :32], keys), ValueError, r"got \(1, 4, 32\)"),
        BadCall((q.double(), keys), TypeError, "q must be torch.float32, .*got torch.float64"),
        BadCall((q, values), ValueError, "keys must be packed with orientation 'key', got 'value'"),
        BadCall((q, x), TypeError, "keys must be a BitmapTensor, got Tensor"),
        BadCall((q, keys), ValueError, "instruction_set must be one of", unknown))
    of_values = (
        BadCall((weights[..., :64], values), ValueError, "128 tokens"),
        BadCall((weights, keys), ValueError, "values must be packed with orientation 'value', got 'key'"),
        BadCall((weights[0], values), ValueError, r"got \(4, 128\)"),
        BadCall((weights, values), ValueError, "instruction_set must be one of", unknown))
    rest = (recent, recent, 0.1, None)
    of_both = (
        BadCall((q, keys, kernels.pack_bitmap(x[:, :, :64], "value"), *rest), ValueError, "packed like the keys"),
        BadCall((q, keys, values, recent[:, :1], *rest[1:]), ValueError, r"recent_keys must have shape \(1, 2, 3,"),
        BadCall((q, keys, values, recent.half(), *rest[1:]), TypeError, "recent_keys must be torch.float32"),
        BadCall((q, keys, values, *rest[:3], torch.ones(1, 4, 128)), ValueError, r"mask must have shape \(1, 1 or 4"),
        BadCall((q, keys, values, *rest[:3], torch.ones(1, 1, 131, dtype=torch.int64)), TypeError, "mask must be bool"),
        BadCall((q, keys, values, *rest), ValueError, "instruction_set must be one of", unknown))
    of_x = (
        BadCall((x[:, :, :100], "key", None, 1), ValueError, "multiple of 64 tokens"),
        BadCall((x, "query", None, 1), ValueError, "orientation must be one of"),
        BadCall((x, "key", 65, 1), ValueError, "keep must be from 0 to 64, got 65"),
        BadCall((x, "key", None, 2), ValueError, "pad must be one of 1, 8, got 2"),
        BadCall((x.double(), "key", None, 1), TypeError, "got torch.float64"),
        BadCall((x * math.nan, "key", 3, 1), FloatingPointError, "NaN"),
        BadCall((x, "key", None, 1), ValueError, "instruction_set must be one of", unknown))
    dtypes, nonfinite = (_F32, *_HALVES), dict.fromkeys((math.nan, math.inf, -math.inf))
    made = []
    for keep, pad in ((None, 1), (0.3, 8)):
        def dense(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, orientation: str,
                  keep: float | None = keep, pad: int = pad):
            batch, heads, _, tokens, channels, _ = size
            return (_tokens((batch, heads, tokens, channels), dtype, generator), orientation,
                    None if keep is None else round(keep * channels), pad)

        def packed(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, orientation: str,
                   dense=dense) -> kernels.BitmapTensor:
            return kernels.pack_bitmap(*dense(size, dtype, generator, orientation))

        def queries(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, packed=packed):
            keys = packed(size, dtype, generator, "key")
            return torch.randn(size[0], size[2], size[4], generator=generator).to(dtype), keys

        def mixtures(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, packed=packed):
            values = packed(size, dtype, generator, "value")
            return torch.rand(size[0], size[2], size[3], generator=generator).to(dtype), values

        def attention(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, pad: int = pad,
                      packed=packed):
            batch, heads, query_heads, tokens, channels, recent = size
            kinds = (None, torch.rand(batch, 1, tokens + recent, generator=generator) < 0.8,
                     torch.randn(batch, query_heads, tokens + recent, generator=generator))
            return (torch.randn(batch, query_heads, channels, generator=generator).to(dtype),
                    *(packed(size, dtype, generator, o) for o in ("key", "value")),
                    *(_tokens((batch, heads, recent, channels), dtype, generator) for _ in "kv"), 0.3,
                    kinds[(tokens + query_heads) % 3])

        name = f"{'all' if keep is None else f'{keep:.0%}'}, pad {pad}"
        for orientation in ("key", "value"):
            def entries(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, dense=dense,
                        orientation: str = orientation):
                return dense(size, dtype, generator, orientation)

            made.append(KernelCase(
                kernels.pack_bitmap, reference.pack_bitmap, entries, sizes, dtypes, bodies=bodies(), least=64,
                nonfinite=nonfinite if keep is None else {math.nan: FloatingPointError, math.inf: None},
                refused=of_x, name=f"pack_bitmap {orientation}s {name}"))
        made.append(KernelCase(
            kernels.bitmap_scores, reference.bitmap_scores, queries, sizes, dtypes, rounding=100, bodies=bodies(),
            nonfinite=nonfinite, refused=of_keys, name=f"bitmap_scores {name}"))
        made.append(KernelCase(
            kernels.bitmap_mix, reference.bitmap_mix, mixtures, sizes, dtypes, rounding=100, bodies=bodies(), least=64,
            nonfinite=nonfinite, refused=of_values, name=f"bitmap_mix {name}"))
        made.append(KernelCase(
            kernels.bitmap_attention, reference.bitmap_attention, attention, sizes, dtypes, rounding=100,
            bodies=bodies(), refused=of_both, name=f"bitmap_attention {name}"))
    return made


def _tables(voxels: int, out_shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, *,
            even: bool) -> kernels.BornTables:
    frequencies, transmitters, receivers = out_shape
    wavenumbers = torch.linspace(80.0, 330.0, frequencies, dtype=_F64)
    if not even:
        wavenumbers = wavenumbers + torch.rand(frequencies, dtype=_F64, generator=generator)
    distances = 0.4 + 0.3 * torch.rand(transmitters + receivers, voxels, dtype=_F64, generator=generator)
    return kernels.born_tables(wavenumbers, distances, 1 / (math.sqrt(4 * math.pi) * distances), transmitters,
                               evenly_spaced=even, dtype=dtype)


def _born() -> list[KernelCase]:
    """Sizes are (batch, voxels, frequencies, transmitters, receivers); tiles hold 96 voxels, recurrences 32 steps."""
    sizes = ((0, 5, 1, 1, 1), (1, 1, 1, 1, 1), (2, 95, 3, 2, 3), (1, 96, 40, 4, 3), (3, 97, 5, 12, 13),
             (1, 300, 2, 5, 7), (2, 257, 33, 7, 1), (1, 1700, 4, 13, 6))
    nonfinite = dict.fromkeys((math.nan, math.inf, -math.inf))
    g = torch.Generator().manual_seed(0)
    tables = _tables(50, (2, 2, 3), _F64, g, even=True)
    x, y = (torch.randn(1, *shape, dtype=torch.complex128, generator=g) for shape in ((50,), (2, 2, 3)))
    made = []
    for even in (True, False):
        def scene(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, even: bool = even):
            batch, voxels, *rest = size
            tables = _tables(voxels, tuple(rest), dtype, generator, even=even)
            return torch.randn(batch, voxels, dtype=dtype.to_complex(), generator=generator), tables

        def measurement(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, even: bool = even):
            batch, voxels, *rest = size
            tables = _tables(voxels, tuple(rest), dtype, generator, even=even)
            return torch.randn(batch, *rest, dtype=dtype.to_complex(), generator=generator), tables

        spacing = "even" if even else "uneven"
        made.append(KernelCase(
            kernels.born_forward, reference.born_forward, scene, sizes, rounding=100, bodies=bodies(),
            nonfinite=nonfinite, name=f"born_forward {spacing}", refused=(
                BadCall((x[:, :40], tables), ValueError, r"x must have shape \(batch, 50\)"),
                BadCall((x[0], tables), ValueError, r"x must have shape \(batch, 50\), got \(50,\)"),
                BadCall((x.to(torch.complex64), tables), ValueError, r"x must be torch\.complex128"),
                BadCall((x.real, tables), ValueError, r"x must be torch\.complex128"),
                BadCall((x, tables), ValueError, "instruction_set must be one of", {"instruction_set": "altivec"}))))
        made.append(KernelCase(
            kernels.born_adjoint, reference.born_adjoint, measurement, sizes, rounding=100, bodies=bodies(),
            nonfinite=nonfinite, name=f"born_adjoint {spacing}", refused=(
                BadCall((y[:, :1], tables), ValueError, r"y must have shape \(batch, 2, 2, 3\)"),
                BadCall((y.mT, tables), ValueError, r"y must have shape \(batch, 2, 2, 3\)"),
                BadCall((y.to(torch.complex64), tables), ValueError, r"y must be torch\.complex128"),
                BadCall((y, tables), ValueError, "instruction_set must be one of", {"instruction_set": "altivec"}))))
    return made


def _scores(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Half of them small integers, so that ties are everywhere, with both zeros and some infinities."""
    scores = torch.randint(-3, 4, shape, generator=generator).to(dtype) / 2
    drawn = torch.rand(shape, generator=generator)
    scores = torch.where(drawn < 0.5, torch.randn(shape, generator=generator).to(dtype), scores)
    scores[drawn > 0.9] = -0.0
    scores[drawn > 0.98] = torch.inf
    scores[drawn > 0.99] = -torch.inf
    return scores


def _ista() -> list[KernelCase]:
    """Sizes are (rows, units, penalty, steps); rows go to threads by 16, units are looked at by 16."""
    def draw(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator):
        rows, units, kind, steps = size
        atoms = torch.randn(units, 12, dtype=dtype, generator=generator)
        atoms /= atoms.norm(dim=1, keepdim=True)
        linear = torch.randn(rows, units, dtype=dtype, generator=generator)
        x = torch.randn(rows, units, dtype=dtype, generator=generator).round()
        weight, second = (torch.full((units,), v, dtype=_F64) for v in NUMBERS[Penalty(kind)])
        return linear, atoms @ atoms.mT, x, kind, weight, second, 0.7, 0.2, 1e-2, 1e-2, steps

    sizes = ((0, 3, 0, 1), (1, 1, 0, 3), *((2, units, int(kind), 6) for kind in NUMBERS for units in (5, 35)),
             (17, 16, 3, 3), (3, 40, 0, 60))
    good = draw((2, 3, 0, 2), _F32, torch.Generator().manual_seed(0))
    return [KernelCase(
        kernels.gram_ista, reference.gram_ista, draw, sizes, rounding=1e3, bodies=bodies(),
        refused=(BadCall((good[0].long(), *good[1:]), TypeError, "linear must be a float32 or float64 tensor, got"),
                 BadCall((good[0], good[1].double(), *good[2:]), TypeError, "gram must be torch.float32, got"),
                 BadCall((good[0][0], *good[1:]), ValueError, r"linear must have shape \(rows, units\), got \(3,\)"),
                 BadCall((*good[:2], good[2][:1], *good[3:]), ValueError, r"x must have shape \(2, 3\), got \(1, 3\)"),
                 BadCall((*good[:3], 8, *good[4:]), ValueError, "kind must be from 0 to 7"),
                 BadCall((*good[:4], good[4].float(), *good[5:]), TypeError, "weight must be torch.float64, got"),
                 BadCall((*good[:7], 0.0, *good[8:]), ValueError, "step must be"),
                 BadCall(good, ValueError, "instruction_set must be", {"instruction_set": "avx9"})))]


def _pursuit() -> list[KernelCase]:
    """Sizes are (rows, units, steps); rows go to threads by 16. Atoms have any length, a tolerance ends some rows."""
    def draw(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator):
        rows, units, steps = size
        atoms = torch.randn(units, 40, dtype=dtype, generator=generator) / 40**0.5
        x = torch.randn(rows, 40, dtype=dtype, generator=generator)
        return x @ atoms.mT, atoms @ atoms.mT, x.double().square().sum(dim=1), steps

    sizes = ((0, 3, 1), (1, 1, 1), (2, 2, 5), (17, 35, 4), (33, 64, 3), (3, 301, 6))
    good = draw((2, 3, 2), _F32, torch.Generator().manual_seed(0))
    made = []
    for tol, nonneg, stop in ((0.0, True, False), (0.0, False, True), (5.0, True, True)):
        def settled(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, tol: float = tol,
                    nonneg: bool = nonneg, stop: bool = stop):
            return *draw(size, dtype, generator), tol, nonneg, stop

        made.append(KernelCase(
            kernels.gram_pursuit, reference.gram_pursuit, settled, sizes, rounding=1e3, bodies=bodies(),
            name=f"gram_pursuit {tol:g} {nonneg} {stop}", refused=(
                BadCall((good[0].long(), *good[1:]), TypeError, "correlation must be a float32 or float64 tensor"),
                BadCall((good[0], good[1].double(), *good[2:]), TypeError, "gram must be torch.float32, got"),
                BadCall((good[0][:, :0], *good[1:]), ValueError, "at least one unit"),
                BadCall((good[0], good[1][:2], *good[2:]), ValueError, r"gram must have shape \(3, 3\)"),
                BadCall((*good[:2], good[2][:1], 2), ValueError, r"energy must have shape \(2,\)"),
                BadCall((*good[:2], good[2].float(), 2), TypeError, "energy must be torch.float64, got"),
                BadCall((*good[:3], 0), ValueError, "steps must be at least 1"),
                BadCall((*good[:3], 2, -1.0), ValueError, "tol must be"),
                BadCall(good, ValueError, "instruction_set must be", {"instruction_set": "avx9"}))))
    return made


def _entries(rows: int, n: int, dtype: torch.dtype, generator: torch.Generator):
    return reference.largest_positive(torch.randn(rows, n, dtype=dtype, generator=generator), 5)


def _codes() -> list[KernelCase]:
    """Sizes are (rows, n) or (rows, n, width); rows go to threads by 64, samples are drawn beyond 65536 scores."""
    made, ones = [], torch.ones(2, 3)
    nonfinite = {math.nan: FloatingPointError, math.inf: None, -math.inf: None}
    for room, per_row in ((0, True), (3, True), (50, True), (7, False), (9000, False)):
        def scores(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, room: int = room,
                   per_row: bool = per_row):
            return _scores(size, dtype, generator), room, per_row

        made.append(KernelCase(
            kernels.largest_positive, reference.largest_positive, scores,
            ((0, 4), (1, 1), (3, 0), (5, 33), (130, 40), (70, 1100)), (_F32, _F64), bodies=bodies(),
            nonfinite=nonfinite, name=f"largest_positive {room} {'per row' if per_row else 'in all'}", refused=(
                BadCall((ones, -1), ValueError, "room must be at least 0"),
                BadCall((ones.long(), 1), TypeError, "scores must be a float32 or float64 tensor, got torch.int64"),
                BadCall((ones[0], 1), ValueError, "scores must have two axes"),
                BadCall((torch.full((1, 2), torch.nan), 1), FloatingPointError, "NaN"),
                BadCall((ones, 1), ValueError, "instruction_set must be one of", {"instruction_set": "avx9"}))))

    def summed(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator):
        rows, n, width = size
        return (torch.randn(n, width, dtype=dtype, generator=generator), *_entries(rows, n, dtype, generator))

    def scattered(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator):
        rows, n, width = size
        return (torch.randn(rows, width, dtype=dtype, generator=generator), *_entries(rows, n, dtype, generator), n)

    def dotted(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator):
        rows, n, width = size
        left, right = (torch.randn(k, width, dtype=dtype, generator=generator) for k in (rows, n))
        return (left, right, *_entries(rows, n, dtype, generator)[:2])

    sizes = ((0, 4, 3), (1, 1, 1), (3, 9, 0), (130, 40, 7), (5, 30, 300), (67, 20, 129))
    for kernel, plain, draw in ((kernels.sum_rows, reference.sum_rows, summed),
                                (kernels.scatter_rows, reference.scatter_rows, scattered),
                                (kernels.dot_rows, reference.dot_rows, dotted)):
        good: tuple[Any, ...] = draw((3, 9, 4), _F32, torch.Generator().manual_seed(0))
        at = 2 if kernel is kernels.dot_rows else 1
        refused = [BadCall((good[0].long(), *good[1:]), TypeError, "must be a float32 or float64 tensor, got torch.in"),
                   BadCall((*good[:at], good[at].int(), *good[at + 1:]), TypeError, "starts must be torch.int64, got"),
                   BadCall((*good[:at + 1], good[at + 1] + 9, *good[at + 2:]), ValueError, "indices must name rows"),
                   BadCall((*good[:at], good[at] + 1, *good[at + 1:]), ValueError, "starts must"),
                   BadCall((*good[:at], good[at].flip(0), *good[at + 1:]), ValueError, "starts must"),
                   BadCall(good, ValueError, "instruction_set must be one of", {"instruction_set": "avx9"})]
        made.append(KernelCase(kernel, plain, draw, sizes, (_F32, _F64), bodies=bodies(), rounding=100,
                               refused=tuple(refused)))
    return made


def _masks() -> list[KernelCase]:
    """Kernels share work out in pieces of about 65536 scores."""
    ones, whole = torch.ones(8), torch.ones(8, dtype=torch.int64)
    poisoned = torch.tensor([1.0, torch.nan])
    nonfinite = {math.nan: FloatingPointError, math.inf: None, -math.inf: None}
    made = []
    for n, m in ((1, 1), (1, 2), (2, 4), (1, 4), (4, 8), (2, 5), (7, 16), (5, 32), (9, 33)):
        def groups(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, n: int = n, m: int = m):
            *rows, count = size
            return _scores((*rows, count * m), dtype, generator), n, m

        piece = (1 << 16) // m
        made.append(KernelCase(
            kernels.nm_mask, reference.nm_mask, groups, ((0,), (1,), (3, 5), (2, 0), (1023,), (piece + 2,)),
            (_F32, _F64, *_HALVES), bodies=bodies(), nonfinite=nonfinite, least=m, name=f"nm_mask {n}:{m}",
            refused=(
                BadCall((ones, 2, 3), ValueError, "multiple of m = 3, got 8"),
                BadCall((ones, 5, 4), ValueError, "n must be from 1 to 4"),
                BadCall((ones, 0, 4), ValueError, "n must be from 1 to 4"),
                BadCall((ones, 2, 4.0), TypeError, "m must be an integer"),
                BadCall((whole, 2, 4), TypeError, "scores must be a floating point tensor, got torch.int64"),
                BadCall((poisoned, 1, 2), FloatingPointError, "NaN"),
                BadCall((ones, 2, 4), ValueError, "instruction_set must be one of", {"instruction_set": "altivec"}))))
    for share in (0.0, 0.1, 0.5, 1.0):
        def rows(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, share: float = share):
            return _scores(size, dtype, generator), round(share * size[-1])

        made.append(KernelCase(
            kernels.topk_mask, reference.topk_mask, rows,
            ((0,), (1,), (3, 7), (2, 0), (4095,), (4097,), (2, 9000), (65535,), (65536,), (131073,)),
            (_F32, _F64, *_HALVES), nonfinite=nonfinite, name=f"topk_mask {share:.0%}", refused=(
                BadCall((ones, 9), ValueError, "k must be from 0 to 8"),
                BadCall((ones, -1), ValueError, "k must be from 0 to 8"),
                BadCall((ones, 1.5), TypeError, "k must be an integer"),
                BadCall((whole, 1), TypeError, "scores must be a floating point tensor, got torch.int64"),
                BadCall((ones.sum(), 1), ValueError, "at least one axis"),
                BadCall((poisoned, 1), FloatingPointError, "NaN"))))
    for shares in ((), (0.5,), (1.0, 0.8, 0.8, 0.1, 0.0), tuple(1 - i / 60 for i in range(60))):
        def levels(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator,
                   shares: tuple[float, ...] = shares):
            return _scores(size, dtype, generator), [round(share * size[-1]) for share in shares]

        made.append(KernelCase(
            kernels.topk_levels, reference.topk_levels, levels,
            ((0,), (1,), (3, 7), (2, 0), (4095,), (4097,), (2, 9000), (65535,), (65536,), (131073,)),
            (_F32, _F64, *_HALVES), nonfinite=nonfinite, name=f"topk_levels of {len(shares)}", refused=(
                BadCall((ones, [9]), ValueError, "counts must be from 0 to 8"),
                BadCall((ones, [2, 3]), ValueError, "counts must not increase"),
                BadCall((ones, [1.5]), TypeError, "counts must be an integer"),
                BadCall((ones, [1] * 256), ValueError, "counts must be at most 255, got 256"),
                BadCall((whole, [1]), TypeError, "scores must be a floating point tensor, got torch.int64"),
                BadCall((poisoned, [1]), FloatingPointError, "NaN"))))
    return made


def _total_variation() -> list[KernelCase]:
    """The dual iteration until rounding may decide about a restart; on real lines the compiled kernel is exact."""
    x, p, bound = torch.ones(2, 4, 5), torch.zeros(2, 2, 4, 5), torch.ones(2)
    unknown = {"instruction_set": "altivec"}
    refused = (
        BadCall((x[0, 0], bound, p, True, 1e-3, 9), ValueError, r"1 to 3 spatial axes, got \(5,\) and 1 axes"),
        BadCall((x, bound[:1], p, True, 1e-3, 9), ValueError, r"bound and p must have shapes \(2,\)"),
        BadCall((x, bound, p[:, :1], True, 1e-3, 9), ValueError, r"bound and p must have shapes"),
        BadCall((x, bound, p, True, 1e-3, 0), ValueError, "max_iter must be at least 1"),
        BadCall((x, bound, p, True, 1e-3, 9), ValueError, "instruction_set must be one of", unknown))
    complex_dtypes, made = (torch.complex64, torch.complex128), []
    for axes, isotropic, dtypes, sizes in (
            (1, True, (_F32, _F64), ((0, 5), (1, 1), (3, 17))),
            (1, True, complex_dtypes, ((0, 5), (1, 1), (3, 17), (2, 1000))),
            (2, True, complex_dtypes, ((0, 3, 4), (1, 1, 1), (3, 5, 7), (1, 33, 65))),
            *((2, isotropic, (_F32, _F64), ((0, 3, 4), (1, 1, 1), (3, 5, 7), (1, 33, 65), (1, 60, 1200)))
              for isotropic in (True, False)),
            *((3, isotropic, (_F32, _F64), ((0, 2, 3, 4), (1, 1, 1, 1), (2, 3, 4, 5), (1, 9, 10, 33)))
              for isotropic in (True, False))):
        exact = axes == 1 and not dtypes[0].is_complex

        def images(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, axes: int = axes,
                   isotropic: bool = isotropic, exact: bool = exact):
            x = torch.randn(size, dtype=dtype, generator=generator)
            bound = 0.1 + torch.rand(size[0], dtype=dtype.to_real(), generator=generator)
            start = torch.zeros(size[0], axes, *size[1:], dtype=dtype)
            return x, bound, start, isotropic, 0.0, 1000 if exact else 12

        name = f"tv_prox {axes}-D {'isotropic' if isotropic else 'anisotropic'}"
        made.append(KernelCase(kernels.tv_prox, reference.tv_prox, images, sizes, dtypes, rounding=1000,
                               bodies=bodies(), refused=refused, view=lambda found: found[0],
                               name=f"{name} complex" if dtypes[0].is_complex else name))
    return made
