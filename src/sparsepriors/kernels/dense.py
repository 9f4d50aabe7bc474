"""Products of a dense matrix with one vector."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsepriors.kernels import reference
from sparsepriors.kernels.dispatch import code_path, native_for, threads


def matrix_vector(matrix: Tensor, x: Tensor, *, instruction_set: str | None = None) -> Tensor:
    """As `reference.matrix_vector`, compiled where it can be: real, on the CPU, as many threads as torch has.

    Torch's own product has one thread whatever the size, and takes microseconds before it begins. The result does not
    depend on the number of threads. A matrix that is not contiguous is copied first.

    Parameters
    ----------
    matrix
        ``(rows, columns)``, floating or complex.
    x
        ``(columns,)``, of the same dtype.
    instruction_set
        One of `instruction_sets`, by default the first.

    Raises
    ------
    TypeError, ValueError
        If the dtypes differ, the shapes do not belong together, or the instruction set is not to be had.
    """
    return _product(matrix, x, 1, instruction_set)


def vector_matrix(y: Tensor, matrix: Tensor, *, instruction_set: str | None = None) -> Tensor:
    """As `reference.vector_matrix`, compiled where it can be, as `matrix_vector`.

    Parameters
    ----------
    y
        ``(rows,)``.
    matrix
        ``(rows, columns)``, floating or complex, of the same dtype.
    instruction_set
        One of `instruction_sets`, by default the first.

    Raises
    ------
    TypeError, ValueError
        As `matrix_vector`.
    """
    return _product(matrix, y, 0, instruction_set)


def _product(matrix: Tensor, vector: Tensor, axis: int, instruction_set: str | None) -> Tensor:
    """The vector lies along this axis of the matrix, and the result along the other."""
    if matrix.dtype != vector.dtype:
        raise TypeError(f"matrix and vector must have one dtype, got {matrix.dtype} and {vector.dtype}")
    if matrix.ndim != 2 or vector.shape != matrix.shape[axis:axis + 1]:
        raise ValueError(f"matrix must have two axes and the vector the length of axis {axis}, got shapes "
                         f"{tuple(matrix.shape)} and {tuple(vector.shape)}")
    path = code_path(instruction_set)
    native = None if matrix.is_complex() else native_for(matrix, vector)
    if native is None or (torch.is_grad_enabled() and (matrix.requires_grad or vector.requires_grad)):
        return reference.matrix_vector(matrix, vector) if axis else reference.vector_matrix(vector, matrix)
    out = torch.empty(matrix.shape[1 - axis], dtype=matrix.dtype)
    matrix, vector = matrix.contiguous(), vector.contiguous()
    if axis:
        native.matrix_vector(matrix, vector, out, threads(), path)
    else:
        native.vector_matrix(vector, matrix, out, threads(), path)
    return out
