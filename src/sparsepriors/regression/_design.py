"""A design matrix by its columns: what coordinate descent asks of it, dense or sparse, in float64."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsepriors.kernels import column_products
from sparsepriors.operators.dense import Matrix


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

    def squared_norms(self) -> Tensor:
        return torch.linalg.vector_norm(self._t, dim=1).double().square()

    def project(self, a: Tensor, r: Tensor) -> Tensor:
        return self._t[a].double() @ r

    def weighted_gram(self, a: Tensor, weights: Tensor) -> Tensor:
        some = self._t[a].double()
        return (some * weights) @ some.mT

    def weighted_norms(self, weights: Tensor) -> Tensor:
        return self._t.square().double() @ weights


class SparseDesign(Design):
    """A SciPy matrix in compressed columns; centring is a correction of rank one, so that zeros stay zeros."""

    def __init__(self, matrix: Any, roots: Tensor | None, centre: bool) -> None:
        import scipy.sparse

        self.rows, self.columns = matrix.shape
        d = np.ones(self.rows) if roots is None else roots.numpy()
        self._x = scipy.sparse.csc_array(matrix, dtype=np.float64)
        if roots is not None:
            self._x = scipy.sparse.csc_array(scipy.sparse.diags_array(d) @ self._x)
        self._t = self._x.T
        self._d = d
        self._m = np.asarray(self._t @ d).reshape(-1) / (d @ d) if centre else np.zeros(self.columns)
        self.means = torch.from_numpy(self._m)

    def correlate(self, r: Tensor, keep: Tensor | None = None) -> Tensor:
        return torch.from_numpy(self._t @ r.numpy() - np.multiply.outer(self._m, self._d @ r.numpy()))

    def image(self, index: Tensor, x: Tensor) -> Tensor:
        at, values = index.numpy(), x.numpy()
        return torch.from_numpy(self._x[:, at] @ values - np.multiply.outer(self._d, self._m[at] @ values))

    def gram(self, a: Tensor, b: Tensor) -> Tensor:
        left, right = a.numpy(), b.numpy()
        product = (self._x[:, left].T @ self._x[:, right]).toarray()
        return torch.from_numpy(product - (self._d @ self._d) * np.outer(self._m[left], self._m[right]))

    def squared_norms(self) -> Tensor:
        squares = self._squares() @ np.ones(self.rows)
        return torch.from_numpy(np.maximum(squares - (self._d @ self._d) * self._m ** 2, 0.0))

    def project(self, a: Tensor, r: Tensor) -> Tensor:
        at, v = a.numpy(), r.numpy()
        return torch.from_numpy(self._x[:, at].T @ v - self._m[at] * (self._d @ v))

    def weighted_gram(self, a: Tensor, weights: Tensor) -> Tensor:
        some = self._x[:, a.numpy()]
        return torch.from_numpy((some.T @ some.multiply(weights.numpy()[:, None]).tocsc()).toarray())

    def weighted_norms(self, weights: Tensor) -> Tensor:
        return torch.from_numpy(self._squares() @ weights.numpy())

    def _squares(self) -> Any:
        """The entries squared, transposed; they lie where the entries lie."""
        import scipy.sparse

        x = self._x
        return scipy.sparse.csc_array((x.data ** 2, x.indices, x.indptr), shape=x.shape).T


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
