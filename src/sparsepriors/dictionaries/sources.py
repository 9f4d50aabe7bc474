"""Where batches of signals come from: tensors, files that are mapped into memory, and whatever can be iterated."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.dictionaries.activations import ActivationShards
from sparsepriors.networks.batches import Shuffled
from sparsepriors.networks.train_loop import Batches

Source = Tensor | ActivationShards | str | os.PathLike[str] | Batches | Iterable[Any]
"""A tensor ``(N, ...)``, shards, a path of either, batches with a state, or an iterable of tensors ``(batch, ...)``."""


class ShardBatches:
    """Batches of rows of shards, in a new random order every epoch."""

    def __init__(self, shards: ActivationShards, batch_size: int) -> None:
        self._shards = shards
        self._rows = Shuffled(torch.arange(len(shards)), batch_size=batch_size)

    def next(self, generator: torch.Generator) -> Tensor:
        """The next ``batch_size`` rows."""
        return self._shards[self._rows.next(generator)[0]]

    def state_dict(self) -> dict[str, Any]:
        """The order of this epoch and the place in it."""
        return self._rows.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put them back."""
        self._rows.load_state_dict(state)


class Stream:
    """Batches from an iterable, begun again when it ends; an iterator must last for the whole training.

    To resume, as many batches as were used are passed over; the iterable must then give the same ones again.
    """

    def __init__(self, source: Iterable[Any]) -> None:
        self._source, self._again = source, not isinstance(source, Iterator)
        self._iterator = iter(source)
        self._used = 0

    def next(self, generator: torch.Generator) -> Tensor:
        """The next batch."""
        batch = self._advance()
        self._used += 1
        return batch[0] if isinstance(batch, (tuple, list)) else batch

    def state_dict(self) -> dict[str, Any]:
        """How many batches were used."""
        return {"used": self._used}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Pass over the batches that were used."""
        for _ in range(_checks.count("used", state["used"])):
            self.next(torch.Generator())

    def _advance(self) -> Any:
        batch = next(self._iterator, None)
        if batch is None and self._again:
            self._iterator = iter(self._source)
            batch = next(self._iterator, None)
        if batch is None:
            raise ValueError(f"source ended after {self._used} batches")
        return batch


def batches_of(source: Source, batch: int) -> Batches:
    """Batches from any source.

    Parameters
    ----------
    source
        A tensor ``(N, ...)``, `ActivationShards`, or the path of either (see `mapped`), whose rows are drawn in a new
        order every epoch; `Batches`, which are taken as they are; or an iterable of batches.
    batch
        Rows of a batch from a tensor or file.

    Raises
    ------
    TypeError, ValueError
        If the source is none of these, or has fewer rows than a batch.
    """
    if isinstance(source, (str, os.PathLike)):
        source = mapped(source)
    if isinstance(source, ActivationShards):
        return ShardBatches(source, _checks.count("batch", batch, low=1, high=len(source)))
    if isinstance(source, Tensor):
        if not source.is_floating_point() or source.ndim < 2:
            raise ValueError(f"source must be floating point with at least two axes, got {source.dtype} "
                             f"{tuple(source.shape)}")
        return Shuffled(source, batch_size=_checks.count("batch", batch, low=1, high=len(source)))
    if all(hasattr(source, name) for name in ("next", "state_dict", "load_state_dict")):
        return source  # pyright: ignore[reportReturnType]  it has the members of the protocol
    if isinstance(source, Iterable):
        return Stream(source)
    raise TypeError(f"source must be a tensor, a file, batches or an iterable of them, got {type(source).__name__}")


def mapped(path: str | os.PathLike[str]) -> Tensor | ActivationShards:
    """Rows on disk, whose pages are read when they are used.

    Parameters
    ----------
    path
        A ``.npy`` file, a ``.safetensors`` file with one tensor or one that is called ``activations``, or a folder of
        shards.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or of another kind.
    """
    path = Path(path)
    if path.is_dir():
        return ActivationShards(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.suffix == ".npy":
        with open(path, "rb") as f:
            # NumPy takes any other beginning for a pickle, and its message offers to load that.
            if f.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
                raise ValueError(f"{path} is not a readable array: it does not begin as a .npy file does")
        try:
            return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
        except (ValueError, TypeError, OSError) as e:
            raise ValueError(f"{path} is not a readable array: {e}") from e
    if path.suffix == ".safetensors":
        try:
            with safetensors.safe_open(str(path), framework="pt") as f:
                names = list(f.keys())
                if len(names) != 1 and "activations" not in names:
                    raise ValueError(f"{path} must hold one tensor or one called 'activations', got {names}")
                return f.get_tensor(names[0] if len(names) == 1 else "activations")
        except safetensors.SafetensorError as e:
            raise ValueError(f"{path} is not a readable safetensors file: {e}") from e
    raise ValueError(f"a file of signals must end in .npy or .safetensors, got {path.name}")
