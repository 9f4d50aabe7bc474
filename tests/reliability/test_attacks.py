"""Hostile files: every one is refused by an error that names it, at once and without the memory that it claims."""

import gzip
import hashlib
import io
import json
import pickle
import resource
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from sparsepriors import _files, papers
from sparsepriors._described import Described
from sparsepriors.data.arrays import read_arrays
from sparsepriors.data.imagenet import read_image
from sparsepriors.data.radar_files import read_measurement
from sparsepriors.data.scans import MNI152_T1, mni152
from sparsepriors.data.weights import read_torch_weights
from sparsepriors.gallery import write_report
from sparsepriors.networks.checkpoints import load_checkpoint
from sparsepriors.operators.base import LinearOperator
from sparsepriors.priors.base import Prior
from sparsepriors.priors.denoisers import Denoiser, UNet
from sparsepriors.runs import Run, Scale
from sparsepriors.runs.execute import execute, read_status
from sparsepriors.runs.pictures import small_picture
from sparsepriors.runs.results import collect, publish
from sparsepriors.runs.schema import read_results

TINY = papers.from_file(Path(__file__).parents[1] / "tiny_paper.py")
SECONDS, MEGABYTES = 2.0, 300.0   # that refusing a file may take; the largest of them claim terabytes


def refused(read: Callable[[Path], object], path: Path, message: str | None = None) -> None:
    """Read the file; it must be refused by name, soon, and without much memory."""
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        read(path)
    assert path.name in str(caught.value) or path.stem in str(caught.value)
    assert time.process_time() - began < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEGABYTES


