"""A design matrix by its columns: what coordinate descent asks of it, dense or sparse, in float64."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsepriors.kernels import column_products, csc_combination, csc_gram, csc_products
from sparsepriors.operators.dense import Matrix

_CHUNK = 1 << 18     # entries of columns that are copied at a time


class Design(ABC):
    """An n x p matrix X, perhaps D (X - 1 m^T): columns centred by m and rows weighted by the roots D of weights."""

    rows: int
    columns: int
    means: Tensor
    """``(p,)``: what was taken from the columns, zero without centring."""

    @abstractmethod
    def correlate(self, r: Tensor, keep: Tensor | None = None) -> Tensor:
        """X^T r: ``(n,)`` to ``(p,)``, or ``(n, tasks)`` to ``(p, tasks)``.

        Where ``keep``, ``(p,)`` booleans, is False it may be anything.
        """

    @abstractmethod
    def image(self, index: Tensor, x: Tensor) -> Tensor:
        """X x for an x that is zero outside ``index``, there ``x``: ``(n,)`` or ``(n, tasks)``."""

    @abstractmethod
    def gram(self, a: Tensor, b: Tensor) -> Tensor:
        """X_a^T X_b for two lists of columns."""

    def block_grams(self, blocks: Tensor) -> Tensor:
        """The Gram matrix of every row of a table of columns: ``(blocks, m)`` to ``(blocks, m, m)``."""
        return torch.stack([self.gram(b, b) for b in blocks])

    @abstractmethod
    def some(self, index: Tensor) -> Tensor:
        """A list of columns, dense, one in every row: ``(k, n)``."""

    @abstractmethod
    def squared_norms(self) -> Tensor:
        """``(p,)``."""

    @abstractmethod
    def project(self, a: Tensor, r: Tensor) -> Tensor:
        """X_a^T r for a list of columns."""

    @abstractmethod
    def weighted_gram(self, a: Tensor, weights: Tensor) -> Tensor:
        """X_a^T diag(weights) X_a for a list of columns, not centred."""

    @abstractmethod
    def weighted_norms(self, weights: Tensor) -> Tensor:
        """The diagonal of X^T diag(weights) X, not centred: ``(p,)``."""


class DenseDesign(Design):
    """A tensor; the columns lie contiguously, in the precision that was given."""

    def __init__(self, matrix: Tensor, roots: Tensor | None, centre: bool) -> None:
        self.rows, self.columns = matrix.shape
        self._t = matrix.mT
        self.means = torch.zeros(self.columns, dtype=torch.float64)
        if centre:
            weights = torch.ones(self.rows, dtype=matrix.dtype) if roots is None else roots.to(matrix.dtype).square()
            means = self._t @ (weights / weights.sum())
            self._t = self._t - means[:, None]
            self.means = means.double()
        if roots is not None:
            self._t = self._t * roots.to(matrix.dtype)
        self._t = self._t.contiguous()

    def correlate(self, r: Tensor, keep: Tensor | None = None) -> Tensor:
        if r.ndim == 2:
            return (self._t @ r.to(self._t.dtype)).double()
        return column_products(self._t, r, keep)

    def image(self, index: Tensor, x: Tensor) -> Tensor:
        return (self._t[index].mT @ x.to(self._t.dtype)).double()

    def gram(self, a: Tensor, b: Tensor) -> Tensor:
        return (self._t[a] @ self._t[b].mT).double()

    def block_grams(self, blocks: Tensor) -> Tensor:
        found = []
        for some in blocks.split(max(_CHUNK // max(blocks.shape[1] * self.rows, 1), 1)):
            columns = self._t[some]
            found.append((columns @ columns.mT).double())
        return torch.cat(found)

    def some(self, index: Tensor) -> Tensor:
        return self._t[index].double()

    def squared_norms(self) -> Tensor:
        return torch.linalg.vector_norm(self._t, dim=1).double().square()

    def project(self, a: Tensor, r: Tensor) -> Tensor:
        return self._t[a].double() @ r

    def weighted_gram(self, a: Tensor, weights: Tensor) -> Tensor:
        some = self._t[a].double()
        return (some * weights) @ some.mT

    def weighted_norms(self, weights: Tensor) -> Tensor:
        # Without weights there is no need of a copy of all squares.
        return self.squared_norms() if bool((weights == 1).all()) else self._t.square().double() @ weights


class SparseDesign(Design):
    """A SciPy matrix in compressed columns; centring is a correction of rank one, so that zeros stay zeros."""

    def __init__(self, matrix: Any, roots: Tensor | None, centre: bool) -> None:
        import scipy.sparse

        x: Any = matrix
        if x.format != "csc" or x.dtype != np.float64:
            x = scipy.sparse.csc_array(matrix, dtype=np.float64)
        if not x.has_canonical_format:
            x = x.copy()
            x.sum_duplicates()
        self.rows, self.columns = x.shape
        self._values, self._at, self._starts = (torch.from_numpy(np.require(v, requirements="W"))
                                                for v in (x.data, x.indices, x.indptr))
        self._ones = torch.ones(self.rows, dtype=torch.float64)
        self._d = self._ones if roots is None else roots
        if roots is not None:
            self._values = self._values * roots[self._at.long()]
        self.means = torch.zeros(self.columns, dtype=torch.float64)
        self._centred = centre
        if centre:
            self.means = self._products(self._d) / self._weight

    @property
    def _weight(self) -> Tensor:
        """Of the column of roots, with itself."""
        return self._d @ self._d

    def _products(self, r: Tensor, index: Tensor | None = None, squared: bool = False) -> Tensor:
        """Products of columns, as they are stored or squared, with a vector or with several."""
        found = csc_products(self._values, self._at, self._starts, rows_of(r), index, squared)
        return found if r.ndim == 2 else found[:, 0]

    def correlate(self, r: Tensor, keep: Tensor | None = None) -> Tensor:
        if keep is None:
            return self._take_means(self._products(r), self.means, r)
        index = keep.nonzero()[:, 0]
        return r.new_zeros(self.columns, *r.shape[1:]).index_copy(0, index, self.project(index, r))

    def _take_means(self, products: Tensor, means: Tensor, r: Tensor) -> Tensor:
        if not self._centred:
            return products
        return products - (torch.outer(means, self._d @ r) if r.ndim == 2 else means * (self._d @ r))

    def image(self, index: Tensor, x: Tensor) -> Tensor:
        image = csc_combination(self._values, self._at, self._starts, rows_of(x), index, self.rows)
        image = image if x.ndim == 2 else image[:, 0]
        if not self._centred:
            return image
        shift = self.means[index] @ x
        return image - (torch.outer(self._d, shift) if x.ndim == 2 else self._d * shift)

    def gram(self, a: Tensor, b: Tensor) -> Tensor:
        product = csc_gram(self._values, self._at, self._starts, b, a, self._ones)
        return product - self._weight * torch.outer(self.means[a], self.means[b]) if self._centred else product

    def some(self, index: Tensor) -> Tensor:
        return self.image(index, torch.eye(len(index), dtype=torch.float64)).mT.contiguous()

    def squared_norms(self) -> Tensor:
        squares = self._products(self._ones, squared=True)
        return torch.relu(squares - self._weight * self.means.square()) if self._centred else squares

    def project(self, a: Tensor, r: Tensor) -> Tensor:
        return self._take_means(self._products(r, a), self.means[a], r)

    def weighted_gram(self, a: Tensor, weights: Tensor) -> Tensor:
        return csc_gram(self._values, self._at, self._starts, a, a, weights)

    def weighted_norms(self, weights: Tensor) -> Tensor:
        return self._products(weights, squared=True)


def support_of(x: Tensor) -> Tensor:
    """The rows of coefficients that are not zero."""
    return (x if x.ndim == 1 else x.any(dim=1)).nonzero()[:, 0]


def rows_of(x: Tensor) -> Tensor:
    """A vector as a matrix of one column, a matrix as it is."""
    return x if x.ndim == 2 else x[:, None]


def design(A: object, weights: Tensor | None, centre: bool) -> Design:
    """The columns of a `Matrix` operator, a tensor or a SciPy sparse matrix; `TypeError` for anything else.

    Whether they are finite shows in their `squared_norms`, without another pass over a large matrix.
    """
    import scipy.sparse

    roots = None if weights is None else weights.double().sqrt()
    if scipy.sparse.issparse(A):
        if A.ndim != 2 or A.dtype.kind not in "fiub":  # pyright: ignore[reportAttributeAccessIssue]
            raise TypeError("A must be a real matrix")
        return SparseDesign(A, roots, centre)
    matrix = A.matrix if isinstance(A, Matrix) else A
    if not isinstance(matrix, Tensor):
        raise TypeError(f"A must be a Matrix operator, a tensor or a SciPy sparse matrix, got {type(A).__name__}")
    if matrix.ndim != 2 or matrix.dtype not in (torch.float32, torch.float64) or matrix.device.type != "cpu":
        raise TypeError(f"A must be a float32 or float64 matrix on the CPU, got {matrix.dtype} of shape "
                        f"{tuple(matrix.shape)} on {matrix.device}")
    return DenseDesign(matrix.detach(), roots, centre)
