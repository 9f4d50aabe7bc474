"""Keys and values in 8 or 4 bits: affine, one scale per channel over a block of tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sparsepriors import _checks

BITS = (4, 8)
"""Widths that `quantize_kv` takes."""


@dataclass(frozen=True)
class QuantizedKV:
    """Blocks of tokens as integers with their scales and zero points; made by `quantize_kv`.

    Attributes
    ----------
    codes
        ``(..., tokens, dim)`` uint8, or ``(..., tokens, ceil(dim / 2))`` with two codes a byte at 4 bits, low half
        first.
    scale
        ``(..., blocks, dim)`` float32.
    zero
        ``(..., blocks, dim)`` int32.
    bits, block, dim
        Width of a code, tokens of a block, channels.
    dtype
        Of the tensor that was quantised.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor
    bits: int
    block: int
    dim: int
    dtype: torch.dtype

    def dequantize(self) -> Float[Tensor, "... tokens dim"]:
        """The tensor that the codes stand for, ``scale * (code - zero)``, in the dtype of the original."""
        codes = unpack_codes(self.codes, self.bits, self.dim)
        tokens = codes.shape[-2]
        blocks = codes.reshape(*codes.shape[:-2], tokens // self.block, self.block, self.dim)
        return affine(blocks, self.scale[..., None, :], self.zero[..., None, :], self.dtype).reshape(codes.shape)

    def nbytes(self) -> int:
        """Bytes of codes, scales and zero points."""
        return sum(t.numel() * t.element_size() for t in (self.codes, self.scale, self.zero))


def quantize_kv(x: Float[Tensor, "... tokens dim"], bits: int = 8, block: int = 64) -> QuantizedKV:
    """Quantise whole blocks of tokens, each channel of each block with a scale of its own.

    With m and M the least and largest entry of a channel in a block, scale = (M - m) / (2^bits - 1),
    zero = -round(m / scale) and code = round(x / scale) + zero, so that m becomes 0 and M becomes 2^bits - 1; no entry
    moves by more than half a scale (Zhao, Wu and Wang, ISCA 2024, section V-B, with 2^bits - 1 in the zero point, where
    the print has 2^bits). A channel that is constant in its block comes back as it was.

    Parameters
    ----------
    x
        Keys or values; axes before the last two are batches and heads.
    bits
        8 or 4.
    block
        Tokens that share a scale. Their number must divide by it: a block that is still filling is kept as it is and
        quantised once, when it is full, for quantising it again at every token would pile up errors.

    Raises
    ------
    TypeError
        If ``x`` is not a floating point tensor.
    ValueError
        If an entry is not finite, ``bits`` is another width, or the tokens do not fill whole blocks.
    """
    _checks.inexact("x", x)
    if x.is_complex():
        raise TypeError(f"x must be real, got {x.dtype}")
    if bits not in BITS:
        raise ValueError(f"bits must be one of {', '.join(map(str, BITS))}, got {bits}")
    _checks.count("block", block, low=1)
    if x.ndim < 2 or x.shape[-2] % block:
        raise ValueError(f"x must have shape (..., tokens, dim) with tokens a multiple of block = {block}, "
                         f"got {tuple(x.shape)}")
    top = 2**bits - 1
    blocks = x.double().reshape(*x.shape[:-2], x.shape[-2] // block, block, x.shape[-1])
    low, high = blocks.amin(dim=-2), blocks.amax(dim=-2)
    middle = (low + high) / 2
    # Where the range is lost in the rounding of its own offset the channel counts as constant: one step of its value.
    constant = high - low <= middle.abs() * top * 2.0**-24
    scale = torch.where(constant, torch.where(middle == 0, 1.0, middle.abs()), (high - low) / top).float().double()
    zero = torch.where(constant, -middle.sign(), -(low / scale).round())
    codes = ((blocks / scale[..., None, :]).round() + zero[..., None, :]).clamp_(0, top)
    codes = torch.where(constant[..., None, :], 0.0, codes).to(torch.uint8).reshape(x.shape)
    return QuantizedKV(pack_codes(codes, bits), scale.float(), zero.to(torch.int32), bits, block, x.shape[-1], x.dtype)


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Two 4-bit codes of the last axis a byte; 8-bit codes as they are."""
    if bits == 8:
        return codes
    if codes.shape[-1] % 2:
        codes = torch.nn.functional.pad(codes, (0, 1))
    return codes[..., 0::2] | (codes[..., 1::2] << 4)


def unpack_codes(packed: Tensor, bits: int, dim: int) -> Tensor:
    """The inverse of `pack_codes` for ``dim`` codes."""
    if bits == 8:
        return packed
    return torch.stack([packed & 15, packed >> 4], dim=-1).flatten(-2)[..., :dim]


def affine(codes: Tensor, scale: Tensor, zero: Tensor, dtype: torch.dtype) -> Tensor:
    """``scale * (code - zero)`` in float32, then in ``dtype``."""
    return (scale * (codes.to(torch.int32) - zero)).to(dtype)
