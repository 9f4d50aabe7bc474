"""Packed weights of sparse 1 x 1 convolutions on channel-planar activations."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels import dispatch
from sparsepriors.kernels.packed import Packed

BLOCKS = (1, 2, 4)
"""Output channels of one block: they share their kept input channels, so that a pixel is loaded once for all."""

_RATES = {1: 1.0, 2: 1.5, 4: 1.7}  # stored weights per second, relative to single rows, where the caches hold all


@dataclass(frozen=True, eq=False)
class PackedCHW(Packed):
    """A sparse matrix (output channels, input channels), by blocks of output channels, with the bias of each.

    The first ``outputs // block`` blocks have ``block`` output channels, the others one. Among equally large ones,
    blocks with more kept input channels come first, so that a processor can foresee how long each takes.

    Attributes
    ----------
    values
        float32, ``block`` values of every kept input channel of every block, zeros among them included.
    columns
        int32, the kept input channels, increasing within a block.
    starts
        int32, ``(blocks + 1,)``: block b keeps ``columns[starts[b]:starts[b + 1]]``.
    rows
        int32, ``(blocks,)``: the first output channel of every block.
    bias
        float32, ``(outputs,)``.
    channels
        Input channels.
    block
        1, 2 or 4.

    References
    ----------
    Elsen, Dukhan, Gale and Simonyan, "Fast Sparse ConvNets", 2020, section 3 (arXiv:1911.09723).
    """

    values: Tensor
    columns: Tensor
    starts: Tensor
    rows: Tensor
    bias: Tensor
    channels: int
    block: int

    def __post_init__(self) -> None:
        _checks.count("channels", self.channels)
        if self.block not in BLOCKS:
            raise ValueError(f"block must be one of {BLOCKS}, got {self.block!r}")
        for names, dtype in ((("values", "bias"), torch.float32), (("columns", "starts", "rows"), torch.int32)):
            for name in names:
                t = getattr(self, name)
                if not isinstance(t, Tensor) or t.dtype != dtype or t.ndim != 1 or not t.is_contiguous():
                    raise ValueError(f"{name} must be a contiguous vector of {dtype}")
        full, blocks, kept = self.outputs // self.block, self.outputs // self.block + self.outputs % self.block, \
            self.columns.numel()
        if self.starts.numel() != blocks + 1 or self.rows.numel() != blocks:
            raise ValueError(f"starts and rows must have {blocks + 1} and {blocks} entries for {self.outputs} outputs "
                             f"in blocks of {self.block}, got {self.starts.numel()} and {self.rows.numel()}")
        if int(self.starts[0]) or int(self.starts[-1]) != kept or bool((self.starts.diff() < 0).any()):
            raise ValueError(f"starts must rise from 0 to the {kept} kept input channels")
        if kept and not 0 <= int(self.columns.min()) <= int(self.columns.max()) < self.channels:
            raise ValueError(f"columns must be from 0 to {self.channels - 1}")
        stored = int(self.starts[full]) * (self.block - 1) + kept
        if self.values.numel() != stored:
            raise ValueError(f"values must have {stored} entries, got {self.values.numel()}")
        due = torch.cat((torch.arange(full) * self.block, torch.arange(full * self.block, self.outputs)))
        found = torch.cat((self.rows[:full].sort().values, self.rows[full:].sort().values)).cpu()
        if not torch.equal(found.long(), due):
            raise ValueError("rows must name the first output channel of every block once, those of one channel last")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "compiled"}

    @functools.cached_property
    def outputs(self) -> int:
        """Output channels."""
        return self.bias.numel()

    @functools.cached_property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.values.device

    @functools.cached_property
    def is_cpu(self) -> bool:
        """Whether they are on the CPU."""
        return self.values.is_cpu

    @property
    def nnz(self) -> int:
        """Weights that are not zero."""
        return int(torch.count_nonzero(self.values))

    @property
    def density(self) -> float:
        """Share of weights that are not zero."""
        return self.nnz / max(1, self.outputs * self.channels)

    @functools.cached_property
    def compiled(self) -> Any:
        """The same weights as the compiled kernel reads them; made at the first call."""
        assert dispatch.NATIVE is not None
        return dispatch.NATIVE.SpmmWeights(self.values, self.columns, self.starts, self.rows, self.bias, self.channels,
                                           self.block)

    def entries(self) -> tuple[Tensor, Tensor, Tensor]:
        """Output channel, input channel (int64) and value of every stored weight."""
        full = self.outputs // self.block
        first = torch.repeat_interleave(self.rows.long(), self.starts.diff().long())
        columns, at = self.columns.long(), int(self.starts[full])
        within = torch.arange(self.block, device=first.device)
        rows = torch.cat(((first[:at, None] + within).flatten(), first[at:]))
        return rows, torch.cat((columns[:at].repeat_interleave(self.block), columns[at:])), self.values

    def dense(self) -> Tensor:
        """The weights that were packed, ``(outputs, channels)``."""
        rows, columns, values = self.entries()
        return values.new_zeros(self.outputs, self.channels).index_put_((rows, columns), values)


def pack_1x1(weight: Tensor, bias: Tensor | None = None, block: int | str = "auto") -> PackedCHW:
    """Pack the weights of a 1 x 1 convolution, or of a linear layer.

    Parameters
    ----------
    weight
        ``(outputs, channels)`` or ``(outputs, channels, 1, 1)``, float32; what is exactly zero is left out.
    bias
        ``(outputs,)``, float32; zeros by default.
    block
        Output channels that share their kept input channels: 1, 2, 4, or ``"auto"`` for what runs fastest with this
        pattern. Larger blocks run faster, but a block is kept for an input channel when one of its weights is not zero.

    Raises
    ------
    TypeError, ValueError
        If a tensor is not float32, has another shape or NaN or infinite entries, or the block is another.
    """
    weight = _float32("weight", weight)
    if weight.ndim == 4 and weight.shape[2:] == (1, 1):
        weight = weight[:, :, 0, 0]
    if weight.ndim != 2:
        raise ValueError(f"weight must have shape (outputs, channels) or (outputs, channels, 1, 1), got "
                         f"{tuple(weight.shape)}")
    outputs, channels = weight.shape
    bias = weight.new_zeros(outputs) if bias is None else _float32("bias", bias)
    if bias.shape != (outputs,):
        raise ValueError(f"bias must have shape ({outputs},), got {tuple(bias.shape)}")
    if block != "auto" and (block not in BLOCKS or isinstance(block, bool)):
        raise ValueError(f"block must be 1, 2, 4 or 'auto', got {block!r}")
    size = best_block(weight) if isinstance(block, str) else block
    full = outputs // size
    grouped, single = weight[:full * size].reshape(full, size, channels), weight[full * size:, None]
    parts = [_packed(grouped), _packed(single)]
    starts = torch.cat([torch.zeros(1, dtype=torch.int64, device=weight.device),
                        torch.cat([counts for *_, counts in parts]).cumsum(0)])
    rows = torch.cat((parts[0][0] * size, parts[1][0] + full * size))
    columns, values = (torch.cat([part[i] for part in parts]) for i in (1, 2))
    return PackedCHW(values, columns.int(), starts.int(), rows.int(), bias.clone(), channels, size)


def best_block(weight: Tensor) -> int:
    """The block that runs fastest for a matrix (outputs, channels) of this pattern."""
    kept = weight != 0
    seconds = {}
    for size in BLOCKS:
        full = weight.shape[0] // size
        blocks = int(kept[:full * size].reshape(full, size, weight.shape[1]).any(dim=1).sum())
        seconds[size] = blocks * size / _RATES[size] + int(kept[full * size:].sum()) / _RATES[1]
    return min(BLOCKS, key=lambda size: (seconds[size], -size))


def _packed(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Numbers of the blocks (n, size, channels) in their new order, kept columns, values, and how many are kept."""
    kept = (blocks != 0).any(dim=1)
    counts = kept.sum(dim=1)
    order = counts.argsort(descending=True, stable=True)
    kept, blocks = kept[order], blocks[order]
    which, columns = kept.nonzero(as_tuple=True)
    return order, columns, blocks[which, :, columns].flatten(), counts[order]


def _float32(name: str, t: object) -> Tensor:
    t = _checks.inexact(name, t).detach()
    _checks.same_dtype(name, t, torch.float32)
    return t.contiguous()
