"""Named tensors of a checkpoint, one at a time: safetensors files, folders of shards, state dicts, modules."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import safetensors
import torch
from torch import Tensor, nn

from sparsepriors import _files

Weights = Mapping[str, Tensor] | nn.Module | str | os.PathLike[str]
"""What `open_weights` takes."""

_INDEX = "*.safetensors.index.json"
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
           "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
           "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}


class NamedTensors(Protocol):
    """Tensors by name, of which sizes are known before anything is read."""

    def __iter__(self) -> Iterator[str]: ...

    def __contains__(self, name: object) -> bool: ...

    def __getitem__(self, name: str) -> Tensor: ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        ...

    def dtype(self, name: str) -> torch.dtype | None:
        """Type of a tensor's numbers; ``None`` if PyTorch has no such type."""
        ...


def open_weights(source: Weights) -> NamedTensors:
    """The tensors of a checkpoint, read one by one, so that a model need not fit into memory.

    Parameters
    ----------
    source
        A ``.safetensors`` file; a folder with one or several of them, where ``*.safetensors.index.json`` says which
        file holds what if there is one; a state dict; or a module, whose parameters and buffers are taken. Tensors that
        share their memory, such as tied embeddings, are there once, by their first name.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder, or the index names a file that is not there.
    ValueError
        If the folder holds no safetensors file, two files hold the same name, or a file is damaged.
    TypeError
        If it is something else.
    """
    if isinstance(source, nn.Module):
        return _InMemory(source.state_dict())
    if isinstance(source, Mapping):
        for name, value in source.items():
            if not isinstance(name, str) or not isinstance(value, Tensor):
                raise TypeError(f"a state dict must map names to tensors, got {name!r}: {type(value).__name__}")
        return _InMemory(source)
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"weights must be a path, a state dict or a module, got {type(source).__name__}")
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    if path.is_dir():
        return _folder(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} must be a .safetensors file or a folder of them; convert other formats first")
    return _Shards([path])


class _InMemory:
    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors: dict[str, Tensor] = {}
        seen: set[tuple[Any, ...]] = set()
        for name, value in tensors.items():
            place = (value.data_ptr(), value.dtype, value.shape, value.stride(), value.device)
            if value.is_meta or not value.numel() or place not in seen:
                self._tensors[name] = value.detach()
                seen.add(place)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype | None:
        return self._tensors[name].dtype


class _Shards:
    """Files of tensors; ``homes`` says which tensor is in which, where an index does.

    A file is opened anew for every tensor: as long as it is open, what was read of it counts as memory of the process.
    """

    def __init__(self, files: Sequence[Path], homes: Mapping[str, Path] | None = None) -> None:
        self._homes: dict[str, Path] = {}
        self._headers: dict[str, tuple[tuple[int, ...], torch.dtype | None]] = {}
        for path in files:
            file = _opened(path)
            for name in file.keys():  # noqa: SIM118 - an open safetensors file is no mapping
                if homes is not None and homes.get(name) != path:
                    continue
                if name in self._homes:
                    raise ValueError(f"{path.name} and {self._homes[name].name} both hold {name!r}")
                entry = file.get_slice(name)
                self._homes[name] = path
                self._headers[name] = tuple(entry.get_shape()), _DTYPES.get(entry.get_dtype())
        missing = [name for name in homes or () if name not in self._homes]
        if homes is not None and missing:
            raise ValueError(f"the index names {missing[0]!r}, which {homes[missing[0]].name} does not hold")

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __contains__(self, name: object) -> bool:
        return name in self._homes

    def __getitem__(self, name: str) -> Tensor:
        path = self._homes[name]
        try:
            return safetensors.safe_open(str(path), framework="pt").get_tensor(name)
        except (safetensors.SafetensorError, AttributeError) as e:   # the latter for types that PyTorch lacks
            raise ValueError(f"{path}: {name!r} cannot be read: {e}") from e

    def shape(self, name: str) -> tuple[int, ...]:
        return self._headers[name][0]

    def dtype(self, name: str) -> torch.dtype | None:
        return self._headers[name][1]


def _opened(path: Path) -> Any:
    try:
        _files.check_header(path)
        return safetensors.safe_open(str(path), framework="pt")
    except safetensors.SafetensorError as e:
        raise ValueError(f"{path} is not a readable safetensors file: {e}") from e


def _folder(path: Path) -> _Shards:
    indices, files = sorted(path.glob(_INDEX)), sorted(path.glob("*.safetensors"))
    if len(indices) > 1:
        raise ValueError(f"{path} holds {len(indices)} indices ({', '.join(i.name for i in indices)}); name one file")
    if not indices:
        if not files:
            raise ValueError(f"{path} holds no .safetensors file; convert other formats first")
        return _Shards(files)
    index = _files.read_json(indices[0])
    homes = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(homes, dict) or not homes or not all(isinstance(f, str) and Path(f).name == f
                                                          for f in homes.values()):
        raise ValueError(f"{indices[0]} must have a weight_map of tensor names to files beside it")
    for file in dict.fromkeys(homes.values()):
        if not (path / file).is_file():
            raise FileNotFoundError(f"{indices[0]} names {file}, which is not there")
    named = {name: path / file for name, file in homes.items()}
    return _Shards(list(dict.fromkeys(named.values())), named)
