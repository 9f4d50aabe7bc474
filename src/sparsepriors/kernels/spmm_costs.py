"""How long sparse and dense 1 x 1 convolutions take on a machine, from a few measured numbers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sparsepriors import _checks
from sparsepriors._described import Described
from sparsepriors.kernels.chw import BLOCKS, PackedCHW, pack_1x1
from sparsepriors.kernels.spmm import spmm_chw

LANES = 16
"""Pixels that the costs count as one: images are rounded up to multiples of it."""

_SHAPES = ((16, 3136, 24, 144), (1, 784, 192, 32), (1, 196, 96, 576), (1, 196, 384, 64), (1, 49, 960, 160),
           (1, 196, 512, 512), (1, 196, 64, 64), (1, 9, 64, 64))
_DENSITIES = (0.05, 0.2, 0.4)


@dataclass(frozen=True)
class SpmmCosts(Described):
    """Nanoseconds of the parts of a 1 x 1 convolution; pixels count in sixteens.

    Attributes
    ----------
    call, dense_call, linear_call
        Of a call of `spmm_chw`, of a dense convolution, and of a dense linear layer.
    weight
        Of one stored weight on 16 pixels, in blocks of 1, 2 and 4 output channels.
    read, write
        Of 16 pixels of one input channel, and of one output channel.
    multiply
        Dense: of one weight on 16 pixels.
    dense_move
        Dense: of 16 pixels of one input or output channel.

    The defaults were measured on one thread of an AMD EPYC of the fourth generation (AVX-512, 32 KiB and 1 MiB of cache
    per core); `calibrate` measures the machine at hand.
    """

    call: float = 2_800.0
    weight: tuple[float, float, float] = (0.44, 0.31, 0.25)
    read: float = 0.0
    write: float = 1.7
    dense_call: float = 10_000.0
    multiply: float = 0.337
    dense_move: float = 0.4
    linear_call: float = 1_900.0

    def __post_init__(self) -> None:
        for name in ("call", "read", "write", "dense_call", "multiply", "dense_move", "linear_call"):
            _checks.nonnegative(name, getattr(self, name))
        if len(self.weight) != len(BLOCKS):
            raise ValueError(f"weight must have one entry for each block of {BLOCKS}, got {self.weight}")
        for value in self.weight:
            _checks.nonnegative("weight", value)

    def sparse(self, images: int, pixels: int, packed: PackedCHW) -> float:
        """Seconds of `spmm_chw` on images of so many pixels."""
        return 1e-9 * float(_sparse_parts(images, pixels, packed) @ np.array([
            self.call, *self.weight, self.read, self.write]))

    def dense(self, images: int, pixels: int, channels: int, outputs: int, *, linear: bool = False) -> float:
        """Seconds of a dense convolution on them, or of a linear layer on rows, which are images of one pixel."""
        return 1e-9 * float(_dense_parts(images, pixels, channels, outputs) @ np.array([
            self.linear_call if linear else self.dense_call, self.multiply, self.dense_move]))

    def pays(self, images: int, pixels: int, packed: PackedCHW, *, linear: bool = False) -> bool:
        """Whether the sparse one is expected to be faster."""
        dense = self.dense(images, pixels, packed.channels, packed.outputs, linear=linear)
        return self.sparse(images, pixels, packed) < dense


def calibrate(*, repeats: int = 9) -> SpmmCosts:
    """Measure the costs on this machine with torch's present number of threads; about two seconds.

    The numbers are fitted to the fastest of ``repeats`` runs of some thirty cases, by nonnegative least squares of
    relative errors. Keep the result (``to_dict``) and hand it to whatever asks for costs: nothing is remembered here.
    """
    from scipy.optimize import nnls

    _checks.count("repeats", repeats, low=1)
    generator = torch.Generator().manual_seed(0)
    sparse: list[tuple[np.ndarray, float]] = []
    dense: list[tuple[np.ndarray, float]] = []
    with torch.inference_mode():
        for images, pixels, channels, outputs in _SHAPES:
            x = torch.randn(images, channels, pixels, generator=generator)
            weight = torch.randn(outputs, channels, generator=generator)
            dense.append((_dense_parts(images, pixels, channels, outputs), _fastest(
                lambda x=x, w=weight: functional.conv2d(x[..., None], w[:, :, None, None]), repeats)))
            for density in _DENSITIES:
                for block in BLOCKS:
                    packed = pack_1x1(_blocks(weight, density, block, generator), block=block)
                    sparse.append((_sparse_parts(images, pixels, packed),
                                   _fastest(lambda x=x, p=packed: spmm_chw(x, p), repeats)))
    call, *weights, read, write = (1e9 * nnls(*_relative(sparse))[0]).tolist()
    dense_call, multiply, move = (1e9 * nnls(*_relative(dense))[0]).tolist()
    row, square = torch.zeros(1, LANES), torch.zeros(LANES, LANES)
    linear_call = 1e9 * _fastest(lambda: functional.linear(row, square), repeats)
    return SpmmCosts(call, tuple(weights), read, write, dense_call, multiply, move, linear_call)


def _sparse_parts(images: int, pixels: int, packed: PackedCHW) -> np.ndarray:
    vectors = images * -(-pixels // LANES) if pixels >= LANES else -(-images * pixels // LANES)
    single = packed.values.numel() - (blocked := int(packed.starts[packed.outputs // packed.block]) * packed.block)
    stored = np.zeros(len(BLOCKS))
    stored[0] = single
    stored[BLOCKS.index(packed.block)] += blocked
    return np.array([1.0, *stored * vectors, packed.channels * vectors, packed.outputs * vectors])


def _dense_parts(images: int, pixels: int, channels: int, outputs: int) -> np.ndarray:
    vectors = images * pixels / LANES
    return np.array([1.0, channels * outputs * vectors, (channels + outputs) * vectors])


def _relative(cases: list[tuple[np.ndarray, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([parts / seconds for parts, seconds in cases]), np.ones(len(cases))


def _blocks(weight: Tensor, density: float, block: int, generator: torch.Generator) -> Tensor:
    kept = torch.rand(-(-weight.shape[0] // block), weight.shape[1], generator=generator) < density
    return torch.where(kept.repeat_interleave(block, dim=0)[:weight.shape[0]], weight, 0)


def _fastest(call: Callable[[], object], repeats: int) -> float:
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
