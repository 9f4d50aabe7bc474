"""Which body of a kernel runs here: the compiled one for this processor, or the reference."""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from sparsepriors import _checks


def _load() -> tuple[ModuleType | None, str]:
    try:
        return importlib.import_module("sparsepriors.kernels._native"), ""
    except ImportError as e:
        return None, f"the compiled module is not there ({e}); reinstall with a C++17 compiler to build it"


NATIVE, WHY_NOT = _load()
_REALS = (torch.float32, torch.float64)
_PORTABLE_ONLY = ("topk_mask",)  # counts bits, which no wider vector makes faster


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
    compiled = dict.fromkeys(names(), sets[0] if sets else "reference")
    if sets:
        compiled |= dict.fromkeys(_PORTABLE_ONLY, "portable")
    return KernelInfo(NATIVE is not None, WHY_NOT, sets, torch.get_num_threads(), compiled)


def names() -> tuple[str, ...]:
    """The kernels: every public function of `sparsepriors.kernels.reference`."""
    from sparsepriors.kernels import reference

    return tuple(reference.__all__)


def instruction_sets() -> tuple[str, ...]:
    """Code paths that this processor runs, the fastest first; none without the compiled module."""
    return () if NATIVE is None else _instruction_sets(NATIVE)


@functools.cache
def _instruction_sets(native: ModuleType) -> tuple[str, ...]:
    return tuple(native.instruction_sets())


def code_path(instruction_set: str | None) -> str:
    """The instruction set of this name, or the first for None; `ValueError` if it is not to be had here."""
    available = instruction_sets()
    if instruction_set is None:
        return available[0] if available else "reference"
    return _checks.one_of("instruction_set", instruction_set, available)


def native_for(*tensors: Tensor) -> ModuleType | None:
    """The compiled module if it takes these tensors: on the CPU, real or complex in single or double precision."""
    if NATIVE is None:
        return None
    suits = all(t.device.type == "cpu" and (t.dtype.to_real() if t.is_complex() else t.dtype) in _REALS
                for t in tensors)
    return NATIVE if suits else None
