"""Named arrays from the files that laboratories exchange: ``.npz``, ``.mat`` (all versions) and ``.safetensors``.

Nothing in a file is run or unpickled: arrays of Python objects are refused, and the sizes that a header states are
compared with the size of the file before anything is allocated.
"""

from __future__ import annotations

import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsepriors import _files

_SMALL, _GROWTH = 2**26, 200   # bytes that any file may become, and what deflating measurements saves at most
_HDF5 = b"\x89HDF\r\n\x1a\n"
_MI_COMPRESSED = 15   # of MATLAB's version 5 format


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read every numeric array of a file, by name.

    MATLAB structures give dotted names, ``Radar.Tx.X``; one-element axes are kept as MATLAB stores them, and arrays of
    version 7.3 files (HDF5) have their axes in MATLAB's order. Text and empty structures are left out.

    Parameters
    ----------
    path
        A ``.npz``, ``.mat`` or ``.safetensors`` file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is of another kind or damaged, or holds Python objects or MATLAB cells.
    ImportError
        If the file is HDF5 and h5py is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    match path.suffix.lower():
        case ".npz":
            found = _read_npz(path)
        case ".safetensors":
            found = {k: _from_torch(path, k, v) for k, v in _files.read_tensors(path).items()}
        case ".mat" | ".h5" | ".hdf5":
            with open(path, "rb") as f:
                # MATLAB puts 512 bytes of its own before the HDF5 signature.
                head = f.read(520)
            found = _read_hdf5(path) if _HDF5 in (head[:8], head[512:520]) else _read_matlab(path)
        case other:
            raise ValueError(f"{path.name} must be a .npz, .mat or .safetensors file, got {other or 'no suffix'!r}")
    for name, value in found.items():
        if value.dtype.hasobject or value.dtype.kind == "V":
            raise ValueError(f"{path.name}: {name} holds objects or records ({value.dtype}), expected numbers")
    return {k: v for k, v in found.items() if v.dtype.kind in "biufc"}


def _most(path: Path) -> int:
    """Bytes that the arrays of a compressed file may have."""
    return max(_SMALL, _GROWTH * path.stat().st_size)


def _from_torch(path: Path, name: str, value: Tensor) -> np.ndarray:
    try:
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    except TypeError as e:
        raise ValueError(f"{path.name}: {name} has the type {value.dtype}, which NumPy lacks") from e


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
            _check_members(members, _most(path))
            return {m.filename.removesuffix(".npy"): _read_npy(archive, m) for m in members}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, SyntaxError,
            struct.error, tokenize.TokenError, TypeError, ValueError, KeyError, OverflowError, MemoryError) as e:
        raise ValueError(f"{path} is not a readable .npz file: {e}") from e


def _check_members(members: Sequence[zipfile.ZipInfo], most: int) -> None:
    names = [m.filename for m in members]
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
            raise ValueError(f"{name!r} is not the name of an array")
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is given twice")
    if sum(m.file_size for m in members) > most:
        raise ValueError(f"its arrays claim {sum(m.file_size for m in members)} bytes, at most {most} are read from a "
                         f"file of this size")


def _read_npy(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as f:
        version = np.lib.format.read_magic(f)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read_header:
            raise ValueError(f"{member.filename} has the unknown format version {version}")
        shape, fortran, dtype = read_header[version](f)
        if dtype.hasobject:
            raise ValueError(f"{member.filename} holds Python objects, expected numbers")
        size = math.prod(shape) * dtype.itemsize
        if any(n < 0 for n in shape) or size > member.file_size:
            raise ValueError(f"{member.filename} claims shape {shape}, which does not fit its "
                             f"{member.file_size} bytes")
        data = f.read(size)
        if len(data) != size:
            raise ValueError(f"{member.filename} is cut short")
    values = np.frombuffer(data, dtype=dtype)
    return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)


def _read_matlab(path: Path) -> dict[str, np.ndarray]:
    import scipy.io
    from scipy.io.matlab import MatReadError

    try:
        _check_expanded(path)
        for name, shape, _ in scipy.io.whosmat(str(path)):
            if math.prod(shape) > _most(path):
                raise ValueError(f"{name} claims shape {shape}")
        content = scipy.io.loadmat(str(path))
    # SciPy's reader meets a damaged file with whatever its parsing happens to raise.
    except Exception as e:
        kind = "" if isinstance(e, MatReadError) else f"{type(e).__name__}: "
        raise ValueError(f"{path} is not a readable .mat file: {kind}{e}") from e
    return dict(_walk(content, ""))


def _check_expanded(path: Path) -> None:
    """Refuse a version 5 file whose compressed variables would become too large, before SciPy expands them."""
    left = _most(path)
    with open(path, "rb") as f:
        order = {b"IM": "<", b"MI": ">"}.get(f.read(128)[126:128])
        while order is not None and len(tag := f.read(8)) == 8:
            kind, length = struct.unpack(f"{order}II", tag)
            if kind != _MI_COMPRESSED:
                f.seek(length, os.SEEK_CUR)
                continue
            packed, unpack = f.read(length), zlib.decompressobj()
            while packed:
                left -= len(unpack.decompress(packed, _SMALL))
                packed = unpack.unconsumed_tail
                if left < 0:
                    raise ValueError(f"its variables need more than {_most(path)} bytes, the most that are read from "
                                     f"a file of this size")


def _walk(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    for key, value in node.items():
        if key.startswith("__"):
            continue
        value = np.asarray(value)
        if value.dtype.names and value.size == 1:
            yield from _walk({k: value[k].item() for k in value.dtype.names}, f"{prefix}{key}.")
        elif not value.dtype.names or value.size:
            yield f"{prefix}{key}", value


def _read_hdf5(path: Path) -> dict[str, np.ndarray]:
    try:
        import h5py
    except ImportError as e:
        raise ImportError(f"{path} is a MATLAB 7.3 (HDF5) file; install h5py to read it "
                          f"(pip install 'sparsepriors[imaging]')") from e
    found: dict[str, np.ndarray] = {}

    left = _most(path)

    outside: list[str] = []

    def link(name: str, found: object) -> None:
        if isinstance(found, h5py.ExternalLink):
            outside.append(name)

    def visit(name: str, item: object) -> None:
        nonlocal left
        if not isinstance(item, h5py.Dataset) or name.startswith("#"):
            return
        if item.external or item.is_virtual:
            raise ValueError(f"{name} keeps its values in another file")
        left -= (item.size or 0) * item.dtype.itemsize
        if left < 0:
            raise ValueError(f"{name} claims shape {item.shape}, more than is read from a file of this size")
        if item.attrs.get("MATLAB_class", b"") in (b"char", "char") or "MATLAB_empty" in item.attrs:
            return
        value = item[()]
        if value.dtype.names == ("real", "imag"):
            value = value["real"] + 1j * value["imag"]
        # MATLAB stores columns first, HDF5 lists the slowest axis first.
        found[name.replace("/", ".")] = np.asarray(value).T

    try:
        with h5py.File(path, "r") as f:
            f.visititems_links(link)
            if outside:
                raise ValueError(f"{outside[0]} points into another file")
            f.visititems(visit)
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError) as e:
        raise ValueError(f"{path} is not a readable HDF5 file: {e}") from e
    return found
