"""The slow tier of a store of keys and values: rows in RAM, or in a memory-mapped file."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path

import torch
from torch import Tensor

KINDS = ("ram", "disk")
"""Kinds of slow memory."""


class SlowMemory:
    """Rows in RAM or in a memory-mapped file, twice as long whenever it is full.

    Parameters
    ----------
    width, dtype
        Entries of a row and their type.
    kind
        ``"ram"`` or ``"disk"``.
    folder
        Where the file is made, by default the system's place for temporary files; it goes with the object.
    pinned
        Whether rows in RAM are pinned, for a GPU.
    """

    def __init__(self, width: int, dtype: torch.dtype, kind: str, folder: str | Path | None, *, pinned: bool) -> None:
        self.row_bytes, self.used = width * dtype.itemsize, 0
        self._width, self._dtype, self._pinned, self._generation = width, dtype, pinned, 0
        self._place: Path | None = None
        if kind == "disk":
            self._place = Path(tempfile.mkdtemp(prefix="sparsepriors-kv-", dir=folder))
            weakref.finalize(self, shutil.rmtree, self._place, True)
        self._rows = torch.empty(0, width, dtype=dtype)
        self._free: list[int] = []

    def write(self, rows: Tensor) -> Tensor:
        """Store rows; their slots."""
        if len(rows) > len(self._free):
            self._longer(len(rows) - len(self._free))
        slots = torch.tensor([self._free.pop() for _ in range(len(rows))], dtype=torch.long)
        self._rows[slots] = rows.to("cpu")
        self.used += len(rows)
        return slots

    def read(self, slots: Tensor, device: torch.device) -> Tensor:
        """Rows of these slots on a device."""
        return self._rows[slots.cpu()].to(device, non_blocking=True)

    def release(self, slots: Tensor) -> None:
        """Give slots back."""
        self._free += slots.tolist()
        self.used -= len(slots)

    def _longer(self, short: int) -> None:
        have = len(self._rows)
        size = max(have + short, 2 * have)
        if self._place is None:
            rows = torch.empty(size, self._width, dtype=self._dtype, pin_memory=self._pinned)
            rows[:have] = self._rows
        else:
            before = self._place / str(self._generation)
            self._generation += 1
            rows = torch.from_file(str(self._place / str(self._generation)), shared=True, size=size * self._width,
                                   dtype=self._dtype).reshape(size, self._width)
            rows[:have] = self._rows
            before.unlink(missing_ok=True)   # its pages live until the old map is let go
        self._rows = rows
        self._free += range(size - 1, have - 1, -1)