def tensor_file(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file whose header claims what it likes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(**claims: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **claims}


TENSORS = {
    "header of four exabytes": tensor_file({}, length=2**62),
    "header longer than the file": tensor_file({}, length=90_000_000),
    "overlap": tensor_file({"a": entry(), "b": entry(data_offsets=[4, 12])}, bytes(12)),
    "hole": tensor_file({"a": entry(), "b": entry(data_offsets=[12, 20])}, bytes(20)),
    "bytes that nobody owns": tensor_file({"a": entry()}, bytes(80)),
    "shape that overflows": tensor_file({"a": entry(shape=[2**62, 8])}, bytes(8)),
    "shape larger than the data": tensor_file({"a": entry(shape=[1000])}, bytes(8)),
    "shape of terabytes": tensor_file({"a": entry(shape=[2**40], data_offsets=[0, 2**42])}),
    "negative shape": tensor_file({"a": entry(shape=[-2])}, bytes(8)),
    "negative offset": tensor_file({"a": entry(data_offsets=[-8, 0])}, bytes(8)),
    "end before the beginning": tensor_file({"a": entry(data_offsets=[8, 0])}, bytes(8)),
    "one name twice": tensor_file(b'{"a":%b,"a":%b}' % ((json.dumps(entry()).encode(),) * 2), bytes(8)),
    "unknown type": tensor_file({"a": entry(dtype="PICKLE")}, bytes(8)),
    "deep header": tensor_file(b"[" * 200_000),
    "no JSON": tensor_file(b"\xff\x00{}"),
    "NaN in the header": tensor_file(b'{"a": NaN}'),
    "empty": b"",
    "zeros": bytes(8),
}


@pytest.mark.parametrize("attack", TENSORS)
def test_tensors(tmp_path, attack):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(TENSORS[attack])
    for read in (_files.read_tensors, read_arrays, load_checkpoint, read_measurement):
        refused(read, path, r"bad\.safetensors is not a readable safetensors file")


@pytest.mark.parametrize("name", ["F8_E4M3", "F4"])
def test_numbers_that_numpy_lacks(tmp_path, name):
    path = tmp_path / "odd.safetensors"
    path.write_bytes(tensor_file({"a": entry(dtype=name, shape=[8 if name == "F8_E4M3" else 16])}, bytes(8)))
    refused(read_arrays, path, "which NumPy lacks")


CHECKPOINTS = {
    "deep": '{"list": [' * 5000 + "1" + "]}" * 5000, "cycle": '{"tensor": "self"}',
    "two kinds": '{"dict": [], "list": []}',
    "unknown kind": '{"call": "os.system"}', "unhashable key": '{"dict": [[{"list": []}, 1]]}',
    "tensor by list": '{"tensor": []}', "float": '{"float": "abc"}', "NaN": "NaN",
    "key twice": '{"list": [], "list": []}',
}


@pytest.mark.parametrize("attack", CHECKPOINTS)
def test_checkpoints(tmp_path, attack):
    path = _files.write_tensors(tmp_path / "c.safetensors", {"0": torch.zeros(1)},
                                {"format": "sparsepriors-checkpoint-1", "tree": CHECKPOINTS[attack]})
    refused(load_checkpoint, path, "damaged checkpoint")


def npy(shape: str, data: bytes = b"", descr: str = "'<f8'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def zipped(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def inflated(data: bytes, size: int) -> bytes:
    """The archive with the size of its one member overstated in the directory."""
    at = data.rindex(b"PK\x01\x02")
    return data[:at + 24] + struct.pack("<I", size) + data[at + 28:]


def objects() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, y=np.array([{"x": 1}], dtype=object))
    return buffer.getvalue()


GOOD_NPZ = zipped(("y.npy", npy("(4,)", bytes(32))))
ARCHIVES = {
    "bomb that is declared": inflated(zipped(("y.npy", npy("(500000000,)", bytes(32)))), 4_000_000_128),
    "bomb that explodes": zipped(("y.npy", npy(f"({2**24},)", bytes(2**27)))),  # 128 MiB of zeros in 130 kB
    "many small bombs": zipped(*((f"{i}.npy", npy(f"({2**21},)", bytes(2**24))) for i in range(5))),
    "shape of terabytes": zipped(("y.npy", npy("(10**12,)"))),
    "shape that is too large": zipped(("y.npy", npy("(1000000000000,)", bytes(80)))),
    "negative shape": zipped(("y.npy", npy("(-2, -5)", bytes(80)))),
    "shape that overflows": zipped(("y.npy", npy(f"({2**40}, {2**40})"))),
    "objects": objects(),
    "objects by header": zipped(("y.npy", npy("(1,)", bytes(8), "'|O'"))),
    "code in the header": zipped(("y.npy", npy("(1,)", bytes(8), "__import__('os').system('true')"))),
    "deep header": zipped(("y.npy", npy("(" * 9000))),
    "name that climbs": zipped(("../../etc/y.npy", npy("(1,)", bytes(8)))),
    "absolute name": zipped(("/etc/y.npy", npy("(1,)", bytes(8)))),
    "name for another system": zipped(("..\\y.npy", npy("(1,)", bytes(8)))),
    "truncated": GOOD_NPZ[:len(GOOD_NPZ) // 2],
    "no directory": GOOD_NPZ[:-30],
    "no archive": b"PK\x03\x04" + bytes(100),
}


@pytest.mark.filterwarnings("ignore:.*")  # an archive may also earn a warning of the standard library
@pytest.mark.parametrize("attack", ARCHIVES)
def test_archives(tmp_path, attack):
    path = tmp_path / "bad.npz"
    path.write_bytes(ARCHIVES[attack])
    refused(read_arrays, path)
    refused(read_measurement, path)
    assert list(tmp_path.iterdir()) == [path]  # nothing was unpacked


def test_a_name_given_twice_in_an_archive(tmp_path):
    path = tmp_path / "twice.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("y.npy", npy("(1,)", bytes(8)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("y.npy", npy("(1,)", b"\1" * 8))
    refused(read_arrays, path, "given twice")


def matlab(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, arrays, do_compression=True)
    return buffer.getvalue()


def claimed_matlab(rows: int, columns: int) -> bytes:
    """A version 5 file with one double matrix that claims a size and has no data."""
    flags = struct.pack("<II", 6, 8) + struct.pack("<II", 6, 0)
    size = struct.pack("<II", 5, 8) + struct.pack("<ii", rows, columns)
    body = flags + size + struct.pack("<HH4s", 1, 1, b"y") + struct.pack("<II", 9, 8) + bytes(8)
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    return head + struct.pack("<II", 14, len(body)) + body


GOOD_MAT = matlab(y=np.arange(1000.0))
MATLAB = {
    "truncated": GOOD_MAT[:200], "cut in the header": GOOD_MAT[:100], "empty": b"",
    "bomb": matlab(y=np.zeros(2**24)), "bomb in a structure": matlab(s={"y": np.zeros(2**24)}),
    "size of exabytes": claimed_matlab(2**31 - 1, 2**31 - 1), "size without data": claimed_matlab(2**15, 2**15),
    "negative size": claimed_matlab(-5, -7), "cells": matlab(c=np.array([[1.0], "two"], dtype=object)),
}


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("attack", MATLAB)
def test_matlab_files(tmp_path, attack):
    path = tmp_path / "bad.mat"
    path.write_bytes(MATLAB[attack])
    refused(read_arrays, path)
    refused(read_measurement, path)


def hdf5(path: Path, attack: str) -> None:
    secret = path.with_name("secret.h5")
    with h5py.File(secret, "w") as f:
        f["y"] = np.arange(4.0)
    with h5py.File(path, "w") as f:
        match attack:
            case "external link":
                f["y"] = h5py.ExternalLink("secret.h5", "/y")
            case "external values":
                f.create_dataset("y", (4,), "f8", external=[(str(secret), 0, 32)])
            case "virtual":
                layout = h5py.VirtualLayout((4,), "f8")
                layout[:] = h5py.VirtualSource(str(secret), "y", (4,))
                f.create_virtual_dataset("y", layout)
            case "claims exabytes":
                f.create_dataset("y", (2**30, 2**28), "f8", chunks=(16, 16))
            case "claims gigabytes":
                f.create_dataset("y", (2**28,), "f8", chunks=(1024,))
            case "many that claim":
                for i in range(30):
                    f.create_dataset(f"y{i}", (2**20,), "f8", chunks=(1024,))
            case "references":
                f["y"] = np.arange(3.0)
                f["r"] = np.array([f["y"].ref], dtype=h5py.ref_dtype)
            case "truncated":
                f["y"] = np.arange(1e4)
    if attack == "truncated":
        path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize("attack", ["external link", "external values", "virtual", "claims exabytes",
                                    "claims gigabytes", "many that claim", "references", "truncated"])
def test_hdf5_files(tmp_path, attack):
    path = tmp_path / "bad.mat"
    hdf5(path, attack)
    refused(read_arrays, path)
    refused(read_measurement, path)


SECTIONS: dict[str, Callable[[dict[str, np.ndarray]], object]] = {
    "not a number": lambda a: a["y"].__setitem__((0, 0, 0), np.nan), "infinite place": lambda a: a["tx"].fill(np.inf),
    "no antennas": lambda a: a.update(tx=np.zeros((0, 3)), y=np.zeros((5, 0, 4), np.complex64)),
    "negative frequency": lambda a: a["freqs"].fill(-1.0), "swapped axes": lambda a: a.update(y=a["y"].T),
    "text": lambda a: a.update(y=np.array(["a"])), "scalar": lambda a: a.update(freqs=np.array(4e9)),
    "missing": lambda a: a.pop("rx"),
}


@pytest.mark.public_door
@pytest.mark.parametrize("suffix", [".npz", ".mat", ".safetensors"])
@pytest.mark.parametrize("attack", SECTIONS)
def test_radar_measurements(tmp_path, attack, suffix):
    arrays = {"y": np.ones((5, 3, 4), np.complex64), "freqs": np.linspace(1e9, 2e9, 5), "tx": np.zeros((3, 3)),
              "rx": np.ones((4, 3))}
    SECTIONS[attack](arrays)
    path = tmp_path / f"bad{suffix}"
    if suffix == ".npz":
        np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]
    elif suffix == ".mat":
        scipy.io.savemat(path, arrays)
    else:
        _files.write_tensors(path, {k: torch.from_numpy(v) for k, v in arrays.items() if v.dtype.kind in "fc"})
    refused(read_measurement, path, rf"bad\{suffix}")


@pytest.mark.public_door
def test_a_dataport_file_with_uneven_antennas(tmp_path):
    def antennas(n: int) -> dict[str, np.ndarray]:
        return {"X": np.zeros(3), "Y": np.zeros(n), "Z": np.zeros(3)}

    path = tmp_path / "exp.mat"
    scipy.io.savemat(path, {"EMData": {"Values": np.ones((3, 3, 2), np.complex64)}, "OperateFreq": np.ones(2),
                            "MIMOArray": {"Transmitter": antennas(4), "Receiver": antennas(3)}})
    refused(read_measurement, path, "must have one length, got 3, 4, 3")


class Attack:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.write_text, (self.marker, "run")


def test_code_in_weights_is_not_run(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "w.pth"
    for content in (Attack(marker), {"a": Attack(marker)}, {"a": torch.zeros(2), "b": [Attack(marker)]}):
        torch.save(content, path)
        refused(read_torch_weights, path, "not a readable file")
        path.write_bytes(pickle.dumps(content, protocol=2))
        refused(read_torch_weights, path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Attack(marker)))  # noqa: S301  the trap is armed: an unpickler would have run it
    assert marker.exists()


def test_weights_that_claim_more_than_the_file(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(1).expand(2**40)}, path)
    refused(read_torch_weights, path, "more than the file")
    torch.save({"a": torch.eye(3).to_sparse()}, path)
    refused(read_torch_weights, path)
    torch.save({"a": torch.zeros(2**22)}, path)
    with zipfile.ZipFile(path) as archive:
        members = [(m.filename, archive.read(m)) for m in archive.infolist()]
    path.write_bytes(zipped(*members))  # 16 MiB of zeros, deflated
    refused(read_torch_weights, path, "more than the file holds")


