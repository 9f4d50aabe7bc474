"""Learned denoisers: the network, and the weights by name.

A denoiser D(x, std) removes white Gaussian noise of standard deviation ``std`` from ``x``. As a prior it stands in for
a proximal operator whose penalty is unknown (`PlugAndPlay`): prox(x, step) = D(x, sqrt(step)).
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparsepriors import _checks, _files
from sparsepriors._described import Described

WEIGHTS = Path(__file__).with_name("weights")
"""Folder of the weights that ship with the package."""

_CONV: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_UP: dict[int, type[nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORM: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOL: dict[int, type[nn.Module]] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}


_METADATA = "denoiser"
"""Key of the description in the metadata of a file of weights."""

# Bounds on what a record may ask for, far above what is useful.
_MOST_CHANNELS, _MOST_LEVELS = 4096, 12


class UNet(nn.Module):
    """U-Net for denoising one-channel signals, images or volumes.

    Every level has a block of two 3-wide convolutions, each followed by batch normalisation (optional) and a ReLU;
    levels are joined by max-pooling on the way down and by a transposed convolution of width and stride 2 on the way
    up. Where a size is odd the upsampled map is padded with one zero at its high end. The skip map comes first in the
    concatenation; a 1-wide convolution makes the output.

    With ``batch_norm=False, bias=False`` the network is positively homogeneous: D(c x, c std) = c D(x, std) for c > 0,
    which carries it to noise levels and intensity scales that it was not trained on (Mohan, Kadkhodaie, Simoncelli,
    Fernandez-Granda, "Robust and interpretable blind image denoising via bias-free CNNs", ICLR 2020).

    Parameters
    ----------
    dims
        Number of spatial axes, 1 to 3.
    base
        Channels of the first level; every level below doubles them.
    levels
        Number of levels, at least 1. Inputs need at least ``2 ** (levels - 1)`` entries along each spatial axis.
    noise_map
        Feed the noise standard deviation as a constant second channel.
    residual
        Let the network estimate the noise, which is subtracted from the input, in place of the clean signal.
    batch_norm, bias
        Whether blocks normalise, and whether convolutions have biases.

    Raises
    ------
    TypeError, ValueError
        If a size is not an integer in its range.

    Notes
    -----
    Ronneberger, Fischer, Brox, "U-Net", MICCAI 2015. The 3-D network of Oral and Oktem (IEEE Trans. Comput. Imaging
    10:762-773, 2024) is ``UNet(3, base=32)``. DRUNet (Zhang et al., IEEE TPAMI 44:6360-6376, 2022) shares the noise map
    and the missing biases, with strided convolutions and residual blocks in place of pooling and plain ones.
    """

    def __init__(self, dims: int = 2, base: int = 32, levels: int = 3, *, noise_map: bool = True,
                 residual: bool = False, batch_norm: bool = True, bias: bool = True) -> None:
        super().__init__()
        self.dims = _checks.count("dims", dims, low=1, high=3)
        self.base = _checks.count("base", base, low=1, high=_MOST_CHANNELS)
        self.levels = _checks.count("levels", levels, low=1, high=_MOST_LEVELS)
        self.noise_map, self.residual, self.batch_norm, self.bias = (
            _flag(n, v) for n, v in (("noise_map", noise_map), ("residual", residual), ("batch_norm", batch_norm),
                                     ("bias", bias)))
        width = [base * 2**i for i in range(levels)]
        self.down = nn.ModuleList(self._block(n_in, n_out) for n_in, n_out in zip([1 + noise_map, *width], width,
                                                                                  strict=False))
        self.pool = _POOL[dims](2)
        self.up = nn.ModuleList(_UP[dims](2 * w, w, 2, stride=2, bias=bias) for w in width[-2::-1])
        self.merge = nn.ModuleList(self._block(2 * w, w) for w in width[-2::-1])
        self.out = _CONV[dims](base, 1, 1, bias=bias)

    def _block(self, n_in: int, n_out: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for n in (n_in, n_out):
            layers.append(_CONV[self.dims](n, n_out, 3, padding=1, bias=self.bias))
            if self.batch_norm:
                layers.append(_NORM[self.dims](n_out))
            layers.append(nn.ReLU())
        return nn.Sequential(*layers)

    @property
    def architecture(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON data."""
        return {k: getattr(self, k) for k in _ARCHITECTURE}

    def forward(self, x: Float[Tensor, "batch 1 *spatial"],
                std: Float[Tensor, " batch"]) -> Float[Tensor, "batch 1 *spatial"]:
        """Denoise a batch, one noise standard deviation for each of its members."""
        h = x
        if self.noise_map:
            h = torch.cat([x, std.reshape(-1, *[1] * (x.ndim - 1)).expand_as(x)], 1)
        skips = []
        for i, block in enumerate(self.down):
            h = block(self.pool(h) if i else h)
            skips.append(h)
        for up, merge in zip(self.up, self.merge, strict=True):
            skips.pop()
            h = merge(torch.cat([skips[-1], _pad_to(up(h), skips[-1])], 1))
        h = self.out(h)
        return x - h if self.residual else h


