"""Measured values as strict JSON: what may be kept, and how NaN and infinity are spelled."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch

_KIND = "kind"


def encode(value: Any, where: str) -> Any:
    """Plain JSON for scalars, strings, lists and dicts; NumPy and 0-d torch scalars become Python's.

    Raises
    ------
    TypeError
        If something else is inside; the message says where.
    """
    if isinstance(value, torch.Tensor | np.generic) and value.ndim == 0:
        value = value.item()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        return number if math.isfinite(number) else {_KIND: "float", "value": str(number)}
    if isinstance(value, list | tuple):
        return [encode(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}; keys must be strings")
        return {k: encode(v, f"{where}.{k}") for k, v in value.items()}
    raise TypeError(f"{where} holds a {type(value).__name__}; kept values are numbers, strings, lists and dicts "
                    f"(use Run.tensors for tensors)")


def decode(value: Any) -> Any:
    """The value that `encode` wrote; `ValueError` or `RecursionError` for one that it did not write."""
    if isinstance(value, list):
        return [decode(v) for v in value]
    if isinstance(value, dict):
        if value.get(_KIND) == "float" and set(value) == {_KIND, "value"}:
            if value["value"] not in ("nan", "inf", "-inf"):
                raise ValueError(f"a float must be written as nan, inf or -inf, got {value['value']!r:.100}")
            return float(value["value"])
        return {k: decode(v) for k, v in value.items()}
    return value
