"""N:M sparse weights as kernels stream them: sixteen outputs side by side, places in as few bits as they need."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.kernels.packed import Packed

ROWS = 16
"""Outputs of one panel, whose values lie side by side: one lane of a vector each."""

MAX_GROUP = 32
"""Largest m: a group must fit the tables from which vector permutations choose."""

_SLACK = 16  # bytes behind the last record, which kernels may load and do not use
DTYPES = (torch.float32, torch.bfloat16)
"""What values and activations may be."""


@dataclass(frozen=True, eq=False)
class PackedNM(Packed):
    """A weight ``(out_features, in_features)`` with n values in every group of m along a row, as kernels stream it.

    Rows are cut into panels of `ROWS`, the last filled with zeros; the values of a row, group after group, are paired,
    the last with a zero if their number is odd. A place is the column of a value within its group.

    Attributes
    ----------
    values
        ``(panels, pairs, 2, 16)`` in float32, ``(panels, pairs, 16, 2)`` in bfloat16. A group with fewer than n
        nonzeros also holds zeros, at its first free places.
    places
        uint8, flat: for every panel and pair a record of ``4 * bits`` bytes and 16 bytes of slack at the end. The
        place of value h of row r begins at bit ``bits * (2 r + h)`` of the record, least significant bits first.
    bias
        ``(out_features,)`` float32, or None.
    out_features, in_features
        Shape of the weight.
    n, m
        The pattern, 1 <= n <= m <= 32; m divides in_features.
    """

    values: Tensor
    places: Tensor
    bias: Tensor | None
    out_features: int
    in_features: int
    n: int
    m: int

    def __post_init__(self) -> None:
        for name in ("out_features", "in_features"):
            _checks.count(name, getattr(self, name), low=1)
        _pattern(self.n, self.m, "in_features", self.in_features)
        for name in ("values", "places", "bias"):
            found = getattr(self, name)
            if not isinstance(found, Tensor) and (found is not None or name != "bias"):
                raise TypeError(f"{name} must be a tensor, got {type(found).__name__}")
        values = (self.panels, self.pairs, *((2, ROWS) if self.values.dtype == torch.float32 else (ROWS, 2)))
        if self.values.dtype not in DTYPES or tuple(self.values.shape) != values:
            raise ValueError(f"values must be float32 or bfloat16 of shape {values}, got {self.values.dtype} of shape "
                             f"{tuple(self.values.shape)}")
        places = (self.panels * self.pairs * 4 * self.bits + _SLACK,)
        if self.places.dtype != torch.uint8 or tuple(self.places.shape) != places:
            raise ValueError(f"places must be uint8 of shape {places}, got {self.places.dtype} of shape "
                             f"{tuple(self.places.shape)}")
        if self.bias is not None and (self.bias.dtype != torch.float32 or self.bias.shape != (self.out_features,)):
            raise ValueError(f"bias must be float32 of shape ({self.out_features},), got {self.bias.dtype} of shape "
                             f"{tuple(self.bias.shape)}")
        if 1 << self.bits > self.m and not self.places.is_meta:
            found = int(self.unpacked()[1].max())
            if found >= self.m:
                raise ValueError(f"places must be below m = {self.m}, got {found}")

    @property
    def bits(self) -> int:
        """Bits of a place."""
        return max(1, (self.m - 1).bit_length())

    @property
    def panels(self) -> int:
        """Panels of 16 rows."""
        return math.ceil(self.out_features / ROWS)

    @property
    def pairs(self) -> int:
        """Pairs of values in a row."""
        return math.ceil(self.in_features // self.m * self.n / 2)

    @property
    def dense_nbytes(self) -> int:
        """Bytes of the same weight and bias without sparsity, in the dtype of the values."""
        bias = 0 if self.bias is None else self.bias.nbytes
        return self.out_features * self.in_features * self.values.element_size() + bias

    def unpacked(self) -> tuple[Tensor, Tensor]:
        """Values and places in the order of the rows, both ``(out_features, in_features / m * n)``; places int64."""
        values = self.values if self.values.dtype == torch.float32 else self.values.mT
        records = self.places[:-_SLACK].reshape(self.panels, self.pairs, 4 * self.bits).int()
        bit = self.bits * torch.arange(2 * ROWS, device=records.device)
        first, second = bit // 8, (bit // 8 + 1).clamp(max=4 * self.bits - 1)
        both = records[..., first] | records[..., second] << 8
        places = (both >> (bit % 8) & (1 << self.bits) - 1).unflatten(-1, (ROWS, 2)).mT
        return self._rows(values), self._rows(places).long()

    def dense(self) -> Tensor:
        """The weight that was packed, ``(out_features, in_features)``."""
        values, places = self.unpacked()
        out = values.new_zeros((self.out_features, self.in_features // self.m, self.m))
        return out.scatter_(-1, places.unflatten(-1, (-1, self.n)), values.unflatten(-1, (-1, self.n))).flatten(1)

    def _rows(self, panels: Tensor) -> Tensor:
        """``(panels, pairs, 2, 16)`` as rows without what fills the last panel and pair."""
        rows = panels.permute(0, 3, 1, 2).reshape(self.panels * ROWS, 2 * self.pairs)
        return rows[:self.out_features, :self.in_features // self.m * self.n]


def pack_linear_nm(weight: Tensor, n: int, m: int, bias: Tensor | None = None, *,
                   dtype: torch.dtype | None = None) -> PackedNM:
    """Pack a weight that is n:m sparse along its rows.

    Parameters
    ----------
    weight
        ``(out_features, in_features)``, floating point, at most n nonzeros in every m consecutive entries of a row.
    n, m
        1 <= n <= m <= 32; m divides in_features.
    bias
        ``(out_features,)``, kept in float32.
    dtype
        float32 or bfloat16, of the packed values; by default bfloat16 if the weight is, else float32.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, or a group has more than n nonzeros (the message says which): project first,
        with ``NM(n, m).project``.
    """
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        got = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
        raise TypeError(f"weight must be a floating point tensor, got {got}")
    if weight.ndim != 2 or 0 in weight.shape:
        raise ValueError(f"weight must have shape (out_features, in_features), got {tuple(weight.shape)}")
    out_features, in_features = weight.shape
    _pattern(n, m, "the rows of weight", in_features)
    if dtype is None:
        dtype = torch.bfloat16 if weight.dtype == torch.bfloat16 else torch.float32
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be torch.float32 or torch.bfloat16, got {dtype}")
    if bias is not None and (not isinstance(bias, Tensor) or bias.shape != (out_features,)):
        got = tuple(bias.shape) if isinstance(bias, Tensor) else type(bias).__name__
        raise ValueError(f"bias must have shape ({out_features},), got {got}")
    weight = weight.detach()
    nonzero = (weight != 0).unflatten(-1, (-1, m))
    counts = nonzero.sum(-1)
    if bool((counts > n).any()):
        at = tuple((counts > n).nonzero()[0].tolist())
        raise ValueError(f"weight is not {n}:{m} sparse: group {at} has {int(counts[at])} nonzeros")
    # n of every group: the nonzeros and the first of the zeros.
    kept = nonzero | ((~nonzero).cumsum(-1, dtype=torch.int16) <= n - counts[..., None])
    columns = kept.flatten(-2).nonzero()[:, 1].reshape(out_features, -1)
    values, places = _in_panels(weight.gather(1, columns).to(dtype)), _in_panels((columns % m).to(torch.uint8))
    return PackedNM(values if dtype == torch.float32 else values.mT.contiguous(), _records(places.mT, m),
                    None if bias is None else bias.detach().float().clone(), out_features, in_features, n, m)


def _pattern(n: int, m: int, name: str, width: int) -> None:
    _checks.count("m", m, low=1, high=MAX_GROUP)
    _checks.count("n", n, low=1, high=m)
    if width % m:
        raise ValueError(f"{name} must be a multiple of m = {m}, got {width}")


def _in_panels(rows: Tensor) -> Tensor:
    """``(out, terms)`` as ``(panels, pairs, 2, 16)``, filled with zeros."""
    out, terms = rows.shape
    panels, pairs = math.ceil(out / ROWS), math.ceil(terms / 2)
    filled = rows.new_zeros((panels * ROWS, pairs * 2))
    filled[:out, :terms] = rows
    return filled.reshape(panels, ROWS, pairs, 2).permute(0, 2, 3, 1).contiguous()


def _records(places: Tensor, m: int) -> Tensor:
    """``(panels, pairs, 16, 2)`` places as records of bits, flat, with slack."""
    bits = max(1, (m - 1).bit_length())
    at = torch.arange(8, device=places.device, dtype=torch.uint8)
    stream = (places[..., None] >> at[:bits] & 1).flatten(2).unflatten(2, (-1, 8))
    packed = (stream << at).sum(-1, dtype=torch.uint8).flatten()
    return torch.cat((packed, packed.new_zeros(_SLACK)))
