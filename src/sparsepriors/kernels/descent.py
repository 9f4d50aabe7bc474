"""Coordinate descent on a Gram matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels import reference
from sparsepriors.kernels.dispatch import code_path, native_for
from sparsepriors.kernels.penalties import Penalty


def gram_descent(gram: Tensor, linear: Tensor, x: Tensor, q: Tensor, kind: int, weight: Tensor, second: Tensor,
                 factor: float, tol: float, max_epochs: int, accelerate: bool, *,
                 instruction_set: str | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.gram_descent`, compiled where it can be: float64 on the CPU, one thread.

    Parameters
    ----------
    gram
        ``(K, K)``, symmetric, K >= k; its first k rows and columns count, so that it can be held with room to grow.
    linear, x, q, weight, second
        ``(k,)``.
    kind
        A `Penalty`.
    factor, tol
        Positive; nonnegative.
    max_epochs
        At least 1.
    accelerate
        Whether to extrapolate.
    instruction_set
        One of `instruction_sets`, by default the first.

    Raises
    ------
    TypeError, ValueError
        If an argument is not float64, the shapes do not belong together, or a number is out of range.
    """
    vectors = {"linear": linear, "x": x, "q": q, "weight": weight, "second": second}
    k = linear.numel()
    for name, v in {"gram": gram, **vectors}.items():
        if not isinstance(v, Tensor) or v.dtype != torch.float64:
            raise TypeError(f"{name} must be a float64 tensor, got {getattr(v, 'dtype', type(v).__name__)}")
    for name, v in vectors.items():
        if v.shape != (k,):
            raise ValueError(f"{name} must have shape ({k},), got {tuple(v.shape)}")
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or gram.shape[0] < k:
        raise ValueError(f"gram must be square with at least {k} rows, got shape {tuple(gram.shape)}")
    _checks.count("kind", kind, low=0, high=len(Penalty) - 1)
    _checks.positive("factor", factor)
    _checks.nonnegative("tol", tol)
    _checks.count("max_epochs", max_epochs, low=1)
    path = code_path(instruction_set)
    native = native_for(gram, *vectors.values())
    if native is None:
        return reference.gram_descent(gram, linear, x, q, kind, weight, second, factor, tol, max_epochs, accelerate)
    x, q = (v.clone(memory_format=torch.contiguous_format) for v in (x, q))
    done, change = native.gram_descent(gram.contiguous(), linear.contiguous(), x, q, kind, weight.contiguous(),
                                       second.contiguous(), factor, tol, max_epochs, accelerate, path)
    return x, q, torch.tensor([done, change], dtype=torch.float64)
