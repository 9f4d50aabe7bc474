"""What became of every layer of a network that was converted for inference, and what it gains."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsepriors.networks.packed_linear import PackedLinear
from sparsepriors.networks.sparse_inference.layers import ClampedConv, SparseConv1x1, SparseLinear


@dataclass(frozen=True)
class LayerChoice:
    """One convolution or linear layer.

    Attributes
    ----------
    name
        Its name in the network.
    kind
        ``"conv"`` or ``"linear"``.
    shape
        Shape of its input in the example; empty if the example does not reach it.
    sparsity
        Share of its weights that are zero.
    why
        Why it stayed dense; empty if it is packed.
    folds
        Modules that were folded into it.
    kernel
        What runs it: ``"dense"`` or the name of the packed form.
    ms, dense_ms
        Milliseconds of the packed layer and of the same layer with dense weights; ``None`` if it stayed dense.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    sparsity: float
    why: str
    folds: tuple[str, ...]
    kernel: str = "dense"
    ms: float | None = None
    dense_ms: float | None = None

    @property
    def gain(self) -> float | None:
        """Time of the dense layer over that of the packed one."""
        return None if not self.ms or self.dense_ms is None else self.dense_ms / self.ms


@dataclass(frozen=True)
class InferenceReport:
    """The layers of a converted network."""

    layers: tuple[LayerChoice, ...]

    @property
    def packed(self) -> tuple[LayerChoice, ...]:
        """Those that are packed."""
        return tuple(layer for layer in self.layers if not layer.why)

    @property
    def gain(self) -> float | None:
        """Time of all packed layers if they were dense, over their time; ``None`` if none is packed."""
        timed = [(layer.dense_ms, layer.ms) for layer in self.packed if layer.dense_ms is not None and layer.ms]
        return sum(d for d, _ in timed) / sum(s for _, s in timed) if timed else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {"gain": self.gain, "layers": [{**dataclasses.asdict(layer), "shape": list(layer.shape),
                                               "folds": list(layer.folds), "gain": layer.gain}
                                              for layer in self.layers]}

    def to_text(self) -> str:
        """A table for the terminal."""
        width = max([len(layer.name) for layer in self.layers] or [5])
        lines = [f"{'layer':{width}}  {'input':>18}  {'zeros':>6}  {'kernel':12}  {'ms':>8}  {'dense ms':>8}  "
                 f"{'gain':>5}"]
        for layer in self.layers:
            shape = " x ".join(map(str, layer.shape))
            times = layer.why if layer.ms is None or layer.dense_ms is None else (
                f"{layer.ms:8.3f}  {layer.dense_ms:8.3f}  {layer.gain:5.2f}")
            lines.append(f"{layer.name:{width}}  {shape:>18}  {layer.sparsity:6.1%}  {layer.kernel:12}  {times}")
        gain = "" if self.gain is None else f"; together {self.gain:.2f} times as fast as with dense weights"
        return "\n".join([*lines, f"{len(self.packed)} of {len(self.layers)} layers are packed{gain}"])

    def __str__(self) -> str:
        return self.to_text()


def timed(choice: LayerChoice, layer: nn.Module, repeats: int) -> LayerChoice:
    """The choice with the times of a packed layer and its dense twin on random input of the example's shape."""
    if choice.why:
        return choice
    kernel = type(layer).__name__
    if isinstance(layer, PackedLinear):
        kernel = f"{layer.n}:{layer.m}"
    elif isinstance(layer, SparseConv1x1):
        kernel = f"spmm {layer.block} x 1"
    else:
        return dataclasses.replace(choice, kernel=kernel)
    x = torch.randn(choice.shape, generator=torch.Generator().manual_seed(0))
    twin = _dense_twin(layer)
    with torch.inference_mode():
        ms, dense_ms = (1e3 * min(_seconds(lambda run=run: run(x)) for _ in range(repeats + 1))
                        for run in (layer, twin))
    return dataclasses.replace(choice, kernel=kernel, ms=ms, dense_ms=dense_ms)


def _dense_twin(layer: SparseConv1x1 | PackedLinear) -> nn.Module:
    weight, bias = layer.packed.dense(), layer.packed.bias
    outputs, channels = weight.shape
    if isinstance(layer, SparseConv1x1) and not isinstance(layer, SparseLinear):
        conv = nn.Conv2d(channels, outputs, 1)
        _fill(conv, weight[:, :, None, None], bias)
        return ClampedConv(conv, layer.lo, layer.hi)
    linear = nn.Linear(channels, outputs)
    _fill(linear, weight, bias)
    return linear


@torch.no_grad()
def _fill(layer: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    layer.weight.copy_(weight)
    assert layer.bias is not None
    layer.bias.copy_(torch.zeros(len(weight)) if bias is None else bias)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
