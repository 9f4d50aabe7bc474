"""Honest books of a sparse network: weights, bytes and multiply-adds, layer by layer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsepriors import _files
from sparsepriors.networks.sparse.select import LAYERS, stored_weight

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

CONVENTIONS = ("1 multiply-add (MAC) is 2 FLOPs. MACs count linear and convolutional layers; bias, normalisation and "
               "activation are left out. Bytes are parameters only: kept weights, one mask bit for each weight of a "
               "masked layer, and all other parameters. MACs of kept weights are what a sparse kernel would have to "
               "do, not a measured time; zeroed channels are zeroed, not removed.")
"""What the numbers of a `SparsityReport` mean; printed with each of them."""


@dataclass(frozen=True)
class LayerRecord:
    """The books of one weight.

    Attributes
    ----------
    name, shape
        The parameter.
    weights, nnz
        How many entries it has and how many are kept.
    masked
        Whether it has a mask; without one every weight is kept.
    zeroed_channels
        Output channels of which nothing is kept; ``shape[0]`` is their total (``shape[1]`` if transposed).
    macs_dense, macs_kept
        Multiply-adds of one forward pass of the example with all and with the kept weights; ``None`` if not counted.
    itemsize
        Bytes of one entry.
    """

    name: str
    shape: tuple[int, ...]
    weights: int
    nnz: int
    masked: bool
    zeroed_channels: int
    macs_dense: int | None
    macs_kept: int | None
    itemsize: int

    @property
    def density(self) -> float:
        """Share of the weights that is kept."""
        return self.nnz / self.weights


@dataclass(frozen=True)
class SparsityReport:
    """The books of a network; `CONVENTIONS` says what is counted.

    Attributes
    ----------
    layers
        One record for each weight of a linear or convolutional layer.
    other_parameters, other_bytes
        All remaining parameters: biases, normalisation, embeddings.
    notes
        What a reader must know: shared weights, layers that the example never reached, layers left empty.
    """

    layers: tuple[LayerRecord, ...]
    other_parameters: int
    other_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """Parameters of the dense network."""
        return sum(r.weights for r in self.layers) + self.other_parameters

    @property
    def density(self) -> float:
        """Kept share of the weights of the masked layers; 1 if there is none."""
        masked = [r for r in self.layers if r.masked]
        return sum(r.nnz for r in masked) / sum(r.weights for r in masked) if masked else 1.0

    @property
    def bytes_dense(self) -> int:
        """Bytes of all parameters."""
        return sum(r.weights * r.itemsize for r in self.layers) + self.other_bytes

    @property
    def bytes_values(self) -> int:
        """Bytes of the kept weights and all other parameters."""
        return sum(r.nnz * r.itemsize for r in self.layers) + self.other_bytes

    @property
    def bytes_masks(self) -> int:
        """Bytes of the masks at one bit for each weight of a masked layer."""
        return sum((r.weights + 7) // 8 for r in self.layers if r.masked)

    @property
    def bytes_sparse(self) -> int:
        """Bytes of kept weights, masks and all other parameters."""
        return self.bytes_values + self.bytes_masks

    @property
    def macs_dense(self) -> int | None:
        """Multiply-adds with all weights; ``None`` if no example was given."""
        return _total([r.macs_dense for r in self.layers])

    @property
    def macs_kept(self) -> int | None:
        """Multiply-adds with the kept weights; ``None`` if no example was given."""
        return _total([r.macs_kept for r in self.layers])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data: the totals, the layers and the conventions."""
        totals = {name: getattr(self, name) for name in (
            "parameters", "density", "bytes_dense", "bytes_values", "bytes_masks", "bytes_sparse", "macs_dense",
            "macs_kept")}
        layers = [{**asdict(r), "shape": list(r.shape), "density": r.density} for r in self.layers]
        return {**totals, "other_parameters": self.other_parameters, "other_bytes": self.other_bytes,
                "layers": layers, "notes": list(self.notes), "conventions": CONVENTIONS}

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write `to_dict` as a JSON file."""
        return _files.write_json(path, self.to_dict())

    def to_text(self) -> str:
        """A table for the terminal."""
        rows = [("layer", "shape", "kept", "density", "MACs kept / all")]
        rows += [(r.name, "x".join(map(str, r.shape)), f"{r.nnz:,}", f"{r.density:.4f}" if r.masked else "dense",
                  _pair(r.macs_kept, r.macs_dense)) for r in self.layers]
        rows.append(("total", f"{self.parameters:,} parameters", f"{sum(r.nnz for r in self.layers):,}",
                     f"{self.density:.4f}", _pair(self.macs_kept, self.macs_dense)))
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = ["  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
                 for row in rows]
        size = (f"{self.bytes_sparse:,} bytes ({self.bytes_values:,} of values, {self.bytes_masks:,} of masks), "
                f"dense {self.bytes_dense:,}")
        return "\n".join([*lines, size, *self.notes, CONVENTIONS])


def sparsity_report(model: nn.Module, masks: Mapping[str, Tensor] | None = None, *,
                    example: Tensor | tuple[Any, ...] | None = None) -> SparsityReport:
    """Count the weights, bytes and multiply-adds of a model.

    Parameters
    ----------
    model
        Any module. It is not changed.
    masks
        Boolean masks by parameter name, True where a weight is kept. A kept weight counts even if its value is zero.
    example
        An input (or a tuple of arguments): one forward pass in evaluation mode counts the multiply-adds, of the whole
        batch. Without it they are not counted.

    Raises
    ------
    TypeError, ValueError
        If a mask names no weight of a linear or convolutional layer, is not boolean, or has another shape.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    masks = {} if masks is None else masks
    names: dict[int, str] = {}
    holders: dict[str, list[str]] = {}
    weights: dict[str, nn.Parameter] = {}
    transposed: dict[str, bool] = {}
    for layer, module in model.named_modules(remove_duplicate=False):
        weight = stored_weight(module) if isinstance(module, LAYERS) else None
        if weight is not None:
            name = names.setdefault(id(weight), f"{layer}.weight" if layer else "weight")
            holders.setdefault(name, []).append(layer)
            weights[name], transposed[name] = weight, isinstance(module, _TRANSPOSED)
    for name, mask in masks.items():
        if name not in weights:
            raise ValueError(f"masks names {name!r}, which is no weight of a linear or convolutional layer")
        if mask.dtype != torch.bool:
            raise TypeError(f"the mask of {name} must be boolean, got {mask.dtype}")
        if mask.shape != weights[name].shape:
            raise ValueError(f"the mask of {name} must have shape {tuple(weights[name].shape)}, "
                             f"got {tuple(mask.shape)}")
    uses = None if example is None else _positions(model, names, example)
    records = tuple(_record(n, w, masks.get(n), None if uses is None else uses.get(n, 0), transposed[n])
                    for n, w in weights.items())
    other = [p for p in model.parameters() if id(p) not in names]
    return SparsityReport(records, sum(p.numel() for p in other), sum(p.numel() * p.element_size() for p in other),
                          tuple(_notes(records, holders)))


