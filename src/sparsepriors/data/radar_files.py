"""Radar measurements from files, and reconstructed volumes to files."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from sparsepriors import _checks, _files
from sparsepriors.data.arrays import read_arrays
from sparsepriors.operators.radar import SPEED_OF_LIGHT

FIELDS = {"y": "y", "freqs": "freqs", "tx": "tx", "rx": "rx"}
"""The names that `read_measurement` looks for unless told otherwise."""

_LONGEST = 1000.0   # wavelength, in lengths of the array; frequencies stated in GHz or MHz are far beyond it
_DATAPORT = {"y": "EMData.Values", "freqs": "OperateFreq", "tx": "MIMOArray.Transmitter", "rx": "MIMOArray.Receiver"}


@dataclass(frozen=True)
class Measurement:
    """Frequency-domain data of a MIMO array.

    Attributes
    ----------
    y
        Complex samples, ``(K, T, R)``: frequencies, transmitters, receivers. A point at distances d_T, d_R is
        expected to contribute exp(-j 2 pi f (d_T + d_R) / c).
    freqs
        Frequencies in Hz, ``(K,)``.
    tx, rx
        Antenna positions in metres, ``(T, 3)`` and ``(R, 3)``.

    Raises
    ------
    TypeError, ValueError
        If the samples are not complex, shapes do not belong together, an entry is not finite, or the wavelengths are so
        much longer than the array that frequencies or positions must be in other units.
    """

    y: Complex[Tensor, "K T R"]
    freqs: Float[Tensor, " K"]
    tx: Float[Tensor, "T 3"]
    rx: Float[Tensor, "R 3"]

    def __post_init__(self) -> None:
        for name in FIELDS:
            _checks.inexact(name, getattr(self, name))
        if not self.y.is_complex():
            raise TypeError(f"y must be complex, got {self.y.dtype}: phases are what a radar images with")
        for name in ("freqs", "tx", "rx"):
            if getattr(self, name).is_complex():
                raise TypeError(f"{name} must be real, got {getattr(self, name).dtype}")
        if self.freqs.ndim != 1 or not len(self.freqs):
            raise ValueError(f"freqs must have shape (K,), got {tuple(self.freqs.shape)}")
        _checks.positive("freqs", self.freqs)
        for name in ("tx", "rx"):
            at = getattr(self, name)
            if at.ndim != 2 or at.shape[1] != 3 or not len(at):
                raise ValueError(f"{name} must have shape (antennas, 3), got {tuple(at.shape)}")
        want = (len(self.freqs), len(self.tx), len(self.rx))
        if tuple(self.y.shape) != want:
            raise ValueError(f"y must have shape (frequencies, transmitters, receivers) = {want}, got "
                             f"{tuple(self.y.shape)}")
        antennas = torch.cat((self.tx.double(), self.rx.double()))
        across, wavelength = float(torch.pdist(antennas).max()), SPEED_OF_LIGHT / float(self.freqs.max())
        if 0 < _LONGEST * across < wavelength:
            raise ValueError(f"freqs must be in Hz and tx and rx in metres: the shortest wavelength would be "
                             f"{wavelength:.3g} m and the array {across:.3g} m across, too small to see anything")

    def subset(self, steps: int, low: float | None = None, high: float | None = None) -> Measurement:
        """Keep ``steps`` of the frequencies in [low, high] Hz: every n-th from the lowest on, n as large as fits.

        Evenly spaced frequencies stay evenly spaced, which keeps the operator's tables small; the highest one kept may
        therefore lie below ``high``.

        Raises
        ------
        TypeError, ValueError
            If fewer frequencies than ``steps`` were measured in that band.
        """
        _checks.count("steps", steps, low=1)
        order = torch.argsort(self.freqs)
        f = self.freqs[order]
        inside = order[(f >= (f[0] if low is None else low)) & (f <= (f[-1] if high is None else high))]
        if len(inside) < steps:
            raise ValueError(f"steps must be at most {len(inside)}, the number of frequencies measured in that band, "
                             f"got {steps}")
        stride = (len(inside) - 1) // (steps - 1) if steps > 1 else 1
        keep = inside[: stride * steps: stride]
        return Measurement(self.y[keep], self.freqs[keep], self.tx, self.rx)


def read_measurement(path: str | os.PathLike[str], *, fields: Mapping[str, str] | None = None,
                     swap_yz: bool = False) -> Measurement:
    """Read a measurement with the geometry of its array.

    The file holds ``y`` (K, T, R), complex; ``freqs`` (K,) in Hz; ``tx`` (T, 3) and ``rx`` (R, 3) in metres. MATLAB's
    rows and columns are accepted for ``freqs``, and a ``y`` of two axes where there is one receiver. The IEEE
    DataPort file of Wang, Aubry and Yarovoy (2020), ``Exp_GunData4ImagingFD.mat`` (doi 10.21227/src2-0y50), is
    recognised by its fields: its samples are ordered receiver, transmitter, frequency, and the second coordinate of its
    antennas points into the scene, so that the last two are swapped.

    Parameters
    ----------
    path
        A ``.npz``, ``.mat`` or ``.safetensors`` file.
    fields
        Other names for some of `FIELDS`, such as ``{"y": "S21"}``.
    swap_yz
        Swap the second and third coordinate of every antenna.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError, ValueError
        If the file is damaged, lacks a field (the message lists what it has), or holds something that is not a
        `Measurement`.
    """
    arrays = read_arrays(path)
    if fields is None and _DATAPORT["y"] in arrays:
        y, freqs, tx, rx = _dataport(arrays, Path(path))
        return _measurement(Path(path), y, freqs, tx, rx)
    names = FIELDS | dict(fields or {})
    for unknown in set(names) - set(FIELDS):
        _checks.one_of("fields", unknown, FIELDS)
    y, freqs, tx, rx = (_field(arrays, names[k], Path(path)) for k in FIELDS)
    if freqs.ndim == 2 and 1 in freqs.shape:
        freqs = freqs.reshape(-1)
    if y.ndim == 2 and len(rx) == 1:
        y = y[:, :, None]   # MATLAB stores no last axis of length 1
    if y.dtype.kind != "c":
        raise TypeError(f"{Path(path).name}: {names['y']} must be complex, got {y.dtype}: phases are what a radar "
                        f"images with")
    if swap_yz:
        tx, rx = (a[:, [0, 2, 1]] if a.ndim == 2 and a.shape[1] == 3 else a for a in (tx, rx))
    return _measurement(Path(path), y, freqs, tx, rx)


def write_measurement(path: str | os.PathLike[str], data: Measurement) -> Path:
    """Write a measurement as ``.npz`` or ``.safetensors``, by the suffix, in the form `read_measurement` expects.

    A ``.safetensors`` file holds complex numbers in single precision.

    Raises
    ------
    ValueError
        If the suffix is another.
    """
    _checks.instance("data", data, Measurement)
    return _write(path, {k: getattr(data, k) for k in FIELDS})


def write_volume(path: str | os.PathLike[str], volume: Complex[Tensor, "x y z"], axes: tuple[Tensor, Tensor, Tensor],
                 ) -> Path:
    """Write a reconstructed reflectivity volume as ``.npz`` or ``.safetensors``, by the suffix.

    The file holds ``volume`` (complex), ``magnitude`` (its modulus, largest value 1) and the voxel centres ``x``,
    ``y``, ``z`` in metres. A ``.safetensors`` file holds complex numbers in single precision.

    Raises
    ------
    TypeError, ValueError
        If the suffix is another, or volume and axes do not belong together.
    """
    _checks.inexact("volume", volume)
    want = tuple(len(a) for a in axes)
    if tuple(volume.shape) != want:
        raise ValueError(f"volume must have shape {want}, the lengths of its axes, got {tuple(volume.shape)}")
    magnitude = volume.abs()
    peak = float(magnitude.max())
    return _write(path, {"volume": volume, "magnitude": magnitude / peak if peak else magnitude,
                         "x": axes[0], "y": axes[1], "z": axes[2]})


def _write(path: str | os.PathLike[str], tensors: Mapping[str, Tensor]) -> Path:
    path = Path(path)
    match path.suffix.lower():
        case ".safetensors":
            # The format has no complex128.
            return _files.write_tensors(path, {k: v.to(torch.complex64) if v.is_complex() else v
                                               for k, v in tensors.items()})
        case ".npz":
            arrays = {k: v.detach().cpu().resolve_conj().numpy() for k, v in tensors.items()}

            def dump(part: Path) -> None:
                with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
                    for name, array in arrays.items():
                        with archive.open(f"{name}.npy", "w", force_zip64=True) as f:
                            np.lib.format.write_array(f, array)

            return _files.write_atomic(path, dump)
        case other:
            raise ValueError(f"path must end in .npz or .safetensors, got {other or 'no suffix'!r}")


def _field(arrays: Mapping[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    if name not in arrays:
        held = ", ".join(f"{k} {v.shape}" for k, v in sorted(arrays.items())) or "no arrays"
        raise ValueError(f"{path.name} has no field {name!r}; it holds {held}")
    return arrays[name]


def _measurement(path: Path, y: np.ndarray, freqs: np.ndarray, tx: np.ndarray, rx: np.ndarray) -> Measurement:
    def real(a: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(a, dtype=np.complex128 if a.dtype.kind == "c" else np.float64))

    samples = np.array(y, dtype=np.complex64 if y.dtype == np.complex64 else np.complex128)
    try:
        return Measurement(torch.from_numpy(samples), real(freqs), real(tx), real(rx))
    except (TypeError, ValueError) as e:
        raise type(e)(f"{path.name}: {e}") from e


def _dataport(arrays: Mapping[str, np.ndarray], path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    def antennas(prefix: str) -> np.ndarray:
        axes = [_field(arrays, f"{prefix}.{axis}", path).reshape(-1) for axis in "XZY"]
        if len({len(a) for a in axes}) != 1:
            raise ValueError(f"{path.name}: X, Y and Z of {prefix} must have one length, got "
                             f"{', '.join(str(len(axes[i])) for i in (0, 2, 1))}")
        return np.stack(axes, axis=1)

    y = _field(arrays, _DATAPORT["y"], path)
    if y.ndim != 3:
        raise ValueError(f"{path.name}: {_DATAPORT['y']} must have three axes, got shape {y.shape}")
    return (y.transpose(2, 1, 0), _field(arrays, _DATAPORT["freqs"], path).reshape(-1), antennas(_DATAPORT["tx"]),
            antennas(_DATAPORT["rx"]))
