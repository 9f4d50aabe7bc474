"""Named arrays from the files that laboratories exchange: ``.npz``, ``.mat`` (all versions) and ``.safetensors``.

Nothing in a file is run or unpickled: arrays of Python objects are refused, and the sizes that a header states are
compared with the size of the file before anything is allocated.
"""

from __future__ import annotations

import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparsepriors import _files

_LARGEST = 16 * 2**30   # bytes; a compressed file may claim anything
_HDF5 = b"\x89HDF\r\n\x1a\n"


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
            found = {k: v.numpy() for k, v in _files.read_tensors(path).items()}
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


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {m.filename.removesuffix(".npy"): _read_npy(archive, m) for m in archive.infolist()
                    if m.filename.endswith(".npy")}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, SyntaxError,
            struct.error, TypeError, ValueError, KeyError, OverflowError) as e:
        raise ValueError(f"{path} is not a readable .npz file: {e}") from e


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
        if any(n < 0 for n in shape) or size > min(_LARGEST, member.file_size):
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
        for name, shape, _ in scipy.io.whosmat(str(path)):
            if math.prod(shape) > _LARGEST // 16:
                raise ValueError(f"{name} claims shape {shape}")
        content = scipy.io.loadmat(str(path))
    # SciPy's reader meets a damaged file with whatever its parsing happens to raise.
    except Exception as e:
        kind = "" if isinstance(e, MatReadError) else f"{type(e).__name__}: "
        raise ValueError(f"{path} is not a readable .mat file: {kind}{e}") from e
    return dict(_walk(content, ""))


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

    def visit(name: str, item: object) -> None:
        if not isinstance(item, h5py.Dataset) or name.startswith("#"):
            return
        if item.size * item.dtype.itemsize > _LARGEST:
            raise ValueError(f"{name} claims shape {item.shape}")
        if item.attrs.get("MATLAB_class", b"") in (b"char", "char") or "MATLAB_empty" in item.attrs:
            return
        value = item[()]
        if value.dtype.names == ("real", "imag"):
            value = value["real"] + 1j * value["imag"]
        # MATLAB stores columns first, HDF5 lists the slowest axis first.
        found[name.replace("/", ".")] = np.asarray(value).T

    try:
        with h5py.File(path, "r") as f:
            f.visititems(visit)
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as e:
        raise ValueError(f"{path} is not a readable HDF5 file: {e}") from e
    return found
