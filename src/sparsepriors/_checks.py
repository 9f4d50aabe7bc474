"""Checks at the public doors: one wording for each kind of bad argument."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from numbers import Real

import torch
from torch import Tensor

from sparsepriors._norms import largest_modulus


def inexact(name: str, x: object) -> Tensor:
    """Return ``x`` if it is a floating or complex tensor with finite entries.

    Raises
    ------
    TypeError
        If it is not a tensor, or holds integers or booleans.
    ValueError
        If an entry is NaN or infinite.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}")
    if not (x.is_floating_point() or x.is_complex()):
        raise TypeError(f"{name} must be floating point or complex, got {x.dtype}")
    if not all_finite(x):
        raise ValueError(f"{name} holds NaN or infinite entries")
    return x


def all_finite(x: Tensor) -> bool:
    """Whether no entry of a floating or complex tensor is NaN or infinite."""
    return x.is_meta or math.isfinite(largest_modulus(x))


def trailing_shape(name: str, x: Tensor, shape: tuple[int, ...]) -> None:
    """Raise `ValueError` unless the last axes of ``x`` are ``shape`` (any batch axes may lead)."""
    if x.ndim < len(shape) or tuple(x.shape[x.ndim - len(shape):]) != tuple(shape):
        raise ValueError(f"{name} must have shape (..., {', '.join(map(str, shape))}), got {tuple(x.shape)}")


def same_dtype(name: str, x: Tensor, dtype: torch.dtype) -> None:
    """Raise `TypeError` unless ``x`` has this dtype."""
    if x.dtype != dtype:
        raise TypeError(f"{name} must be {dtype}, got {x.dtype}")


def shape(name: str, value: object) -> tuple[int, ...]:
    """Return ``value`` as a tuple of nonnegative integers, else raise `TypeError` or `ValueError`."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name} must be a tuple of integers, got {type(value).__name__}")
    return tuple(count(f"{name}[{i}]", n) for i, n in enumerate(value))


def inexact_dtype(name: str, value: object) -> torch.dtype:
    """Return ``value`` if it is a floating or complex `torch.dtype`, else raise `TypeError`."""
    if not isinstance(value, torch.dtype) or not (value.is_floating_point or value.is_complex):
        raise TypeError(f"{name} must be a floating or complex torch.dtype, got {value}")
    return value


def boolean(name: str, x: object) -> Tensor:
    """Return ``x`` if it is a boolean tensor, else raise `TypeError`."""
    if not isinstance(x, Tensor) or x.dtype != torch.bool:
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} must be a boolean tensor, got {found}")
    return x


def nonnegative(name: str, value: float | Tensor) -> None:
    """Raise `ValueError` unless every entry is finite and >= 0."""
    _bounded(name, value, strict=False)


def positive(name: str, value: float | Tensor) -> None:
    """Raise `ValueError` unless every entry is finite and > 0."""
    _bounded(name, value, strict=True)


def _bounded(name: str, value: float | Tensor, *, strict: bool) -> None:
    want = "positive" if strict else "nonnegative"
    if isinstance(value, Tensor):
        if value.is_complex():
            raise TypeError(f"{name} must be real and {want}, got {value.dtype}")
        if value.numel():
            low, high = (float(v) for v in torch.aminmax(value.detach()))
            if not (math.isfinite(low) and math.isfinite(high)) or low < 0 or (strict and low == 0):
                raise ValueError(f"{name} must be finite and {want}, got entries from {low} to {high}")
        return
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number or a tensor, got {type(value).__name__}")
    if not math.isfinite(value) or value < 0 or (strict and value == 0):
        raise ValueError(f"{name} must be finite and {want}, got {value}")


def number(name: str, value: object) -> float:
    """Return ``value`` as a float if it is one finite real number (a tensor with one entry is), else raise.

    Raises
    ------
    TypeError
        If it is no number, or a tensor with more entries than one.
    ValueError
        If it is NaN or infinite.
    """
    if isinstance(value, Tensor):
        if value.numel() != 1 or value.is_complex():
            raise TypeError(f"{name} must be one real number, got a tensor {value.dtype} {tuple(value.shape)}")
        value = value.item()
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    return float(value)


def positive_number(name: str, value: object) -> float:
    """Return ``value`` as a float if it is one finite positive number, else raise `TypeError` or `ValueError`."""
    positive(name, value)  # pyright: ignore[reportArgumentType]  it is checked there
    return number(name, value)


def nonnegative_number(name: str, value: object) -> float:
    """Return ``value`` as a float if it is one finite number >= 0, else raise `TypeError` or `ValueError`."""
    nonnegative(name, value)  # pyright: ignore[reportArgumentType]  it is checked there
    return number(name, value)


def share(name: str, value: object) -> float:
    """Return ``value`` as a float if it is one number in [0, 1], else raise `TypeError` or `ValueError`."""
    part = number(name, value)
    if not 0 <= part <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {part:g}")
    return part


def instance(name: str, value: object, kind: type | tuple[type, ...]) -> None:
    """Raise `TypeError` unless ``value`` is an object of this class, or of one of these."""
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        raise TypeError(f"{name} must be a {' or a '.join(k.__name__ for k in kinds)}, got {type(value).__name__}")


def count(name: str, value: object, *, low: int = 0, high: int | None = None) -> int:
    """Return ``value`` if it is an integer in [low, high], else raise `TypeError` or `ValueError`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    if value < low or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be {bounds}, got {value}")
    return value


def one_of(name: str, value: str, allowed: Iterable[str]) -> str:
    """Return ``value`` if it is one of the allowed names, else raise `ValueError` with the nearest name."""
    names = list(allowed)
    if value not in names:
        near = difflib.get_close_matches(str(value), names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} must be one of {', '.join(map(repr, names))}, got {value!r}{hint}")
    return value