@pytest.fixture
def denoiser(tmp_path) -> Path:
    Denoiser.save(tmp_path / "d.safetensors", UNet(1, base=1, levels=1), {})
    return tmp_path / "d.safetensors"


def again(path: Path, state: dict[str, torch.Tensor] | None = None, **record: Any) -> None:
    """Write a denoiser again with other tensors or a changed description, its checksum that of the tensors."""
    kept, metadata = _files.read_described_tensors(path)
    state = kept if state is None else state
    digest = hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()
    described = {**json.loads(metadata["denoiser"]), "sha256": digest, **record}
    _files.write_tensors(path, state, {"denoiser": json.dumps(described)})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_model_of_nan(denoiser, bad):
    state = _files.read_tensors(denoiser)
    state["out.weight"].fill_(bad)
    again(denoiser, state)
    refused(Denoiser.load, denoiser, "NaN or infinite")


@pytest.mark.parametrize("change", [
    lambda s: s.pop("out.bias"), lambda s: s.update(extra=torch.zeros(1)),
    lambda s: s.update({"out.weight": torch.zeros(7, 7, 7)}), lambda s: s.update({"out.weight": s["out.weight"].int()}),
], ids=["missing", "extra", "shape", "integers"])
def test_a_model_that_does_not_fit(denoiser, change):
    state = _files.read_tensors(denoiser)
    change(state)
    again(denoiser, state)
    refused(Denoiser.load, denoiser, "does not fit the architecture")


