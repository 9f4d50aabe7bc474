"""Matching pursuit of many signals on the Gram matrix of one dictionary."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels import reference
from sparsepriors.kernels.dispatch import code_path, native_for


def gram_pursuit(correlation: Tensor, gram: Tensor, energy: Tensor, steps: int, tol: float = 0.0, nonneg: bool = True,
                 stop_on_repeat: bool = False, *, instruction_set: str | None = None) -> tuple[Tensor, Tensor]:
    """As `reference.gram_pursuit`, compiled where it can be: on the CPU, rows among torch's threads.

    A step subtracts a row of the Gram matrix and finds the largest entry in the same pass.

    Parameters
    ----------
    correlation
        ``(rows, units)``, float32 or float64.
    gram
        ``(units, units)``, symmetric, of the same dtype.
    energy
        ``(rows,)`` float64.
    steps
        At least 1.
    tol
        Nonnegative.
    nonneg, stop_on_repeat
        Booleans.
    instruction_set
        One of `instruction_sets`, by default the first.

    Raises
    ------
    TypeError, ValueError
        If dtypes or shapes do not belong together, or a number is out of range.
    """
    for name, v in (("correlation", correlation), ("gram", gram)):
        if not isinstance(v, Tensor) or v.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"{name} must be a float32 or float64 tensor, got {getattr(v, 'dtype', type(v).__name__)}")
        _checks.same_dtype(name, v, correlation.dtype)
    if correlation.ndim != 2 or not correlation.shape[1]:
        raise ValueError(f"correlation must have shape (rows, at least one unit), got {tuple(correlation.shape)}")
    rows, units = correlation.shape
    for name, v, shape in (("gram", gram, (units, units)), ("energy", energy, (rows,))):
        if tuple(v.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(v.shape)}")
    _checks.same_dtype("energy", energy, torch.float64)
    _checks.count("steps", steps, low=1)
    _checks.nonnegative("tol", tol)
    path = code_path(instruction_set)
    native = native_for(correlation, gram, energy)
    if native is None:
        return reference.gram_pursuit(correlation, gram, energy, steps, tol, nonneg, stop_on_repeat)
    atoms = torch.empty((rows, steps), dtype=torch.int64)
    values = torch.empty((rows, steps), dtype=correlation.dtype)
    native.gram_pursuit(correlation.contiguous(), gram.contiguous(), energy.contiguous(), steps, float(tol), nonneg,
                        stop_on_repeat, atoms, values, torch.get_num_threads(), path)
    return atoms, values
