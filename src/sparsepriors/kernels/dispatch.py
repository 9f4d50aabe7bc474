"""Which body of a kernel runs here: the compiled one for this processor, or the reference."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor


def _load() -> tuple[ModuleType | None, str]:
    try:
        return importlib.import_module("sparsepriors.kernels._native"), ""
    except ImportError as e:
        return None, f"the compiled module is not there ({e}); reinstall with a C++17 compiler to build it"


NATIVE, WHY_NOT = _load()
_REALS = (torch.float32, torch.float64)


@dataclass(frozen=True)
class KernelInfo:
    """What the kernels run on.

    Attributes
    ----------
    native
        Whether the compiled module is loaded.
    why_not
        Why it is not, empty if it is.
    instruction_sets
        Code paths that this processor runs, the one in use first; empty without the compiled module.
    threads
        Threads that kernels use: as many as torch.
    kernels
        Names of the kernels with what runs each of them on CPU tensors: an instruction set or ``reference``.
    """

    native: bool
    why_not: str
    instruction_sets: tuple[str, ...]
    threads: int
    kernels: dict[str, str]


def info() -> KernelInfo:
    """What the kernels run on, for people and for records of measurements."""
    sets = instruction_sets()
    body = sets[0] if sets else "reference"
    names = ("born_forward", "born_adjoint", "nm_mask", "topk_mask")
    return KernelInfo(NATIVE is not None, WHY_NOT, sets, torch.get_num_threads(), dict.fromkeys(names, body))


def instruction_sets() -> tuple[str, ...]:
    """Code paths that this processor runs, the fastest first; none without the compiled module."""
    return () if NATIVE is None else tuple(NATIVE.instruction_sets())


def native_for(*tensors: Tensor) -> ModuleType | None:
    """The compiled module if it takes these tensors: on the CPU, real or complex in single or double precision."""
    if NATIVE is None:
        return None
    suits = all(t.device.type == "cpu" and (t.dtype.to_real() if t.is_complex() else t.dtype) in _REALS
                for t in tensors)
    return NATIVE if suits else None