@pytest.mark.parametrize("architecture", [
    {"base": 4096, "levels": 12}, {"base": 10**9}, {"levels": -1}, {"dims": 4}, {"dims": True}, {"base": "1"},
    {"bias": "yes"}, {"levels": [1]}, {"base": 1.5}], ids=str)
@pytest.mark.public_door
def test_a_record_that_asks_for_another_network(denoiser, architecture):
    kept = json.loads(_files.read_described_tensors(denoiser)[1]["denoiser"])["architecture"]
    again(denoiser, architecture={**kept, **architecture})
    refused(Denoiser.load, denoiser)


@pytest.mark.parametrize("record", ["[]", "null", "{", '{"architecture": []}', '{"architecture": {"dims": 1}}', "["])
def test_a_description_that_is_none(denoiser, record):
    deep = record * 10**5 if record == "[" else record
    _files.write_tensors(denoiser, _files.read_tensors(denoiser), {"denoiser": deep})
    refused(Denoiser.load, denoiser, r"d\.safetensors")


def png(width: int, height: int, data: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def photo(kind: str) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


PICTURES = {
    "bomb": png(60_000, 60_000), "bomb just below Pillow's limit": png(13_000, 13_000),
    "bomb of 2^31": png(2**31 - 1, 1),
    "truncated PNG": photo("PNG")[:2000], "truncated JPEG": photo("JPEG")[:600], "text": b"<svg onload='alert(1)'/>",
    "empty": b"", "zero width": png(0, 10), "short data": png(64, 64, bytes(10)),
}


@pytest.mark.parametrize("attack", PICTURES)
def test_pictures(tmp_path, attack):
    path = tmp_path / "bad.png"
    path.write_bytes(PICTURES[attack])
    refused(read_image, path, "not a readable image")
    path.write_bytes(PICTURES[attack] + bytes(200_000))  # large enough to be shrunk, and so opened
    if attack not in ("truncated PNG", "truncated JPEG", "short data"):  # zeros complete these
        refused(small_picture, path, "not a readable picture")


def nifti(shape: tuple[int, ...], data: bytes = b"") -> bytes:
    header = bytearray(348)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, len(shape), *shape, *([1] * (7 - len(shape))))
    struct.pack_into("<hh", header, 70, 16, 32)
    struct.pack_into("<8f", header, 76, *([1.0] * 8))
    struct.pack_into("<f", header, 108, 352.0)
    header[344:348] = b"n+1\0"
    return gzip.compress(bytes(header) + bytes(4) + data)


