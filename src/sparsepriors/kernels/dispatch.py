"""Which body of a kernel runs here: the compiled one for this processor, or the reference."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors._compiled import DTYPES, FIRST, NATIVE, SETS, WHY_NOT

# No wider vector makes these faster.
_PORTABLE_ONLY = ("csc_combination", "csc_gram", "csc_products", "sorted_l1_prox", "topk_levels", "topk_mask")


class _Serial(threading.local):
    """Of a thread: how many threads torch had where it entered `serial_torch`, 0 outside of it."""

    threads = 0


_SERIAL = _Serial()
_LOCK = threading.Lock()
_inside = 0    # threads of the program that are in `serial_torch`
_threads = 1   # that torch had before the first of them


def threads() -> int:
    """Threads that kernels use: as many as torch has, or had outside of `serial_torch`."""
    return _SERIAL.threads or torch.get_num_threads()


@contextlib.contextmanager
def serial_torch() -> Iterator[None]:
    """Torch and its linear algebra on one thread; the kernels here keep theirs.

    Threads of OpenMP look for work for milliseconds after each parallel region. An algorithm of many short operations
    gains little from them, and waits for them again and again where another process has the processor.
    """
    global _inside, _threads
    if _SERIAL.threads:
        yield
        return
    with _LOCK:
        if not _inside:
            _threads = torch.get_num_threads()
        _inside += 1
        _SERIAL.threads = _threads
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(_SERIAL.threads)
        _SERIAL.threads = 0
        with _LOCK:
            _inside -= 1


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """As many threads for torch."""
    before = torch.get_num_threads()
    if count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
        Threads that kernels use: as many as torch, outside of `serial_torch`.
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
    return () if NATIVE is None else SETS


def code_path(instruction_set: str | None) -> str:
    """The instruction set of this name, or the first for None; `ValueError` if it is not to be had here."""
    if instruction_set is None:   # every call of every kernel comes by here
        return FIRST
    return _checks.one_of("instruction_set", instruction_set, instruction_sets())


def native_for(*tensors: Tensor) -> ModuleType | None:
    """The compiled module if it takes these tensors: on the CPU, real or complex in single or double precision."""
    if NATIVE is None:
        return None
    for t in tensors:
        if not (t.is_cpu and t.dtype in DTYPES and NATIVE.in_memory(t)):
            return None
    return NATIVE
