"""Proximal gradient for many sparse codes on one Gram matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels import reference
from sparsepriors.kernels.dispatch import code_path, native_for
from sparsepriors.kernels.penalties import Penalty


def gram_ista(linear: Tensor, gram: Tensor, x: Tensor, kind: int, weight: Tensor, second: Tensor, factor: float,
              step: float, tol: float, floor: float, max_steps: int, *,
              instruction_set: str | None = None) -> tuple[Tensor, Tensor]:
    """As `reference.gram_ista`, compiled where it can be: on the CPU, rows among torch's threads.

    A gradient is a sum over the support of a code and thresholds are compared before anything is evaluated, so that a
    step costs what the code's nonzeros cost.

    Parameters
    ----------
    linear, x
        ``(rows, units)``, float32 or float64.
    gram
        ``(units, units)``, symmetric, of the same dtype.
    kind
        A `Penalty`.
    weight, second
        ``(units,)`` float64.
    factor, step
        Positive.
    tol, floor
        Nonnegative.
    max_steps
        At least 1.
    instruction_set
        One of `instruction_sets`, by default the first.

    Raises
    ------
    TypeError, ValueError
        If dtypes or shapes do not belong together, or a number is out of range.
    """
    for name, v in (("linear", linear), ("gram", gram), ("x", x)):
        if not isinstance(v, Tensor) or v.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"{name} must be a float32 or float64 tensor, got {getattr(v, 'dtype', type(v).__name__)}")
        _checks.same_dtype(name, v, linear.dtype)
    if linear.ndim != 2:
        raise ValueError(f"linear must have shape (rows, units), got {tuple(linear.shape)}")
    units = linear.shape[1]
    for name, v, shape in (("x", x, tuple(linear.shape)), ("gram", gram, (units, units)), ("weight", weight, (units,)),
                           ("second", second, (units,))):
        if tuple(v.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(v.shape)}")
    for name, v in (("weight", weight), ("second", second)):
        _checks.same_dtype(name, v, torch.float64)
    _checks.count("kind", kind, low=0, high=len(Penalty) - 1)
    _checks.positive("factor", factor)
    _checks.positive("step", step)
    _checks.nonnegative("tol", tol)
    _checks.nonnegative("floor", floor)
    _checks.count("max_steps", max_steps, low=1)
    path = code_path(instruction_set)
    native = native_for(linear, gram, x)
    if native is None:
        return reference.gram_ista(linear, gram, x, kind, weight, second, factor, step, tol, floor, max_steps)
    x = x.clone(memory_format=torch.contiguous_format)
    steps = torch.zeros(linear.shape[0], dtype=torch.int64)
    native.gram_ista(linear.contiguous(), gram.contiguous(), x, kind, weight.contiguous(), second.contiguous(),
                     float(factor), float(step), float(tol), float(floor), max_steps, steps, torch.get_num_threads(),
                     path)
    return x, steps