SCANS = {
    "terabytes": nifti((32767, 32767, 32767)), "negative": nifti((-3, 4, 4)), "short": nifti((8, 8, 8), bytes(100)),
    "flat": nifti((8, 8), bytes(256)), "zero": nifti((4, 4, 4), bytes(256)), "no gzip": b"text",
    "truncated": nifti((8, 8, 8), bytes(2048))[:50], "empty": b"",
}


@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("attack", SCANS)
def test_scans(tmp_path, attack):
    path = tmp_path / MNI152_T1.filename
    path.write_bytes(SCANS[attack])
    refused(lambda p: mni152(data_dir=p.parent), path)


def kept(name: str, /, **fields: object) -> dict[str, object]:
    return {"kind": name, **fields}


def written(**claims: object) -> dict[str, object]:
    return kept("L1", weight={"kind": "tensor", "dtype": "float32", "shape": [1], "data": [1.0], **claims})


def nested(depth: int) -> dict[str, object]:
    data = kept("L1", weight=1.0)
    for _ in range(depth):
        data = kept("Scaled", prior=data, factor=1.0)
    return data


OBJECTS: dict[str, Any] = {
    "unknown class": kept("os.system"), "another family": kept("Identity", shape=[2]), "no class": {}, "a list": [],
    "a class of another family inside": kept("Scaled", prior=kept("Source", filename="a"), factor=1.0),
    "deep": nested(100_000), "unknown field": kept("L1", weight=1.0, __class__="Lq"), "missing field": kept("Scaled"),
    "huge shape": written(shape=[2**62]), "shape that overflows": written(shape=[2**40, 2**40], data=[]),
    "empty but huge": written(shape=[0, 2**64], data=[]), "negative shape": written(shape=[-5]),
    "shape of text": written(shape="ab"), "shape of fractions": written(shape=[1.5]), "no data": written(data=None),
    "text for data": written(data="1.0"), "objects for data": written(data=[{"a": 1}]),
    "ragged data": written(shape=[2], data=[[1], [1, 2]]), "number that overflows": written(data=[10**400]),
    "unknown dtype": written(dtype="object"), "list for dtype": written(dtype=[]),
    "mask bits": kept("L1", weight={"kind": "tensor", "dtype": "bool", "shape": [2], "data": [7, -1]}),
    "integer that overflows": written(dtype="int64", data=[2**70]), "code for a float": kept("L1", weight={
        "kind": "float", "value": "__import__('os')"}), "text for a complex": kept("L1", weight={
            "kind": "complex", "re": "1", "im": 0}), "number for a class": {"kind": 3},
    "NaN": kept("L1", weight={"kind": "float", "value": "nan"}), "truth for a number": kept("L1", weight=True),
    "a file for weights": kept("PlugAndPlay", denoiser=kept("Denoiser", weights="/etc/passwd")),
}


