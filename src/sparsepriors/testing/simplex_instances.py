"""Projections onto the simplex and the l1 ball and the prox of the sorted l1 norm, for the table of kernels."""

from __future__ import annotations

import math

import torch

from sparsepriors import kernels
from sparsepriors.kernels import reference
from sparsepriors.testing.descent_instances import bodies
from sparsepriors.testing.kernel import BadCall, KernelCase

_REAL, _COMPLEX = (torch.float32, torch.float64), (torch.complex64, torch.complex128)


def simplex_cases() -> list[KernelCase]:
    """Rows on both sides of a piece, 16384 entries, and of what one thread does alone; some entries are tied."""
    sizes = ((0,), (1,), (7,), (3, 5), (2, 0), (0, 4), (4, 1), (16383,), (16385,), (40000,), (3, 17000), (900, 60))
    x = torch.ones(2, 3)
    made = []
    for kernel, plain, dtypes in ((kernels.project_simplex, reference.project_simplex, _REAL),
                                  (kernels.project_l1_ball, reference.project_l1_ball, _REAL),
                                  (kernels.project_l1_ball, reference.project_l1_ball, _COMPLEX)):
        refused = (
            BadCall((x.to(torch.int64), 1.0), TypeError, "floating point.* got torch.int64"),
            BadCall((x[0, 0], 1.0), ValueError, r"x must have shape \(\*batch, n\), got shape \(\)"),
            BadCall((x, 0.0), ValueError, "radius must be finite and positive, got 0.0"),
            BadCall((x, math.nan), ValueError, "radius must be finite and positive, got nan"),
            BadCall((x, torch.ones(3)), ValueError, r"radius must be a number or have shape \(2,\).* got \(3,\)"),
            BadCall((x, 1.0), ValueError, "instruction_set must be one of", {"instruction_set": "altivec"}))
        for share in (0.01, 0.5, 2.0):
            def rows(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, share: float = share):
                x = torch.randn(size, dtype=dtype, generator=generator)
                drawn = torch.rand(size, generator=generator)
                x = torch.where(drawn < 0.2, 0.75, torch.where(drawn > 0.9, 0, x))
                radius = share * (0.1 + x.abs().sum(dim=-1))
                return x, radius if len(size) > 1 else float(radius)

            made.append(KernelCase(kernel, plain, rows, sizes, dtypes, rounding=100, bodies=bodies(), refused=refused,
                                   name=f"{kernel.__name__} {share:.0%}{' complex' if dtypes is _COMPLEX else ''}"))
    return made


def sorted_l1_cases() -> list[KernelCase]:
    """Rows on both sides of 512 entries, up to which another sort is used; some entries are tied."""
    r, weights = torch.ones(2, 3), torch.ones(3)
    refused = (
        BadCall((r.to(torch.int64), weights, 1.0), TypeError, "floating point.* got torch.int64"),
        BadCall((r[0, 0], weights, 1.0), ValueError, r"shapes \(\*batch, n\) and \(n,\), got \(\) and \(3,\)"),
        BadCall((r, weights[:2], 1.0), ValueError, r"got \(2, 3\) and \(2,\)"),
        BadCall((r, weights, -1.0), ValueError, "step must be finite and nonnegative, got -1.0"),
        BadCall((r, weights, torch.ones(3)), ValueError, r"step must be a number or have shape \(2,\).* got \(3,\)"))

    def rows(size: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator):
        r = torch.randn(size, dtype=dtype, generator=generator).abs()
        drawn = torch.rand(size, generator=generator)
        r = torch.where(drawn < 0.2, 0.75, torch.where(drawn > 0.9, 0, r))
        step = torch.rand(size[:-1], dtype=dtype, generator=generator)
        return r, torch.linspace(2, 0, size[-1], dtype=dtype), step if len(size) > 1 else 0.7

    sizes = ((0,), (1,), (7,), (3, 5), (2, 0), (0, 4), (4, 1), (512,), (513,), (3, 5000), (900, 60))
    return [KernelCase(kernels.sorted_l1_prox, reference.sorted_l1_prox, rows, sizes, _REAL, rounding=100,
                       refused=refused)]
