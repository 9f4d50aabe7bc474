"""Reading the weight files of other projects: the one place where a `.pth` file is opened."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # the name of an error; nothing here unpickles

import torch
from torch import Tensor


def read_torch_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a PyTorch state dict, tensors only, onto the CPU.

    The file's pickle stream is interpreted by PyTorch's restricted loader (``weights_only=True``), which builds
    tensors and plain containers and calls nothing else; whatever is not a flat mapping of names to tensors is refused.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, asks for code to be run, or holds anything but named tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weight file at {path}")
    try:
        _check_members(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError, TypeError,
            KeyError, IndexError, AttributeError, UnicodeDecodeError) as e:
        raise ValueError(f"{path} is not a readable file of PyTorch tensors: {e}") from e
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} must hold a mapping of names to tensors, got {type(state).__name__}")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"{path} must hold a mapping of names to tensors, got {name!r}: {type(value).__name__}")
        if value.layout != torch.strided or value.nbytes > path.stat().st_size:
            raise ValueError(f"{path}: {name} claims shape {tuple(value.shape)} ({value.layout}), more than the file "
                             f"holds")
    return dict(state)


def _check_members(path: Path) -> None:
    """PyTorch stores arrays as they are; a member that would grow is not of its making."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED or member.file_size > path.stat().st_size:
                raise ValueError(f"{member.filename} claims {member.file_size} bytes, more than the file holds")