@pytest.mark.public_door
@pytest.mark.parametrize("attack", OBJECTS)
def test_descriptions_of_objects(attack):
    began = time.process_time()
    with pytest.raises((ValueError, TypeError)):
        Prior.from_dict(OBJECTS[attack])
    assert time.process_time() - began < SECONDS


@pytest.mark.public_door
@pytest.mark.parametrize("data", [
    {"kind": "L1", "weight": 1.0}, {"kind": "Sampling", "mask": {"kind": "tensor", "dtype": "bool", "shape": [2],
                                                                 "data": [7, 0]}},
    {"kind": "Matrix", "matrix": {"kind": "tensor", "dtype": "float32", "shape": [2**31, 2**31], "data": []}},
    {"kind": "FunctionOperator", "function": "os.system"}, {"kind": "WaveletTransform", "shape": [8],
                                                            "wavelet": "__import__"},
], ids=["prior", "mask bits", "huge matrix", "function", "wavelet"])
def test_descriptions_of_operators(data):
    with pytest.raises((ValueError, TypeError)):
        LinearOperator.from_dict(data)


def test_a_description_can_not_reach_other_classes():
    assert not {"Path", "Popen", "Tensor"} & set(Described._registry)


NASTY = "</td><script>alert(1)</script>"


def result(**over: object) -> dict[str, object]:
    return {"slug": "bad", "scale": "smoke", "seeds": [0], "machine": {}, "version": "1", "seconds": 1.0,
            "peak_rss_mb": 2.0, "rows": [], "claims": [], **over}


def figure(file: str) -> dict[str, object]:
    return result(figures=[{"name": "n", "file": file, "caption": "", "alt": ""}])


def claim(**over: object) -> dict[str, object]:
    some = {"mean": 1.0, "low": 0.9, "high": 1.1, "n": 5}
    one = {"id": "a", "text": "t", "published": "p", "verdict": "held", "measured": some, "baseline": "b",
           "baseline_measured": some, "difference": some, "margin": 0.5, "better": "higher", "why": "w", **over}
    return result(claims=[one])


RESULTS: dict[str, str] = {k: v if isinstance(v, str) else json.dumps(v) for k, v in {
    "HTML for a slug": result(slug=NASTY), "slug of another file": result(slug="other"),
    "slug twice": '{"slug": "bad", ' + json.dumps(result())[1:], "climbing figure": figure("../../../etc/passwd.png"),
    "absolute figure": figure("/etc/x.png"), "figure by address": figure("https://example.org/x.png"),
    "figure that is a page": figure("x.html"), "figure with a null": figure("x\0.png"),
    "HTML for a verdict": claim(verdict=NASTY), "NaN": result(seconds=float("nan")), "infinity": '{"slug": 1e999}',
    "deep": "[" * 100_000, "text for seconds": result(seconds="1"), "truth for a seed": result(seeds=[True]),
    "negative seed": result(seeds=[-1]), "huge integer": result(seeds=[10**30]), "claims by name": result(claims={}),
    "interval without end": claim(measured={"mean": 1.0}), "script for an address": result(paper={
        "title": "t", "authors": "a", "year": 1, "url": "javascript:alert(1)", "room": "r", "method": []}),
    "huge text": result(version="x" * 100_000), "many columns": result(rows=[{f"c{i}": 1 for i in range(1000)}]),
    "digits": "9" * 5000, "empty": "", "null": "null",
}.items()}


@pytest.mark.parametrize("attack", RESULTS)
def test_results(tmp_path, attack):
    path = tmp_path / "bad.json"
    path.write_text(RESULTS[attack])
    refused(read_results, path)
    refused(lambda p: write_report(tmp_path, tmp_path / "page.html"), path)
    assert not (tmp_path / "page.html").exists()


def test_results_of_gigabytes(tmp_path):
    with open(tmp_path / "bad.json", "wb") as f:
        f.truncate(2**40)  # a hole; nothing is stored
    refused(read_results, tmp_path / "bad.json", "more than")
    refused(_files.read_json, tmp_path / "bad.json", "more than")


