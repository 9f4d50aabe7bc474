"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

_LARGEST_JSON = 2**28   # bytes; far more than anything here writes


def write_atomic(path: str | os.PathLike[str], write: Callable[[Path], None]) -> Path:
    """Let ``write`` fill a temporary file next to ``path``, then rename it into place.

    Whatever happens, ``path`` holds either its old content or the whole new one, and no temporary file stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        write(part)
        with open(part, "rb") as f:
            os.fsync(f.fileno())
        os.replace(part, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
    return path


@contextlib.contextmanager
def held(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Keep a folder, made if it is not there, from other processes that ask for it here, whatever ends this one.

    On systems and file systems without locks nothing is held.

    Raises
    ------
    BlockingIOError
        If somebody else holds it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise BlockingIOError(e.errno, "another process is at work in it", str(folder)) from e
        except OSError:  # the file system has no locks, as some of networks have none
            pass
        yield
    finally:
        os.close(handle)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write bytes atomically."""
    return write_atomic(path, lambda p: _dump(p, data))


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write UTF-8 text atomically."""
    return write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], data: Any) -> Path:
    """Write strict JSON (no NaN) atomically, keys in the order given."""
    return write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a strict JSON file (no NaN, no key twice); a damaged one raises `ValueError` with its name."""
    if (size := os.stat(path).st_size) > _LARGEST_JSON:
        raise ValueError(f"{path} is not a readable JSON file: it has {size} bytes, more than {_LARGEST_JSON}")
    try:
        return parse_json(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{path} is not a readable JSON file: {e}") from e


def parse_json(text: str | bytes) -> Any:
    """Strict JSON; `ValueError` or `RecursionError` if it is damaged."""
    return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_once_each)


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor],
                  metadata: Mapping[str, str] | None = None) -> Path:
    """Write tensors atomically as safetensors."""
    data = safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, dict(metadata or {}))
    return write_bytes(path, data)


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a safetensors file; a damaged one raises `ValueError` with its name."""
    return read_described_tensors(path)[0]


def read_described_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors of a safetensors file and the strings in its header, both from one opening of it.

    Raises
    ------
    ValueError
        If the file is damaged; with its name.
    """
    try:
        check_header(path)
        with safetensors.safe_open(str(path), framework="pt") as f:
            return {name: f.get_tensor(name) for name in f.keys()}, dict(f.metadata() or {})  # noqa: SIM118
    except safetensors.SafetensorError as e:
        raise ValueError(f"{path} is not a readable safetensors file: {e}") from e


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} is given twice")
    return found


def check_header(path: str | os.PathLike[str]) -> None:
    """Refuse a header that names a tensor twice; which of them counts is not for the reader to guess."""
    with open(path, "rb") as f:
        length = int.from_bytes(f.read(8), "little")
        header = f.read(min(length, os.fstat(f.fileno()).st_size))
    if length == len(header) > 0:  # the library says what is wrong with any other
        try:
            parse_json(header)
        except (ValueError, RecursionError) as e:
            raise safetensors.SafetensorError(f"invalid header: {e}") from e


def _dump(path: Path, data: bytes) -> None:
    with open(path, "wb") as f:
        f.write(data)
