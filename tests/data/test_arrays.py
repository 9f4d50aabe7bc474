"""Arrays from files of other programs: what is read, and what is refused."""

from __future__ import annotations

import io
import sys
import zipfile

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsepriors import _files
from sparsepriors.data.arrays import read_arrays

ARRAYS = {"a": np.arange(6.0).reshape(2, 3), "z": np.array([[1 + 2j, 3 - 1j]], dtype=np.complex64),
          "n": np.array([[1, 2]], dtype=np.int32)}


def npy(shape: tuple[int, ...], data: bytes, descr: str = "'<f8'") -> bytes:
    """A .npy member whose header claims what it likes."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def npz(path, members: dict[str, bytes]):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("suffix", [".npz", ".mat", ".safetensors"])
def test_arrays_come_back(tmp_path, suffix):
    path = tmp_path / f"data{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, **ARRAYS)
    elif suffix == ".mat":
        scipy.io.savemat(path, ARRAYS, do_compression=True)
    else:
        _files.write_tensors(path, {k: torch.from_numpy(v) for k, v in ARRAYS.items()})
    found = read_arrays(path)
    assert set(found) == set(ARRAYS)
    for name, want in ARRAYS.items():
        np.testing.assert_array_equal(found[name], want)
        assert found[name].dtype.kind == want.dtype.kind


def test_fortran_order_survives(tmp_path):
    a = np.asfortranarray(np.arange(24.0).reshape(2, 3, 4))
    np.savez(tmp_path / "f.npz", a=a)
    np.testing.assert_array_equal(read_arrays(tmp_path / "f.npz")["a"], a)


def test_matlab_structures_give_dotted_names(tmp_path):
    scipy.io.savemat(tmp_path / "s.mat", {"Radar": {"Tx": {"X": np.arange(3.0)}, "f": 2.0}, "note": "text"})
    found = read_arrays(tmp_path / "s.mat")
    assert set(found) == {"Radar.Tx.X", "Radar.f"}
    np.testing.assert_array_equal(found["Radar.Tx.X"].ravel(), np.arange(3.0))


def test_matlab_73_has_matlab_axes_and_complex_numbers(tmp_path):
    want = np.arange(24.0).reshape(2, 3, 4) * (1 - 2j)
    pair = np.empty(want.T.shape, dtype=[("real", "f8"), ("imag", "f8")])
    pair["real"], pair["imag"] = want.T.real, want.T.imag
    with h5py.File(tmp_path / "v73.mat", "w", userblock_size=512) as f:
        f["Radar/y"] = pair
        f["note"] = np.array([[104], [105]], dtype=np.uint16)
        f["note"].attrs["MATLAB_class"] = np.bytes_("char")
    found = read_arrays(tmp_path / "v73.mat")
    assert set(found) == {"Radar.y"}
    np.testing.assert_array_equal(found["Radar.y"], want)


def test_objects_are_refused_unopened(tmp_path):
    with open(tmp_path / "o.npz", "wb") as f:
        np.savez(f, a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(ValueError, match="Python objects"):
        read_arrays(tmp_path / "o.npz")
    scipy.io.savemat(tmp_path / "c.mat", {"c": np.array([[1.0], "two"], dtype=object)})
    with pytest.raises(ValueError, match="objects or records"):
        read_arrays(tmp_path / "c.mat")


@pytest.mark.parametrize("member", [
    npy((10**12,), b"\0" * 80), npy((-2, -5), b"\0" * 80), npy((11,), b"\0" * 80), npy((2**40, 2**40), b""),
    npy((1,), b"\0" * 8, descr="'|O'"), npy((1,), b"\0" * 8, descr="__import__('os')"), b"\x93NUMPY\x09\x00", b"",
    b"junk",
], ids=["huge", "negative", "short", "overflow", "object", "code", "version", "empty", "junk"])
def test_headers_that_lie_are_refused(tmp_path, member):
    with pytest.raises(ValueError, match=r"\.npz|claims|objects|version|\.npy"):
        read_arrays(npz(tmp_path / "bad.npz", {"a.npy": member}))


@pytest.mark.parametrize("name", ["a.csv", "a"])
def test_other_kinds_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"1,2")
    with pytest.raises(ValueError, match=r"must be a \.npz, \.mat or \.safetensors file"):
        read_arrays(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.npz"):
        read_arrays(tmp_path / "absent.npz")


def _saved(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == ".npz":
        np.savez_compressed(buffer, **ARRAYS)
    elif kind == ".mat":
        scipy.io.savemat(buffer, ARRAYS)
    else:
        with h5py.File(buffer, "w") as f:
            f["a"] = ARRAYS["a"]
    return buffer.getvalue()


SAVED = {kind: _saved(kind) for kind in (".npz", ".mat", ".h5")}


@pytest.mark.filterwarnings("ignore")
@given(st.sampled_from(sorted(SAVED)), st.data())
def test_damage_meets_a_value_error_or_is_harmless(tmp_path_factory, kind, data):
    good = bytearray(SAVED[kind])
    cut = data.draw(st.integers(0, len(good)))
    for at in data.draw(st.lists(st.integers(0, len(good) - 1), max_size=4)):
        good[at] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("damaged") / f"d{kind}"
    path.write_bytes(bytes(good[:cut] if data.draw(st.booleans()) else good))
    try:
        found = read_arrays(path)
    except ValueError:
        return
    assert all(v.dtype.kind in "biufc" for v in found.values())


def test_a_matlab_73_file_asks_for_its_reader(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "v73.mat", "w") as f:
        f["y"] = np.arange(3.0)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"v73\.mat is a MATLAB 7\.3 \(HDF5\) file; install h5py"):
        read_arrays(tmp_path / "v73.mat")