@pytest.fixture
def finished(tmp_path) -> Path:
    """A finished run with a row, a claim and no figure."""
    return execute(TINY, tmp_path / "runs", scale=Scale.SMOKE, seed=0)


RUNS = {
    "config.json": ["[]", "{", '{"slug": "tiny-paper", "scale": "smoke", "seed": "../0"}',
                    '{"slug": "tiny-paper", "scale": "smoke", "seed": -1}', '{"slug": "tiny-paper", "scale": "smoke"}',
                    '{"slug": "<script>", "scale": "smoke", "seed": 0}', "[" * 100_000],
    "status.json": ["[]", "null", '{"state": "done"}', "{", json.dumps({"state": [], "seconds": 1, "peak_rss_mb": 1,
                                                                        "attempts": 1, "error": ""})] + [
        json.dumps({"state": "done", "seconds": 1, "peak_rss_mb": 1, "attempts": 1, "error": "", **bad}) for bad in (
            {"state": "DONE"}, {"seconds": "nan"}, {"seconds": -1}, {"attempts": "many"})] + [
        '{"state": "done", "seconds": 1, "peak_rss_mb": 1, "attempts": 1e999, "error": ""}'],
    "rows.json": ["{}", "[1]", '[{"v": [1]}]', '[{"v": {"kind": "float", "value": "1e3"}}]', "[[]]",
                  '[{"v": {"a": 1}}]'],
    "claims.json": ["[]", '{"better": 1}', '{"better": {"ours": "x", "baseline": 1}}', '{"better": {"ours": 1}}',
                    '{"better": {"ours": {"kind": "float", "value": []}, "baseline": 1}}', "[" * 100_000],
    "figures.json": ["[]", '{"f": 1}', '{"f": {"file": "../../../../../etc/passwd", "caption": "", "alt": ""}}',
                     '{"f": {"file": "/etc/x.png", "caption": "", "alt": ""}}', '{"f": {"caption": "", "alt": ""}}',
                     '{"f": {"file": "a.png", "caption": "", "alt": "", "onload": "x"}}'],
    "machine.json": ["[]", "{", ""],
}


@pytest.mark.parametrize(("name", "content"), [pytest.param(n, c, id=f"{n}-{i}")
                                               for n, some in RUNS.items() for i, c in enumerate(some)])
def test_run_folders(tmp_path, finished, name, content):
    (finished / name).write_text(content)
    refused(lambda p: collect(TINY.paper, Scale.SMOKE, [finished]), finished)
    refused(lambda p: publish(TINY.paper, Scale.SMOKE, [finished], tmp_path / "results"), finished)
    assert not (tmp_path / "results").exists()
    if name == "status.json":
        refused(lambda p: read_status(finished), finished / name)
    if name == "config.json":
        refused(lambda p: Run.start(TINY, finished, scale=Scale.SMOKE, seed=0, resume=True), finished)


@pytest.mark.parametrize("content", ["[]", "{", "null", '{"v": {"kind": "float", "value": "x"}}', "[" * 100_000,
                                     '{"v": ' + '{"a": ' * 900 + "1" + "}" * 901],
                         ids=["list", "cut", "null", "number", "deep", "deep for Python"])
def test_units_of_work(finished, content):
    path = finished / "once" / "unit-0.json"
    path.write_text(content)
    run = Run.start(TINY, finished, scale=Scale.SMOKE, seed=0, resume=True)
    if content.endswith("}" * 901) and sys.getrecursionlimit() > 3000:
        pytest.skip("this interpreter recurses deeper")
    refused(lambda p: run.once("unit-0", dict), path, "does not hold a unit of work|not a readable")


def test_names_and_claims_stay_text_on_the_page(tmp_path):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(claim(text=NASTY, published=NASTY, baseline=NASTY, why=NASTY) | {
        "version": NASTY, "machine": {NASTY: NASTY, "cpu": NASTY}, "rows": [{NASTY: NASTY}, {"a": NASTY}]}))
    write_report(tmp_path, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_forty_files_and_more():
    tables = (TENSORS, CHECKPOINTS, ARCHIVES, MATLAB, SECTIONS, PICTURES, SCANS, OBJECTS, RESULTS, *RUNS.values())
    assert sum(map(len, tables)) >= 100
