"""The compiled module, where it was built, and what it runs on."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch

DTYPES = frozenset((torch.float32, torch.float64, torch.complex64, torch.complex128))
"""Of the tensors that compiled code takes, unless it says more."""


def _load() -> tuple[ModuleType | None, str]:
    try:
        return importlib.import_module("sparsepriors._native"), ""
    except ImportError as e:
        return None, f"the compiled module is not there ({e}); reinstall with a C++17 compiler to build it"


NATIVE, WHY_NOT = _load()
SETS: tuple[str, ...] = () if NATIVE is None else tuple(NATIVE.instruction_sets())
FIRST = SETS[0] if SETS else "reference"
