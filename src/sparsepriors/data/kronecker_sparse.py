"""Simulated measurements of tensors whose support is a product of one set for each axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsepriors import _checks

COEFFICIENTS = ("product", "free")
_FREE_VARIANCE = 0.05


@dataclass(frozen=True)
class KroneckerProblems:
    """A batch of independent problems ``y = (A_1 (x) A_2 (x) ...) x + noise``.

    Attributes
    ----------
    factors
        ``(n, m_i, n_i)`` for each axis.
    x
        ``(n, n_1, ..., n_I)``, the truth.
    y
        ``(n, m_1, ..., m_I)``.
    noise_var
        ``(n,)``.
    supports
        ``(n, n_i)`` for each axis.
    """

    factors: tuple[Float[Tensor, "..."], ...]
    x: Float[Tensor, "..."]
    y: Float[Tensor, "..."]
    noise_var: Float[Tensor, " n"]
    supports: tuple[Bool[Tensor, "..."], ...]

    def first(self, n: int) -> KroneckerProblems:
        """The first n problems."""
        return KroneckerProblems(tuple(a[:n] for a in self.factors), self.x[:n], self.y[:n], self.noise_var[:n],
                                 tuple(s[:n] for s in self.supports))


def kronecker_sparse(n: int, rows: Sequence[int], columns: Sequence[int], nonzeros: Sequence[int], snr_db: float,
                     generator: torch.Generator, *, coefficients: str = "product") -> KroneckerProblems:
    """Draw problems as He and Joseph (2024, arXiv 2307.14719) do: Gaussian matrices and coefficients; float64.

    Parameters
    ----------
    n
        How many.
    rows, columns, nonzeros
        m_i, n_i and how many entries are not zero, for each axis.
    snr_db
        Mean power of the measurements without noise over the variance of the noise, of each problem.
    coefficients
        ``"product"``: x = x_1 (x) x_2 (x) ... with Gaussian entries, as in the figures of accuracy. ``"free"``:
        Gaussian of variance 0.05 on the product of the supports, as in those of convergence.

    Raises
    ------
    TypeError, ValueError
        If the numbers are not positive integers of one length, or more entries are not zero than there are.
    """
    _checks.count("n", n)
    _checks.one_of("coefficients", coefficients, COEFFICIENTS)
    snr_db = _checks.number("snr_db", snr_db)
    if not len(rows) == len(columns) == len(nonzeros) > 0:
        raise ValueError(f"rows, columns and nonzeros must have one entry for each axis, got {len(rows)}, "
                         f"{len(columns)} and {len(nonzeros)}")
    for i, (m, size, k) in enumerate(zip(rows, columns, nonzeros, strict=True)):
        _checks.count(f"rows[{i}]", m, low=1)
        _checks.count(f"columns[{i}]", size, low=1)
        _checks.count(f"nonzeros[{i}]", k, low=1, high=size)

    def gaussian(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator, device=generator.device)

    factors = tuple(gaussian(n, m, size) for m, size in zip(rows, columns, strict=True))
    supports = tuple(torch.rand(n, size, generator=generator, device=generator.device).argsort(1) < k
                     for size, k in zip(columns, nonzeros, strict=True))
    x = _outer([gaussian(n, size) * s if coefficients == "product" else s.double()
                for size, s in zip(columns, supports, strict=True)])
    if coefficients == "free":
        x = x * math.sqrt(_FREE_VARIANCE) * gaussian(*x.shape)
    clean = x
    for a in factors:
        clean = (a @ clean.flatten(2)).reshape(n, a.shape[1], *clean.shape[2:]).movedim(1, -1)
    noise_var = clean.flatten(1).square().mean(1) / 10 ** (snr_db / 10)
    noise = noise_var.sqrt().reshape(n, *(1,) * len(rows)) * gaussian(*clean.shape)
    return KroneckerProblems(factors, x, clean + noise, noise_var, supports)


def _outer(parts: list[Tensor]) -> Tensor:
    out = parts[0]
    for p in parts[1:]:
        out = out[..., None] * p.reshape(len(p), *(1,) * (out.ndim - 1), -1)
    return out
