"""Measurements of one's own: what is accepted, what is refused, and that volumes reach the disk."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io
import torch

from sparsepriors.data.arrays import read_arrays
from sparsepriors.data.radar_files import FIELDS, Measurement, read_measurement, write_measurement, write_volume
from sparsepriors.operators.radar import crossed_array


@pytest.fixture
def arrays(generator):
    tx, rx = crossed_array(3, 4)
    y = torch.randn(5, 3, 4, generator=generator, dtype=torch.complex64)
    return {"y": y.numpy(), "freqs": np.linspace(4e9, 16e9, 5), "tx": tx.numpy(), "rx": rx.numpy()}


def same(found: Measurement, arrays) -> None:
    for name in FIELDS:
        np.testing.assert_allclose(getattr(found, name).numpy(), arrays[name], rtol=1e-7)


@pytest.mark.parametrize("suffix", [".npz", ".mat"])
def test_a_file_with_the_four_fields_is_read(tmp_path, arrays, suffix):
    path = tmp_path / f"own{suffix}"
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        scipy.io.savemat(path, arrays)  # frequencies become a row, as MATLAB has them
    same(read_measurement(path), arrays)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_round_trip(tmp_path, arrays, suffix):
    data = Measurement(**{k: torch.from_numpy(v) for k, v in arrays.items()})
    same(read_measurement(write_measurement(tmp_path / f"m{suffix}", data)), arrays)


def test_other_names_and_swapped_axes(tmp_path, arrays):
    np.savez(tmp_path / "o.npz", S21=arrays["y"], f=arrays["freqs"], tx=arrays["tx"][:, [0, 2, 1]],
             rx=arrays["rx"][:, [0, 2, 1]])
    same(read_measurement(tmp_path / "o.npz", fields={"y": "S21", "freqs": "f"}, swap_yz=True), arrays)


def test_the_dataport_file_is_recognised(tmp_path, arrays):
    def antennas(a):
        return {"X": a[:, 0][None], "Y": a[:, 2][None], "Z": a[:, 1][None]}

    scipy.io.savemat(tmp_path / "exp.mat", {
        "EMData": {"Values": arrays["y"].transpose(2, 1, 0)}, "OperateFreq": arrays["freqs"][None],
        "MIMOArray": {"Transmitter": antennas(arrays["tx"]), "Receiver": antennas(arrays["rx"])}})
    same(read_measurement(tmp_path / "exp.mat"), arrays)


def test_subset_keeps_an_even_stride(arrays):
    data = Measurement(**{k: torch.from_numpy(v) for k, v in arrays.items()})
    kept = data.subset(3)
    torch.testing.assert_close(kept.freqs, data.freqs[[0, 2, 4]])
    torch.testing.assert_close(kept.y, data.y[[0, 2, 4]])
    torch.testing.assert_close(data.subset(2, 6e9, 14e9).freqs, data.freqs[[1, 3]])
    assert data.subset(1).freqs.tolist() == [4e9]
    torch.testing.assert_close(data.subset(4).freqs, data.freqs[:4])
    with pytest.raises(ValueError, match="steps must be at most 1, .* got 4"):
        data.subset(4, 4e9, 5e9)


@pytest.mark.public_door
@pytest.mark.parametrize(("change", "error", "message"), [
    (lambda a: a.pop("tx"), ValueError, r"has no field 'tx'; it holds freqs \(5,\), rx \(4, 3\), y \(5, 3, 4\)"),
    (lambda a: a.update(y=a["y"].real), TypeError, "y must be complex, got float32"),
    (lambda a: a.update(y=a["y"].transpose(0, 2, 1)), ValueError, r"= \(5, 3, 4\), got \(5, 4, 3\)"),
    (lambda a: a.update(y=a["y"] * np.nan), ValueError, "y holds NaN"),
    (lambda a: a.update(tx=a["tx"][:, :2]), ValueError, r"tx must have shape \(antennas, 3\), got \(3, 2\)"),
    (lambda a: a.update(rx=a["rx"] + 1j), TypeError, "rx must be real"),
    (lambda a: a.update(freqs=np.zeros(5)), ValueError, "freqs must be finite and positive"),
    (lambda a: a.update(freqs=np.ones((2, 2))), ValueError, r"freqs must have shape \(K,\)"),
    (lambda a: a.update(freqs=a["freqs"] / 1e9), ValueError, "freqs must be in Hz and tx and rx in metres"),
    (lambda a: a.update(y=np.array([{}], dtype=object)), ValueError, "Python objects"),
], ids=["missing", "real", "transposed", "nan", "planar", "complex", "zero", "matrix", "gigahertz", "objects"])
def test_bad_files_are_refused_by_name(tmp_path, arrays, change, error, message):
    change(arrays)
    with open(tmp_path / "bad.npz", "wb") as f:
        np.savez(f, **arrays)
    with pytest.raises(error, match=r"(?s)bad\.npz.*" + message):
        read_measurement(tmp_path / "bad.npz")


@pytest.mark.public_door
def test_one_receiver_of_a_matlab_file(tmp_path, arrays):
    """MATLAB drops a last axis of length 1."""
    one = arrays | {"y": arrays["y"][:, :, 0], "rx": arrays["rx"][:1]}
    scipy.io.savemat(tmp_path / "one.mat", one)
    data = read_measurement(tmp_path / "one.mat")
    np.testing.assert_array_equal(data.y.numpy(), arrays["y"][:, :, :1])
    scipy.io.savemat(tmp_path / "one.mat", one | {"rx": arrays["rx"]})
    with pytest.raises(ValueError, match=r"= \(5, 3, 4\), got \(5, 3\)"):
        read_measurement(tmp_path / "one.mat")


@pytest.mark.public_door
def test_what_is_no_measurement_is_not_written(tmp_path):
    with pytest.raises(TypeError, match="data must be a Measurement, got str"):
        write_measurement(tmp_path / "m.npz", "m")  # pyright: ignore[reportArgumentType]
    assert not list(tmp_path.iterdir())


def test_an_unknown_field_name_is_refused(tmp_path, arrays):
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(ValueError, match="did you mean 'freqs'"):
        read_measurement(tmp_path / "m.npz", fields={"freq": "f"})


@pytest.mark.public_door
def test_volumes_are_written_with_their_axes(tmp_path, generator):
    volume = torch.randn(2, 3, 4, generator=generator, dtype=torch.complex64)
    axes = (torch.arange(2.0), torch.arange(3.0), torch.arange(4.0))
    for name in ("v.npz", "v.safetensors"):
        found = read_arrays(write_volume(tmp_path / name, volume, axes))
        np.testing.assert_array_equal(found["volume"], volume.numpy())
        assert found["magnitude"].max() == pytest.approx(1.0)
        assert [len(found[k]) for k in "xyz"] == [2, 3, 4]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v.npz", "v.safetensors"]
    with pytest.raises(ValueError, match=r"must end in \.npz or \.safetensors, got '\.txt'"):
        write_volume(tmp_path / "v.txt", volume, axes)
    with pytest.raises(ValueError, match=r"volume must have shape \(2, 3, 4\)"):
        write_volume(tmp_path / "v.npz", volume[0], axes)


@pytest.mark.public_door
def test_a_measurement_is_complex_and_a_dataport_file_has_three_axes(tmp_path, arrays):
    with pytest.raises(TypeError, match=r"y must be complex, got torch\.float32"):
        Measurement(**{k: torch.from_numpy(v.real.copy()) for k, v in arrays.items()})
    scipy.io.savemat(tmp_path / "exp.mat", {"EMData": {"Values": arrays["y"][0]}, "OperateFreq": arrays["freqs"]})
    with pytest.raises(ValueError, match=r"exp\.mat: EMData\.Values must have three axes, got shape \(3, 4\)"):
        read_measurement(tmp_path / "exp.mat")
