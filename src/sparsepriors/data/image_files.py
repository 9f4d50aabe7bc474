"""Readers of the files that image data sets come in: idx, CSV of digits, CIFAR's binary records.

None unpickles, and the sizes that a header states are compared with the size of the file before anything is read.
"""

from __future__ import annotations

import gzip
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
_DEFLATE = 1032   # no byte of a gzip file can become more
_SIDE = 32        # of a CIFAR picture


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
        if size > path.stat().st_size * (_DEFLATE if packed else 1):
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
        for i, line in enumerate(f):
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
    found = read_members(source, names, largest=10**9)
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
        with _readable(source, ".tar.gz archive"), tarfile.open(source, "r:gz") as archive:
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


@contextmanager
def _readable(path: Path, kind: str) -> Iterator[None]:
    """Say of any way in which reading a damaged file fails that this file is damaged."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, EOFError, zlib.error, tarfile.TarError, OverflowError, ValueError) as e:
        raise ValueError(f"{path} is not a readable {kind}: {e}") from e
