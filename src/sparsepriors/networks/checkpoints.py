"""Checkpoints: a tree of plain data and tensors in one safetensors file, read back to the same bits."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsepriors import _files

_FORMAT = "sparsepriors-checkpoint-1"


def save_checkpoint(path: str | os.PathLike[str], tree: Any) -> Path:
    """Write a tree of dicts, lists, tuples, numbers, strings, ``None`` and tensors atomically.

    The file holds either its old content or the whole new one, whenever the process dies.

    Raises
    ------
    TypeError
        If a leaf is something else.
    """
    tensors: dict[str, Tensor] = {}
    plain = _pack(tree, tensors, "state")
    return _files.write_tensors(path, tensors, {"format": _FORMAT, "tree": json.dumps(plain, allow_nan=False)})


def load_checkpoint(path: str | os.PathLike[str]) -> Any:
    """Read what `save_checkpoint` wrote; tensors come back on the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or is no checkpoint.
    """
    tensors, metadata = _files.read_described_tensors(path)
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"{path} is not a checkpoint of this library (format {metadata.get('format')!r}, "
                         f"expected {_FORMAT!r})")
    try:
        return _unpack(_files.parse_json(metadata["tree"]), tensors)
    except (KeyError, TypeError, ValueError, IndexError, RecursionError) as e:
        raise ValueError(f"{path} is a damaged checkpoint: {e!r}") from e


def _pack(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    """JSON data in which every container and tensor is a one-key object that names its kind."""
    if isinstance(value, Tensor):
        name = f"{len(tensors):06d}"
        tensors[name] = value.detach().to("cpu", copy=True)  # tied tensors would share memory, which the format refuses
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[_pack(k, tensors, where), _pack(v, tensors, f"{where}[{k!r}]")] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_pack(v, tensors, f"{where}[{i}]") for i, v in enumerate(value)]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{where} holds a {type(value).__name__}; a checkpoint keeps plain data and tensors")


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    (kind, inner), = value.items()
    match kind:
        case "tensor":
            return tensors[inner]
        case "dict":
            return {_unpack(k, tensors): _unpack(v, tensors) for k, v in inner}
        case "list":
            return [_unpack(v, tensors) for v in inner]
        case "tuple":
            return tuple(_unpack(v, tensors) for v in inner)
        case "float":
            return float(inner)
        case _:
            raise ValueError(f"unknown kind {kind!r}")


def rng_state(generator: torch.Generator) -> dict[str, Any]:
    """States of a generator and of torch's own ones, which layers such as dropout draw from."""
    devices = range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
    cuda = [torch.cuda.get_rng_state(i) for i in devices]
    return {"generator": generator.get_state(), "cpu": torch.get_rng_state(), "cuda": cuda}


def set_rng_state(generator: torch.Generator, state: dict[str, Any]) -> None:
    """Put back what `rng_state` took."""
    generator.set_state(state["generator"])
    torch.set_rng_state(state["cpu"])
    for i, s in enumerate(state["cuda"]):
        torch.cuda.set_rng_state(s, i)
