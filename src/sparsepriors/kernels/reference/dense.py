"""Products of a dense matrix with one vector."""

from __future__ import annotations

from torch import Tensor


def matrix_vector(matrix: Tensor, x: Tensor) -> Tensor:
    """``M x``: ``(rows, columns)`` times ``(columns,)``."""
    return matrix.mv(x)


def vector_matrix(y: Tensor, matrix: Tensor) -> Tensor:
    """``y^T M``: ``(rows,)`` times ``(rows, columns)``."""
    return matrix.mT.mv(y)
