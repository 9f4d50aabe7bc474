"""The product of activations and a packed N:M weight."""

from __future__ import annotations

import weakref
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels import dispatch, reference
from sparsepriors.kernels.packed_nm import DTYPES, PackedNM

_LAYERS: weakref.WeakKeyDictionary[PackedNM, Any] = weakref.WeakKeyDictionary()  # the compiled module's view of each


def nm_linear(x: Tensor, packed: PackedNM, *, instruction_set: str | None = None) -> Tensor:
    """As `reference.nm_linear`: compiled on the CPU, in Triton on CUDA devices where it is installed.

    The result does not depend on the number of threads, and a row of it not on the other rows. Entries of x that meet
    no stored value are not looked at: an infinite one does no harm there, where the dense product would be NaN. The
    gradient with respect to x is that of the dense layer.

    Parameters
    ----------
    x
        ``(..., in_features)``, float32 or bfloat16; sums are made in float32.
    packed
        From `pack_linear_nm`, on the same device.
    instruction_set
        One of `instruction_sets`, by default the first.

    Returns
    -------
    Tensor
        ``(..., out_features)``, of the dtype of ``x``.

    Raises
    ------
    TypeError, ValueError
        If ``x`` does not fit the weight, or the instruction set is not to be had.
    """
    if not isinstance(packed, PackedNM):
        raise TypeError(f"packed must be a PackedNM, got {type(packed).__name__}")
    if not isinstance(x, Tensor) or x.dtype not in DTYPES:
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x must be a float32 or bfloat16 tensor, got {got}")
    _checks.trailing_shape("x", x, (packed.in_features,))
    if x.device != packed.values.device:
        raise ValueError(f"x must be on {packed.values.device}, where the weight is, got {x.device}")
    path = dispatch.code_path(instruction_set)
    if x.requires_grad and torch.is_grad_enabled():
        return _Differentiable.apply(x, packed, path)  # pyright: ignore[reportReturnType]
    return _product(x.detach(), packed, path)


def _product(x: Tensor, packed: PackedNM, path: str) -> Tensor:
    native = dispatch.NATIVE if x.device.type == "cpu" else None
    in_triton = x.device.type == "cuda" and find_spec("triton") is not None
    if not x.numel() or (native is None and not in_triton):
        return reference.nm_linear(x, packed)
    rows = x.reshape(-1, packed.in_features).contiguous()
    if native is None:
        from sparsepriors.kernels import triton_nm

        y = triton_nm.nm_linear(rows, packed)
    else:
        y = rows.new_empty((rows.shape[0], packed.out_features))
        layer, threads = _layer(native, packed), torch.get_num_threads()
        if x.dtype == torch.float32:
            layer.product(rows, y, threads, path)
        else:
            layer.product_bfloat16(_raw(rows), _raw(y), threads, path)
    return y.reshape(*x.shape[:-1], packed.out_features)


def _layer(native: ModuleType, packed: PackedNM) -> Any:
    layer = _LAYERS.get(packed)
    if layer is None:
        bias = None if packed.bias is None else packed.bias.contiguous()
        layer = native.NMLayer(_raw(packed.values.detach().contiguous()), packed.places.contiguous(), bias,
                               packed.out_features, packed.in_features, packed.n, packed.m, packed.bits)
        _LAYERS[packed] = layer
    return layer


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: PackedNM, path: str) -> Tensor:
        ctx.packed = packed
        return _product(x.detach(), packed, path)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        return (grad.float() @ ctx.packed.dense().float()).to(grad.dtype), None, None


def _raw(values: Tensor) -> Tensor:
    """Bits of bfloat16 values, which the compiled module knows as integers."""
    return values.view(torch.int16) if values.dtype == torch.bfloat16 else values
