"""Matrices that are the sum of one of low rank and one with few entries."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.priors import _shapes
from sparsepriors.priors.base import Prior
from sparsepriors.priors.sets import Cardinality, Rank


@dataclass(frozen=True)
class LowRankPlusSparse(Prior):
    """Matrices L + S, the rank of L and the nonzero entries of S bounded (the last two axes are a matrix).

    The nearest such matrix is not known in closed form. The prox is what alternating between the two nearest parts
    leads to (GoDec): L is the truncated singular value decomposition of ``x - S``, S the largest entries of ``x - L``;
    neither step can move the sum away from x. Whether a matrix lies in the set cannot be told from that, so ``value``
    is NaN, as for a denoiser.

    Parameters
    ----------
    rank
        Largest rank of L.
    nonzeros
        Most nonzero entries of S.
    iterations
        Alternations, from ``S = 0``.

    References
    ----------
    Zhou and Tao, GoDec: randomized low-rank and sparse matrix decomposition in noisy case, ICML 2011, with exact
    singular values.
    """

    rank: int = 1
    nonzeros: int = 1
    iterations: int = 50
    dims: int | None = field(default=2, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.count("rank", self.rank)
        _checks.count("nonzeros", self.nonzeros)
        _checks.count("iterations", self.iterations, low=1)
        if self.dims != 2:
            raise ValueError(f"LowRankPlusSparse is of matrices, so dims must be 2, got {self.dims}")

    def split(self, x: Float[Tensor, "*batch rows columns"]) -> tuple[Tensor, Tensor]:
        """The two parts L and S of the prox, each of the shape of ``x``.

        Raises
        ------
        TypeError, ValueError
            If ``x`` is no finite floating point tensor of matrices.
        """
        self._check(x)
        return self._split(x)

    def support(self, x: Float[Tensor, "*batch rows columns"]) -> Int64[Tensor, "*batch 2 nonzeros"]:
        """Rows and columns of the entries that are least of low rank: the largest of ``|S|``, then of ``|x - L|``.

        Raises
        ------
        ValueError
            If a matrix has fewer entries than ``nonzeros``.
        """
        low_rank, sparse = self.split(x)
        return largest_entries(sparse, x - low_rank, self.nonzeros)

    def _step(self, x: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
        """One alternation."""
        low_rank = Rank(self.rank)._project(x - sparse)
        return low_rank, Cardinality(self.nonzeros, dims=2)._project(x - low_rank)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low_rank, sparse = self._step(x, torch.zeros_like(x))
        for _ in range(self.iterations - 1):
            low_rank, sparse = self._step(x, sparse)
        return low_rank, sparse

    def _fits(self, x: Tensor) -> None:
        super()._fits(x)
        _shapes.must_be_matrices("LowRankPlusSparse", x)

    def _value(self, x: Tensor) -> Tensor:
        return self._sum(torch.full_like(x, torch.nan, dtype=x.dtype.to_real()))

    def _prox(self, x: Tensor, step: float | Tensor) -> Tensor:
        low_rank, sparse = self._split(x)
        return low_rank + sparse


def largest_entries(first: Float[Tensor, "*batch rows columns"], second: Float[Tensor, "*batch rows columns"],
                    count: int) -> Int64[Tensor, "*batch 2 count"]:
    """Rows and columns of the entries of largest modulus in one matrix, ties broken by another, then by their order.

    Raises
    ------
    TypeError, ValueError
        If the shapes differ, or ``count`` is not from 0 to the number of entries.
    """
    _checks.inexact("first", first)
    _checks.inexact("second", second)
    if first.shape != second.shape or first.ndim < 2:
        raise ValueError(f"first and second must be matrices of one shape, got {tuple(first.shape)} and "
                         f"{tuple(second.shape)}")
    rows, columns = first.shape[-2:]
    _checks.count("count", count, high=rows * columns)
    order = second.abs().flatten(-2).argsort(dim=-1, descending=True, stable=True)
    again = first.abs().flatten(-2).gather(-1, order).argsort(dim=-1, descending=True, stable=True)
    chosen = order.gather(-1, again[..., :count])
    return torch.stack([chosen // columns, chosen % columns], dim=-2)
