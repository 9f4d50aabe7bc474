"""What packed formats have in common: tensors and a few plain fields, counted, moved and kept in one file."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from sparsepriors import _files

_FORMAT = "packed"


class Packed:
    """Base of frozen dataclasses that hold packed data: fields are tensors, or have a JSON form.

    A compiled kernel follows the indices of a format without looking. So a subclass checks in ``__post_init__`` all
    that its kernels trust (shapes, dtypes, every index within bounds) and raises `ValueError`; a damaged file is then
    refused like any other bad argument.
    """

    _formats: ClassVar[dict[str, type[Packed]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        taken = Packed._formats.get(cls.__name__)
        if taken is not None and taken.__module__ != cls.__module__:
            raise TypeError(f"{cls.__module__}.{cls.__name__} needs another name: files say {cls.__name__!r} for "
                            f"{taken.__module__}.{cls.__name__}")
        Packed._formats[cls.__name__] = cls

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors: values, indices and whatever else is held."""
        return sum(t.nbytes for t in self._split()[0].values())

    def to(self, device: torch.device | str) -> Self:
        """The same data on another device."""
        tensors, plain = self._split()
        return type(self)(**{name: t.to(device) for name, t in tensors.items()}, **plain)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file, whole or not at all; `load` reads it."""
        tensors, plain = self._split()
        _files.write_tensors(path, tensors, {_FORMAT: json.dumps({"format": type(self).__name__, "fields": plain})})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; called on `Packed` itself it takes any format.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged, holds another format than this class, or its tensors do not fit together.
        """
        tensors, metadata = _files.read_described_tensors(path)
        try:
            header = _files.parse_json(metadata[_FORMAT])
            name, plain = header["format"], dict(header["fields"])
        except (KeyError, TypeError, ValueError, RecursionError) as e:
            raise ValueError(f"{path} is not a file of packed data: {e}") from e
        found = Packed._formats.get(name) if isinstance(name, str) else None
        if found is None or not issubclass(found, cls):
            raise ValueError(f"{path} holds the format {name!r}, expected {cls.__name__}")
        try:
            return found(**tensors, **plain)  # pyright: ignore[reportReturnType]
        except (TypeError, ValueError) as e:
            raise ValueError(f"{path} is not a readable {name}: {e}") from e

    def _split(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        values = {f.name: getattr(self, f.name)
                  for f in dataclasses.fields(self) if f.init}  # pyright: ignore[reportArgumentType]
        tensors = {name: v for name, v in values.items() if isinstance(v, Tensor)}
        return tensors, {name: v for name, v in values.items() if name not in tensors}
