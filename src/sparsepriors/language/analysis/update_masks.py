"""The set of entries that a training changed, kept as bits, and what comes of two of them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsepriors import _checks, _files
from sparsepriors.priors.patterns import pack_mask, unpack_mask

_FORMAT = "sparsepriors-update-mask-1"


class UpdateMask:
    """Entries by tensor name, True where a weight changed; eight entries take a byte.

    Made by `update_mask` or `from_masks`; ``mask["name"]`` unpacks one tensor. Two masks are equal if they name the
    same entries.

    Parameters
    ----------
    bits, shapes
        For each tensor, what `sparsepriors.priors.patterns.pack_mask` makes of its mask, and its shape.

    Raises
    ------
    ValueError
        If the bits of a tensor do not fit its shape, or there is none.
    """

    def __init__(self, bits: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
        if not bits or set(bits) != set(shapes):
            raise ValueError(f"bits and shapes must name the same tensors, at least one, got {len(bits)} and "
                             f"{len(shapes)}")
        self._bits = dict(bits)
        self.shapes = {name: _checks.shape(f"shapes[{name!r}]", shapes[name]) for name in bits}
        self._counts = {name: int(torch.count_nonzero(self[name])) for name in self._bits}

    @classmethod
    def from_masks(cls, masks: Mapping[str, Tensor]) -> UpdateMask:
        """Pack boolean masks.

        Raises
        ------
        TypeError, ValueError
            If one is not boolean, or there is none.
        """
        for name, mask in masks.items():
            _checks.boolean(name, mask)
        return cls({n: pack_mask(m) for n, m in masks.items()}, {n: tuple(m.shape) for n, m in masks.items()})

    def __getitem__(self, name: str) -> Tensor:
        return unpack_mask(self._bits[name], self.shapes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._bits)

    def __contains__(self, name: object) -> bool:
        return name in self._bits

    def __len__(self) -> int:
        return len(self._bits)

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, UpdateMask) and self.shapes == other.shapes
                and all(torch.equal(self._bits[name], other._bits[name]) for name in self))

    def __hash__(self) -> int:
        return hash((frozenset(self.shapes.items()), self.count))

    def counts(self) -> dict[str, int]:
        """Changed entries of each tensor."""
        return dict(self._counts)

    @property
    def numel(self) -> int:
        """Entries, changed or not."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def count(self) -> int:
        """Entries that changed."""
        return sum(self._counts.values())

    @property
    def density(self) -> float:
        """Share of entries that changed."""
        return self.count / self.numel

    def shuffled(self, generator: torch.Generator) -> UpdateMask:
        """As many entries of each tensor, at random places."""
        masks = {}
        for name, shape in self.shapes.items():
            flat = torch.zeros(math.prod(shape), dtype=torch.bool)
            flat[torch.randperm(flat.numel(), generator=generator)[:self._counts[name]]] = True
            masks[name] = flat.reshape(shape)
        return UpdateMask.from_masks(masks)

    def fits(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The parameters of a model that this is a mask of, by name.

        Raises
        ------
        ValueError
            If the model lacks one of the tensors or has it in another shape, or nothing changed.
        """
        parameters = dict(model.named_parameters())
        lacking = [name for name in self if name not in parameters]
        if lacking:
            raise ValueError(f"the mask is of another model: {len(lacking)} of its tensors are no parameter of "
                             f"{type(model).__name__}, such as {lacking[0]!r}")
        for name, shape in self.shapes.items():
            if tuple(parameters[name].shape) != shape:
                raise ValueError(f"the mask is of another model: {name} has shape {tuple(parameters[name].shape)}, its "
                                 f"mask {shape}")
        if not self.count:
            raise ValueError("the mask is empty: nothing would be trained")
        return {name: parameters[name] for name in self}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a safetensors file atomically."""
        shapes = json.dumps({name: list(shape) for name, shape in self.shapes.items()})
        return _files.write_tensors(path, self._bits, {"format": _FORMAT, "shapes": shapes})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> UpdateMask:
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is damaged or no update mask.
        """
        bits, metadata = _files.read_described_tensors(path)
        if metadata.get("format") != _FORMAT:
            raise ValueError(f"{path} is no update mask (format {metadata.get('format')!r}, expected {_FORMAT!r})")
        try:
            shapes: Any = _files.parse_json(metadata["shapes"])
            return cls(bits, {name: tuple(shape) for name, shape in shapes.items()})
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as e:
            raise ValueError(f"{path} is a damaged update mask: {e}") from e
