"""Sparse 1 x 1 convolutions (and linear layers) on the CPU, faster than dense ones from about half of zeros on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels import dispatch, reference
from sparsepriors.kernels.chw import PackedCHW
from sparsepriors.kernels.dispatch import code_path


def spmm_chw(x: Tensor, packed: PackedCHW, lo: float = -math.inf, hi: float = math.inf, out: Tensor | None = None, *,
             instruction_set: str | None = None) -> Tensor:
    """``clamp(W x + bias, lo, hi)`` at every pixel, for sparse W.

    Each kept weight multiplies a run of pixels of its input channel, so activations stay dense and nothing is gathered.
    Weights that are zero and not stored are not multiplied: NaN and infinity in their input channel do not matter.
    Sums run over increasing input channels in float32; the number of threads changes no bit.

    Parameters
    ----------
    x
        ``(batch, channels, *pixels)``, float32: images ``(batch, channels, height, width)``, or rows of a linear layer
        ``(rows, channels, 1)``. Copied if it is not contiguous.
    packed
        Weights and bias.
    lo, hi
        Bounds of the result, such as 0 and 6 for ReLU6.
    out
        Where the result goes: float32, ``(batch, outputs, *pixels)``, contiguous, no memory shared with ``x``.
    instruction_set
        One of `instruction_sets`, by default the first.

    Returns
    -------
    Tensor
        ``(batch, outputs, *pixels)``.

    Raises
    ------
    TypeError, ValueError
        If a tensor has another dtype, shape, device or layout, or ``lo <= hi`` does not hold.

    References
    ----------
    Elsen, Dukhan, Gale and Simonyan, "Fast Sparse ConvNets", 2020 (arXiv:1911.09723).
    """
    if not isinstance(packed, PackedCHW):
        raise TypeError(f"packed must be PackedCHW, got {type(packed).__name__}")
    if not isinstance(x, Tensor) or x.dtype is not torch.float32:
        raise TypeError(f"x must be a float32 tensor, got {x.dtype if isinstance(x, Tensor) else type(x).__name__}")
    shape = x.shape
    if len(shape) < 3 or shape[1] != packed.channels:
        raise ValueError(f"x must have shape (batch, {packed.channels}, *pixels), got {tuple(shape)}")
    on_cpu = x.is_cpu and packed.is_cpu   # known sooner than whether two devices are the same
    if not on_cpu and x.device != packed.device:
        raise ValueError(f"x must be on {packed.device} like the weights, got {x.device}")
    if not lo <= hi:
        raise ValueError(f"lo must be at most hi, got {lo} and {hi}")
    path, native = code_path(instruction_set), dispatch.NATIVE
    images, outputs = shape[0], packed.outputs
    if out is not None:
        _checked_out(out, x, (images, outputs, *shape[2:]))
    if native is None or not on_cpu or (x.requires_grad and torch.is_grad_enabled()):
        return reference.spmm_chw(x, packed, lo, hi, out)
    x = x.contiguous()
    # Torch reads sizes sooner when each is written out than when they come in a list, or in a tuple.
    if out is not None:
        y = out
    elif len(shape) == 3:
        y = x.new_empty(images, outputs, shape[2])
    elif len(shape) == 4:
        y = x.new_empty(images, outputs, shape[2], shape[3])
    else:
        y = x.new_empty(images, outputs, *shape[2:])
    native.spmm_chw(packed.compiled, x, lo, hi, y, torch.get_num_threads(), path)
    return y


def _checked_out(out: Tensor, x: Tensor, shape: tuple[int, ...]) -> None:
    _checks.same_dtype("out", out, torch.float32)
    if out.shape != shape or out.device != x.device or not out.is_contiguous():
        raise ValueError(f"out must be contiguous, on {x.device}, of shape {shape}, got {tuple(out.shape)} on "
                         f"{out.device}")
    if out.numel() and out.untyped_storage().data_ptr() == x.untyped_storage().data_ptr():
        raise ValueError("out must not share memory with x")