_ARCHITECTURE = ("dims", "base", "levels", "noise_map", "residual", "batch_norm", "bias")


@dataclass(frozen=True)
class Denoiser(Described):
    """A trained denoiser, named by its weights.

    Parameters
    ----------
    weights
        Name of weights that ship with the package (see `shipped`), or the path of a ``.safetensors`` file written by
        `save`.
    scale_invariant
        Divide each unknown by its largest modulus, denoise, and multiply back; ``std`` is then relative to that
        modulus. For data whose scale is unknown.

    Attributes
    ----------
    dims : int
        Number of spatial axes of one unknown.
    record : dict
        How the weights were trained, as `save` kept it.

    Raises
    ------
    FileNotFoundError
        If the weights do not exist.
    ValueError
        If the file is damaged, or describes no network that its tensors fit.
    """

    weights: str
    scale_invariant: bool = False
    dims: int = field(init=False, repr=False, compare=False)
    record: Mapping[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.weights, (str, os.PathLike)):
            raise TypeError(f"weights must be a name or a path, got {type(self.weights).__name__}")
        object.__setattr__(self, "weights", os.fspath(self.weights))
        _flag("scale_invariant", self.scale_invariant)
        net, record = _network(*self._file(), torch.float32, torch.device("cpu"))
        object.__setattr__(self, "dims", net.dims)
        object.__setattr__(self, "record", record)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, scale_invariant: bool = False) -> Self:
        """The denoiser whose weights lie at ``path`` (a ``.safetensors`` file)."""
        path = Path(path)
        if path.suffix != ".safetensors":
            raise ValueError(f"path must end in .safetensors, got {str(path)!r}")
        return cls(str(path), scale_invariant)

    @classmethod
    def save(cls, path: str | os.PathLike[str], network: UNet, record: Mapping[str, Any]) -> Self:
        """Write the weights of a network and the record of its training to one file; return the denoiser they make.

        Parameters
        ----------
        path
            A name that ends in ``.safetensors``. The file's metadata hold the architecture, the record and a SHA-256
            of the tensors, as one JSON string.
        network
            The trained network, of any floating dtype; kept as float32.
        record
            JSON data: what it was trained on, for how long, and how good it is.

        Raises
        ------
        TypeError, ValueError
            If the path has another ending, ``network`` is no `UNet` or holds entries that are not finite, or the
            record has no JSON form. Nothing is written then.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise ValueError(f"path must end in .safetensors, got {str(path)!r}")
        if not isinstance(network, UNet):
            raise TypeError(f"network must be a UNet, got {type(network).__name__}")
        state = {k: v.float() if v.is_floating_point() else v for k, v in network.state_dict().items()}
        for name, value in state.items():
            _checks.inexact(f"network.{name}", value.float())
        description = {
            "architecture": network.architecture, "parameters": sum(p.numel() for p in network.parameters()),
            "sha256": _sha256(state), "training": dict(record)}
        _files.write_tensors(path, state, {_METADATA: json.dumps(description, allow_nan=False)})
        return cls(str(path))

    @staticmethod
    def shipped() -> list[str]:
        """Names of the weights that ship with the package."""
        return sorted(p.stem for p in WEIGHTS.glob("*.safetensors"))

    def __call__(self, x: Float[Tensor, "..."], std: float | Tensor) -> Float[Tensor, "..."]:
        """Denoise ``x``.

        Gradients flow to ``x`` and ``std`` when these ask for them; the weights are fixed.

        Parameters
        ----------
        x
            Real, shape ``(..., *spatial)`` with `dims` spatial axes.
        std
            Standard deviation of the noise, in the unit of ``x``: a number, or a tensor of shape ``x.shape[:-dims]``
            (or one that broadcasts to it; the spatial axes may be kept with size 1).

        Raises
        ------
        TypeError, ValueError
            If ``x`` is not real and finite or too small for the network, or ``std`` is negative or of another shape.
        """
        if _checks.inexact("x", x).is_complex():
            raise TypeError(f"x must be real, got {x.dtype}; denoise the modulus of complex data (Magnitude)")
        spatial, batch = x.shape[x.ndim - self.dims:], x.shape[:max(x.ndim - self.dims, 0)]
        net, _ = _network(*self._file(), x.dtype, x.device)
        least = 2 ** (net.levels - 1)
        if len(spatial) < self.dims or min(spatial) < least:
            raise ValueError(f"x must have {self.dims} trailing spatial axes of at least {least}, got shape "
                             f"{tuple(x.shape)}")
        _checks.nonnegative("std", std)
        level = self._level(std, batch, x)
        if x.numel() == 0:
            return x.clone()
        flat = x.reshape(-1, 1, *spatial)
        if self.scale_invariant:
            scale = flat.abs().amax(dim=tuple(range(1, flat.ndim)), keepdim=True)
            scale = torch.where(scale > 0, scale, 1)
            return (net(flat / scale, level) * scale).reshape(x.shape)
        return net(flat, level).reshape(x.shape)

    def _level(self, std: float | Tensor, batch: torch.Size, x: Tensor) -> Tensor:
        """The noise levels as a vector over the flattened batch."""
        level = std if isinstance(std, Tensor) else x.new_tensor(std)
        if level.ndim == x.ndim and all(n == 1 for n in level.shape[-self.dims:]):
            level = level.reshape(level.shape[:-self.dims])
        try:
            return level.to(x).expand(batch).reshape(-1)
        except RuntimeError as e:
            raise ValueError(f"std must broadcast to x.shape[:-{self.dims}] = {tuple(batch)}, got "
                             f"{tuple(level.shape)}") from e

    def _file(self) -> tuple[Path, tuple[int, ...]]:
        """Where the weights lie, and a stamp that changes when they do."""
        path = Path(self.weights)
        if path.suffix != ".safetensors":
            path = WEIGHTS / f"{self.weights}.safetensors"
            if path.parent != WEIGHTS or not path.is_file():
                _checks.one_of("weights", self.weights, self.shipped())
        if not path.is_file():
            raise FileNotFoundError(f"no weights at {path}")
        found = path.stat()
        return path, (found.st_ino, found.st_size, found.st_mtime_ns)  # a rename gives a new inode at any clock


@functools.lru_cache(maxsize=16)
def _network(path: Path, stamp: tuple[int, ...], dtype: torch.dtype,
             device: torch.device) -> tuple[UNet, dict[str, Any]]:
    """The frozen network of a file, kept so that the many calls of a solver read it once."""
    state, metadata = _files.read_described_tensors(path)
    try:
        record = _files.parse_json(metadata.get(_METADATA, "null"))
    except (ValueError, RecursionError) as e:
        raise ValueError(f"the description in {path} is not readable JSON: {e}") from e
    architecture = record.get("architecture") if isinstance(record, dict) else None
    if not isinstance(architecture, dict) or set(architecture) != set(_ARCHITECTURE):
        raise ValueError(f"{path} must describe an architecture with {', '.join(_ARCHITECTURE)} in its metadata, "
                         f"got {architecture!r:.200}")
    # The description's sizes are data: nothing is allocated before they are known to fit the tensors of the file.
    try:
        with torch.device("meta"):
            net = UNet(**architecture)
    except (TypeError, ValueError) as e:
        raise ValueError(f"{path} describes no network: {e}") from e
    want = {k: (v.dtype, tuple(v.shape)) for k, v in net.state_dict().items()}
    got = {k: (v.dtype, tuple(v.shape)) for k, v in state.items()}
    if want != got:
        wrong = sorted(k for k in want.keys() | got.keys() if want.get(k) != got.get(k))
        raise ValueError(f"{path} does not fit the architecture it describes: {', '.join(wrong[:5])}")
    if record.get("sha256") != _sha256(state):
        raise ValueError(f"{path} is damaged: the SHA-256 of its tensors is not the one it states")
    for name, value in state.items():
        if not _checks.all_finite(value):
            raise ValueError(f"{path}: {name} holds NaN or infinite entries")
    net.load_state_dict(state, assign=True)
    net = net.to(device=device, dtype=dtype)
    if net.dims == 3:  # channels last: 3-D convolutions are half as long again on CPUs otherwise
        nn.utils.convert_conv3d_weight_memory_format(net, torch.channels_last_3d)
    return net.eval().requires_grad_(False), record


def _sha256(state: Mapping[str, Tensor]) -> str:
    """Digest of the tensors' bytes, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(state[name].detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _pad_to(x: Tensor, like: Tensor) -> Tensor:
    pad = [n for want, got in zip(like.shape[:1:-1], x.shape[:1:-1], strict=True) for n in (0, want - got)]
    return nn.functional.pad(x, pad) if any(pad) else x


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value
