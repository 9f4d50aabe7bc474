"""``doctor``: what works here, and the command that makes the rest work."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import asdict
from importlib import metadata
from typing import Any

import torch
from rich.markup import escape
from rich.table import Table

import sparsepriors
from sparsepriors import kernels
from sparsepriors.cli import _door
from sparsepriors.runs.machine import machine

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)\s*(?P<version>[^;\[]*)"
                          r"(?:;.*extra\s*==\s*['\"](?P<extra>[\w-]+)['\"])?")
_NOT_ROOMS = {"dev", "docs", "peers"}


def doctor(*, as_json: bool) -> None:
    """Print the report."""
    found = examine()
    if as_json:
        _door.print_json(found)
        return
    console = _door.out()
    here = found["machine"]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in (
        ("sparsepriors", found["sparsepriors"]),
        ("python", f"{here['python']} ({found['executable']})"),
        ("torch", here["torch"]),
        ("cpu", f"{here['cpu']}, {here['cores']} cores, {here['instruction_set']}"),
        ("threads", f"{found['threads']['intra_op']} in an operation, {found['threads']['inter_op']} between them"),
        ("gpu", here["gpu"] or f"none: {found['gpu_reason']}"),
        ("kernels", _kernels(found["kernels"])),
    ):
        table.add_row(name, escape(str(value)))
    console.print(table)
    console.print()
    for room in found["rooms"]:
        if room["usable"]:
            console.print(f"[green]usable[/]   {room['room']}")
        else:
            console.print(f"[yellow]missing[/]  {room['room']}: {', '.join(room['missing'])}")
            console.print(f"         [cyan]{escape(room['get'])}[/]", soft_wrap=True)


def examine() -> dict[str, Any]:
    """The report as plain data."""
    return {
        "sparsepriors": sparsepriors.__version__,
        "executable": sys.executable,
        "machine": machine(),
        "threads": {"intra_op": torch.get_num_threads(), "inter_op": torch.get_num_interop_threads(),
                    "omp_num_threads": os.environ.get("OMP_NUM_THREADS")},
        "gpu_reason": _gpu_reason(),
        "kernels": asdict(kernels.info()),
        "rooms": rooms(metadata.requires("sparsepriors") or []),
    }


def rooms(requirements: list[str]) -> list[dict[str, Any]]:
    """Which optional rooms have what they need, from the package's own metadata."""
    needs: dict[str, list[str]] = {}
    for line in requirements:
        found = _REQUIREMENT.match(line)
        if found and found["extra"] and found["extra"] not in _NOT_ROOMS:
            needs.setdefault(found["extra"], [])
            lack = _lack(found["name"], found["version"].strip())
            if lack:
                needs[found["extra"]].append(lack)
    found = [{"room": room, "usable": not missing, "missing": missing,
              "get": f"{sys.executable} -m pip install 'sparsepriors[{room}]'"} for room, missing in needs.items()]
    why_no_gpu = _gpu_reason()
    for room in found:
        if room["room"] == "gpu" and room["usable"] and why_no_gpu:
            room |= {"usable": False, "missing": ["a GPU"], "get": why_no_gpu}
    return found


def _kernels(found: dict[str, Any]) -> str:
    """Which body each kernel has here, and why it is not the fast one."""
    bodies: dict[str, list[str]] = {}
    for name, body in found["kernels"].items():
        bodies.setdefault(body, []).append(name)
    text = "; ".join(f"{body}: {', '.join(names)}" for body, names in bodies.items())
    return text if found["native"] else f"{text} ({found['why_not']})"


def _lack(name: str, wanted: str) -> str:
    """What is wrong with a distribution, or nothing."""
    try:
        here = metadata.version(name)
    except metadata.PackageNotFoundError:
        return name
    least = re.search(r">=\s*([\d.]+)", wanted)
    exact = re.search(r"==\s*([\w.]+)", wanted)
    if (least and _numbers(here) < _numbers(least[1])) or (exact and here != exact[1]):
        return f"{name} {wanted} (here {here})"
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:3])


def _gpu_reason() -> str | None:
    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return "this torch was built without CUDA"
    return f"torch was built for CUDA {torch.version.cuda} but finds no usable device"
