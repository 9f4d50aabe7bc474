"""Finding data files: order of places, checksums, downloads that leave nothing half-written, and what errors advise."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparsepriors.data.find import Source, find_file

CONTENT = b"measurements" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server on the loopback interface that holds one file, and another that breaks off in the middle."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/missing":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT if self.path == "/whole" else CONTENT[:100])

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test output quiet."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_places_are_tried_in_order(tmp_path: Path) -> None:
    mine, cache = tmp_path / "mine", tmp_path / "cache"
    for folder in (mine, cache):
        folder.mkdir()
        (folder / "astronaut.png").write_bytes(b"x")
    packaged = Source("astronaut.png", package="skimage", path="data/astronaut.png", pip="scikit-image")
    assert find_file(packaged, data_dir=mine, cache_dir=cache).parent == mine
    assert find_file(packaged, cache_dir=cache).parts[-3:] == ("skimage", "data", "astronaut.png")
    assert find_file(Source("astronaut.png"), cache_dir=cache).parent == cache


def test_a_system_package_comes_before_pip_and_its_file_may_be_packed_anew(tmp_path: Path) -> None:
    (tmp_path / "packed").write_bytes(b"x")
    source = Source("astronaut.png", package="skimage", path="data/astronaut.png", sha256=SHA256, apt="astronauts",
                    system=str(tmp_path / "packed"))
    assert find_file(source) == tmp_path / "packed"
    (tmp_path / "astronaut.png").write_bytes(CONTENT)
    assert find_file(source, data_dir=tmp_path) == tmp_path / "astronaut.png"
    (tmp_path / "packed").unlink()
    with pytest.raises(ValueError, match="astronaut.png is not the expected"):
        find_file(source)
    nowhere = Source("a.bin", apt="astronauts", system=str(tmp_path / "packed"))
    with pytest.raises(FileNotFoundError, match="apt install astronauts"):
        find_file(nowhere, cache_dir=tmp_path)


def test_a_missing_file_is_told_with_what_to_do(tmp_path: Path) -> None:
    source = Source("scan.nii", package="no_such_package", path="scan.nii", pip="no-such-package",
                    url="https://example.org/scan.nii", sha256=SHA256)
    with pytest.raises(FileNotFoundError, match=r"pip install no-such-package, or allow the download of "
                                                r"https://example.org/scan.nii .*data directory"):
        find_file(source, data_dir=tmp_path, cache_dir=tmp_path)
    inside = Source("scan.nii", package="no_such_package.scans", path="scan.nii", pip="no-such-package")
    with pytest.raises(FileNotFoundError, match="pip install no-such-package"):
        find_file(inside, data_dir=tmp_path, cache_dir=tmp_path)


def test_a_file_with_another_checksum_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match=r"a.bin is not the expected a.bin: its SHA-256 is"):
        find_file(Source("a.bin", sha256=SHA256), data_dir=tmp_path)


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_download_only_when_asked_and_once(url: str, tmp_path: Path) -> None:
    source = Source("a.bin", url=f"{url}/whole", sha256=SHA256)
    with pytest.raises(FileNotFoundError, match="download=True"):
        find_file(source, cache_dir=tmp_path)
    found = find_file(source, cache_dir=tmp_path, download=True)
    assert found.read_bytes() == CONTENT
    assert find_file(source, cache_dir=tmp_path) == found
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.parametrize(("page", "error", "message"), [("missing", ConnectionError, "404"),
                                                        ("short", (ConnectionError, ValueError), "short")])
def test_a_failed_download_leaves_nothing(url: str, page: str, error: type[Exception], message: str,
                                          tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        find_file(Source("a.bin", url=f"{url}/{page}", sha256=SHA256), cache_dir=tmp_path, download=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_a_download_with_another_checksum_leaves_nothing(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"/whole is not the expected a.bin"):
        find_file(Source("a.bin", url=f"{url}/whole", sha256="0" * 64), cache_dir=tmp_path, download=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_no_network_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    source = Source("a.bin", url="http://127.0.0.1:9/a.bin", sha256=SHA256)
    with pytest.raises(ConnectionError, match=r"fetch a.bin by other means"):
        find_file(source, cache_dir=tmp_path, download=True)


@pytest.mark.public_door
@pytest.mark.parametrize(("fields", "message"), [
    ({"filename": "../a"}, "bare file name"),
    ({"filename": ".."}, "bare file name"),
    ({"filename": "a", "package": "p"}, "go together"),
    ({"filename": "a", "package": "p", "path": "../a"}, "inside the package"),
    ({"filename": "a", "package": "p", "path": "/a"}, "inside the package"),
    ({"filename": "a", "url": "file:///etc/passwd", "sha256": SHA256}, "https://"),
    ({"filename": "a", "url": "https://example.org/a"}, "sha256 must be given"),
    ({"filename": "a", "system": "/a"}, "system and apt go together"),
    ({"filename": "a", "system": "a", "apt": "b"}, "absolute path"),
    ({"filename": "a", "sha256": "abc"}, "64 lower-case"),
])
def test_bad_sources_are_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Source(**fields)


def test_a_source_is_described() -> None:
    source = Source("a.bin", url="https://example.org/a.bin", sha256=SHA256)
    assert Source.from_dict(source.to_dict()) == source
