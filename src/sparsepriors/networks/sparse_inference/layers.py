"""Layers whose weights are packed: sparse 1 x 1 convolutions and linear layers, and dense convolutions with a clamp."""

from __future__ import annotations

import copy
import math
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from sparsepriors.kernels import PackedCHW, pack_1x1, spmm_chw

_TENSORS = ("values", "columns", "starts", "rows", "bias")


class SparseConv1x1(nn.Module):
    """A 1 x 1 convolution with packed sparse weights, its bias and a clamp, in one pass over the pixels.

    Inference only: weights are buffers. A state dict of it loads into a layer that was packed from weights of the same
    pattern sizes; damaged indices are refused when they are loaded.

    Parameters
    ----------
    packed
        The weights.
    lo, hi
        Bounds of the result: 0 and 6 for ReLU6.
    """

    def __init__(self, packed: PackedCHW, lo: float = -math.inf, hi: float = math.inf) -> None:
        super().__init__()
        self.channels, self.block, self.lo, self.hi = packed.channels, packed.block, lo, hi
        for name in _TENSORS:
            self.register_buffer(name, getattr(packed, name))
        self._held: PackedCHW | None = packed
        self.register_load_state_dict_post_hook(_loaded)

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, norm: nn.BatchNorm2d | None = None, act: nn.Module | None = None,
                  block: int | str = "auto") -> Self:
        """Pack a convolution, the batch normalisation (in evaluation mode) and the activation that follow it.

        Raises
        ------
        TypeError, ValueError
            If the convolution is not 1 x 1 with stride 1, no padding and one group, its weights are not finite float32,
            the activation is no clamp, or the normalisation is in training mode or keeps no statistics.
        """
        why = why_not_1x1(conv)
        if why:
            raise ValueError(f"conv must be a plain 1 x 1 convolution, but {why}")
        conv = folded(conv, norm)
        return cls(pack_1x1(conv.weight, conv.bias, block), *bounds(act))

    @property
    def packed(self) -> PackedCHW:
        """The weights."""
        if self._held is None or self._held.values is not self.values:
            self._held = PackedCHW(**{name: getattr(self, name) for name in _TENSORS}, channels=self.channels,
                                   block=self.block)
        return self._held

    def forward(self, x: Float[Tensor, "batch channels *pixels"]) -> Float[Tensor, "batch outputs *pixels"]:
        """Convolve a batch of images."""
        return spmm_chw(x, self.packed, self.lo, self.hi)

    def extra_repr(self) -> str:
        clamp = "" if (self.lo, self.hi) == (-math.inf, math.inf) else f", clamp=({self.lo:g}, {self.hi:g})"
        return f"{self.channels}, {self.packed.outputs}, block={self.block}, density={self.packed.density:.3f}{clamp}"


class SparseLinear(SparseConv1x1):
    """A linear layer with packed sparse weights; rows of the input are the pixels."""

    @classmethod
    def from_linear(cls, linear: nn.Linear, block: int | str = "auto") -> Self:
        """Pack a linear layer.

        Raises
        ------
        TypeError, ValueError
            If its weights are not finite float32.
        """
        return cls(pack_1x1(linear.weight, linear.bias, block))

    def forward(self, x: Float[Tensor, "*rows channels"]) -> Float[Tensor, "*rows outputs"]:
        """Apply the layer to every row."""
        y = spmm_chw(x.reshape(-1, x.shape[-1], 1), self.packed, self.lo, self.hi)
        return y.reshape(*x.shape[:-1], self.packed.outputs)


class ClampedConv(nn.Module):
    """A dense convolution and a clamp in place."""

    def __init__(self, conv: nn.Conv2d, lo: float, hi: float) -> None:
        super().__init__()
        self.conv, self.lo, self.hi = conv, lo, hi

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch outputs rows columns"]:
        """Convolve a batch of images."""
        y = self.conv(x)
        return y.clamp_(self.lo, self.hi) if not y.requires_grad else y.clamp(self.lo, self.hi)


def why_not_1x1(conv: nn.Conv2d) -> str:
    """Why `spmm_chw` cannot stand for this convolution; empty if it can."""
    if conv.kernel_size != (1, 1):
        return f"its kernel is {' x '.join(map(str, conv.kernel_size))}"
    if conv.stride != (1, 1):
        return f"its stride is {' x '.join(map(str, conv.stride))}"
    if conv.groups != 1:
        return f"it has {conv.groups} groups"
    if conv.padding not in ((0, 0), "valid", "same"):
        return f"its padding is {conv.padding}"
    return ""


def is_clamp(module: nn.Module) -> bool:
    """Whether `bounds` knows this activation."""
    return type(module) in (nn.ReLU, nn.ReLU6, nn.Hardtanh)


def bounds(act: nn.Module | None) -> tuple[float, float]:
    """Bounds of an activation that is a clamp: ReLU, ReLU6, Hardtanh; infinite ones for none."""
    if act is None:
        return -math.inf, math.inf
    if type(act) is nn.ReLU:
        return 0.0, math.inf
    if isinstance(act, nn.Hardtanh) and is_clamp(act):
        return float(act.min_val), float(act.max_val)
    raise TypeError(f"act must be ReLU, ReLU6 or Hardtanh, got {type(act).__name__}")


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> nn.Conv2d:
    """A copy of the convolution that includes the normalisation; the convolution itself without one.

    Raises
    ------
    ValueError
        If the normalisation is in training mode or keeps no running statistics.
    """
    if norm is None:
        return conv
    if norm.training or norm.running_mean is None or norm.running_var is None:
        raise ValueError("norm must be in evaluation mode and keep running statistics")
    found = copy.deepcopy(conv).eval()
    found.weight, found.bias = fuse_conv_bn_weights(conv.weight, conv.bias, norm.running_mean, norm.running_var,
                                                    norm.eps, norm.weight, norm.bias)
    return found


def _loaded(module: nn.Module, _: Any) -> None:
    """Check what was loaded before a kernel follows its indices."""
    assert isinstance(module, SparseConv1x1)
    module._held = None
    with torch.no_grad():
        assert module.packed