def _record(name: str, weight: Tensor, mask: Tensor | None, positions: int | None, transposed: bool) -> LayerRecord:
    nnz = weight.numel() if mask is None else int(mask.sum())
    empty = 0 if mask is None else int((~mask.movedim(int(transposed), 0).flatten(1).any(dim=1)).sum())
    return LayerRecord(
        name, tuple(weight.shape), weight.numel(), nnz, mask is not None, empty,
        None if positions is None else weight.numel() * positions, None if positions is None else nnz * positions,
        weight.element_size())


def _positions(model: nn.Module, names: Mapping[int, str], example: Tensor | tuple[Any, ...]) -> dict[str, int]:
    """How often each weight's entries are multiplied in one forward pass: once for each place of the kernel."""
    uses: dict[str, int] = {}

    def count(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        weight = stored_weight(module)
        assert weight is not None
        if isinstance(module, _TRANSPOSED):
            places = args[0].numel() // weight.shape[0]
        else:
            places = out.numel() // weight.shape[0]
        name = names[id(weight)]
        uses[name] = uses.get(name, 0) + places

    training = {m: m.training for m in model.modules()}
    handles = [m.register_forward_hook(count) for m in model.modules()
               if isinstance(m, LAYERS) and stored_weight(m) is not None]
    try:
        model.eval()
        with torch.no_grad():
            model(*(example if isinstance(example, tuple) else (example,)))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    return uses


def _notes(records: tuple[LayerRecord, ...], holders: Mapping[str, list[str]]) -> list[str]:
    notes = [f"{name} is shared with {', '.join(layers[1:])} and counted once in bytes"
             for name, layers in holders.items() if len(layers) > 1]
    notes += [f"{r.name} was not reached by the example: no multiply-adds counted"
              for r in records if r.macs_dense == 0]
    notes += [f"{r.name} keeps no weight: its layer passes nothing on" for r in records if r.nnz == 0]
    notes += [f"{r.name} keeps one weight of {r.weights:,}: its density rounds to nearly nothing"
              for r in records if r.masked and r.nnz == 1 < r.weights]
    channels = sum(r.zeroed_channels for r in records)
    if channels:
        notes.append(f"{channels} output channels keep no weight; they are zeroed, not removed")
    return notes


def _total(counts: list[int | None]) -> int | None:
    known = [c for c in counts if c is not None]
    return sum(known) if len(known) == len(counts) else None


def _pair(kept: int | None, dense: int | None) -> str:
    return "-" if kept is None or dense is None else f"{kept:,} / {dense:,}"
