"""Readers of the files that image data sets come in: idx, CSV of digits, CIFAR's binary records.

None unpickles, and what a file claims to hold is compared with its size before it is read or expanded.
"""

from __future__ import annotations

import gzip
import io
import math
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

_UBYTE = 0x08     # the only element type of image data sets
_SIDE = 32        # of a CIFAR picture
_SMALL, _GROWTH = 2**26, 200   # bytes that any file may expand to, and what compressing pictures saves at most


def read_idx(path: Path, axes: int) -> UInt8[Tensor, "..."]:
    """Read an idx file of bytes, raw or gzipped.

    Parameters
    ----------
    path
        The file; it counts as gzipped if its name ends in ``.gz``.
    axes
        How many axes it must have: 1 for labels, 3 for grey images.

    Raises
    ------
    ValueError
        If it is damaged, cut short or of another kind.
    """
    packed = path.suffix == ".gz"
    with _readable(path, "idx file"), (gzip.open(path) if packed else open(path, "rb")) as f:
        head = f.read(4 + 4 * axes)
        if head[:4] != bytes((0, 0, _UBYTE, axes)) or len(head) < 4 + 4 * axes:
            raise ValueError(f"it must begin with 0 0 8 {axes}, got {' '.join(map(str, head[:4]))}")
        shape = np.frombuffer(head, ">u4", offset=4).tolist()
        size = math.prod(shape)
        if size == 0:
            raise ValueError(f"it claims the empty shape {tuple(shape)}")
        if size > (_most(path) if packed else path.stat().st_size):
            raise ValueError(f"it claims shape {tuple(shape)}, more than its {path.stat().st_size} bytes can hold")
        data = f.read(size + 1)
    if len(data) != size:
        raise ValueError(f"{path} is not a readable idx file: shape {tuple(shape)} needs {size} bytes, "
                         f"it has {'more' if len(data) > size else len(data)}")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(shape)


def read_digit_table(path: Path, side: int, largest: int) -> tuple[UInt8[Tensor, "n 1 side side"],
                                                                   Int64[Tensor, " n"]]:
    """Read a gzipped CSV file of square images, one a line with its label last; ``largest`` becomes 255.

    Raises
    ------
    ValueError
        If it is damaged, or a line has other numbers than these.
    """
    rows = []
    with _readable(path, "table of digits"), gzip.open(path) as f:
        text = f.read(_most(path) + 1)
        if len(text) > _most(path):
            raise ValueError(f"it expands to more than {_most(path)} bytes")
        for i, line in enumerate(text.splitlines()):
            row = np.array(list(map(int, line.split(b","))), dtype=np.int16)
            if len(row) != side * side + 1:
                raise ValueError(f"line {i + 1} must have {side * side + 1} numbers, got {len(row)}")
            rows.append(row)
    if not rows:
        raise ValueError(f"{path} is not a readable table of digits: it is empty")
    table = torch.from_numpy(np.stack(rows))
    pixels, labels = table[:, :-1], table[:, -1]
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high > largest:
        raise ValueError(f"{path} is not a readable table of digits: its values must be from 0 to {largest}, "
                         f"got {low} to {high}")
    images = (pixels * (255 / largest)).round().to(torch.uint8).reshape(-1, 1, side, side)
    return images, labels.to(torch.int64)


def read_cifar(source: Path, names: Sequence[str], labels: int) -> tuple[UInt8[Tensor, "n 3 32 32"],
                                                                         UInt8[Tensor, "n labels"]]:
    """Read binary records of CIFAR: ``labels`` bytes, then 3 x 32 x 32 bytes of colour planes.

    Parameters
    ----------
    source
        The folder of the files, or the ``.tar.gz`` archive, which is read without unpacking it.
    names
        The files, in order.
    labels
        Labels of each record: 1 in CIFAR-10, 2 (coarse, fine) in CIFAR-100.

    Raises
    ------
    ValueError
        If a file is missing from the source, damaged, or not a whole number of records.
    """
    record = labels + 3 * _SIDE * _SIDE
    found = read_members(source, names, largest=2 * 10**8)
    parts = []
    for name in names:
        data = found[name]
        if not data or len(data) % record:
            raise ValueError(f"{name} in {source} must be whole records of {record} bytes, got {len(data)} bytes")
        parts.append(torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(-1, record))
    whole = torch.cat(parts)
    return whole[:, labels:].reshape(-1, 3, _SIDE, _SIDE).contiguous(), whole[:, :labels].contiguous()


def read_members(source: Path, names: Iterable[str], *, largest: int) -> dict[str, bytes]:
    """Contents of files by their bare names, from a folder or from anywhere in a ``.tar.gz`` archive.

    Raises
    ------
    ValueError
        If one is missing or larger than ``largest`` bytes, or the archive is damaged.
    """
    wanted = set(names)
    found: dict[str, bytes] = {}
    if source.is_dir():
        for name in sorted(wanted):
            path = source / name
            if path.is_file() and path.stat().st_size <= largest:
                found[name] = path.read_bytes()
    else:
        with (_readable(source, ".tar.gz archive"), gzip.open(source) as packed,
              tarfile.open(fileobj=_AtMost(packed, _most(source)), mode="r|") as archive):
            for member in archive:
                name = PurePosixPath(member.name).name
                if name in wanted and member.isfile() and member.size <= largest:
                    content = archive.extractfile(member)
                    assert content is not None   # it is a file
                    found[name] = content.read()
    if wanted - set(found):
        raise ValueError(f"{source} must hold {', '.join(sorted(wanted))}, each of at most {largest} bytes; "
                         f"it lacks {', '.join(sorted(wanted - set(found)))}")
    return found


class _AtMost(io.RawIOBase):
    """A stream that refuses to give more than so many bytes."""

    def __init__(self, stream: gzip.GzipFile, most: int) -> None:
        self._stream, self._most, self._given = stream, most, 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._given += len(data)
        if self._given > self._most:
            raise ValueError(f"it expands to more than {self._most} bytes")
        return data


def _most(path: Path) -> int:
    """Bytes that a compressed file may expand to."""
    return max(_SMALL, _GROWTH * path.stat().st_size)


@contextmanager
def _readable(path: Path, kind: str) -> Iterator[None]:
    """Say of any way in which reading a damaged file fails that this file is damaged."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, EOFError, zlib.error, tarfile.TarError, OverflowError, ValueError) as e:
        raise ValueError(f"{path} is not a readable {kind}: {e}") from e
