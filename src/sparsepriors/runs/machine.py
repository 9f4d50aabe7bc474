"""The record of where a measurement was made."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

_SOURCES = (".py", ".cpp", ".hpp", ".h", ".json", ".safetensors")


@cache
def machine() -> dict[str, Any]:
    """CPU model, cores, instruction set, memory, GPU, and the versions that decide the bits."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 1,
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "memory_gib": _memory_gib(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": metadata.version("numpy"),
        "scipy": metadata.version("scipy"),
    }


def threads() -> int:
    """Threads that torch uses inside one operation."""
    return torch.get_num_threads()


def code_digest(experiment: str | os.PathLike[str]) -> str:
    """SHA-256 over the sources that a result may depend on: the rooms and floors below them, and the experiment's file.

    Commands, pages, contracts and the other papers are left out.
    """
    digest = hashlib.sha256(_rooms_digest())
    path = Path(experiment)
    if path.is_file():
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def _rooms_digest() -> bytes:
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        if path.suffix in _SOURCES and name.parts[0] not in ("cli", "gallery", "testing", "papers"):
            digest.update(f"{name.as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.digest()


def peak_rss_mb() -> float:
    """Largest resident memory of this process since `reset_peak_rss`, in 10^6 bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def reset_peak_rss() -> bool:
    """Start a new measurement of the peak; False where the system cannot, so that the peak is the whole process's."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None
