"""Norms that torch computes slowly: Euclidean ones over some axes, and the largest modulus."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsepriors import _compiled


def euclidean(x: Tensor, dim: tuple[int, ...], *, keepdim: bool = False) -> Tensor:
    """The same as ``torch.linalg.vector_norm(x, dim=dim)``, up to a hundred times faster.

    That function is slow over leading axes and for complex entries; here squares are summed instead. Where a gradient
    is asked for it is used all the same, because the gradient of a root is not finite at zero.
    """
    if x.requires_grad and torch.is_grad_enabled():
        return torch.linalg.vector_norm(x, dim=dim, keepdim=keepdim)
    axes = tuple(d % x.ndim for d in dim)
    if set(axes) != set(range(x.ndim - len(axes), x.ndim)):
        squares = x.real.square() + x.imag.square() if x.is_complex() else x.square()
        return squares.sum(dim=axes, keepdim=keepdim).sqrt()
    if not x.is_complex():
        return torch.linalg.vector_norm(x, dim=axes, keepdim=keepdim)
    norm = torch.linalg.vector_norm(torch.view_as_real(x.resolve_conj()), dim=(*axes, x.ndim), keepdim=keepdim)
    return norm[..., 0] if keepdim else norm


def largest_modulus(x: Tensor) -> float:
    """The largest modulus of a real or imaginary part of a floating or complex tensor, 0 if it is empty.

    Infinity or NaN if there is one: one pass tells whether every entry is finite.
    """
    if not x.numel():
        return 0.0
    native = _compiled.NATIVE
    if (native is not None and x.is_cpu and x.dtype in _compiled.DTYPES and x.is_contiguous()
            and native.in_memory(x)):
        return native.largest_modulus(x, torch.get_num_threads(), _compiled.FIRST)
    x = x.detach() if x.requires_grad else x
    low, high = torch.aminmax(torch.view_as_real(x.resolve_conj()) if x.is_complex() else x)
    return max(-low.item(), high.item())
