"""Linear layers that keep and multiply only the values of their N:M pattern."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from sparsepriors import _checks
from sparsepriors.kernels import PackedNM, nm_linear, pack_linear_nm
from sparsepriors.kernels.packed_nm import DTYPES, MAX_GROUP


class PackedLinear(nn.Module):
    """A linear layer of a packed N:M weight, in place of `torch.nn.Linear` where nothing is trained any more.

    The values and places are buffers, so that ``state_dict``, ``load_state_dict``, ``to(device)`` and safetensors
    files of whole models work as with any module. ``to(dtype)`` changes the values between float32 and bfloat16 and
    leaves them as they are for any other dtype; the bias stays in float32, in which all sums are made.

    Parameters
    ----------
    packed
        Weight and bias, from `sparsepriors.kernels.pack_linear_nm`.
    """

    values: Tensor
    places: Tensor
    bias: Tensor | None

    def __init__(self, packed: PackedNM) -> None:
        super().__init__()
        if not isinstance(packed, PackedNM):
            raise TypeError(f"packed must be a PackedNM, got {type(packed).__name__}")
        self.in_features, self.out_features = packed.in_features, packed.out_features
        self.n, self.m = packed.n, packed.m
        for name in ("values", "places", "bias"):
            self.register_buffer(name, getattr(packed, name))
        self._packed = packed

    @classmethod
    def from_linear(cls, linear: nn.Linear, n: int, m: int, *, dtype: torch.dtype | None = None) -> Self:
        """Pack a layer whose weight is n:m sparse along its inputs.

        Parameters
        ----------
        linear
            The layer; it is not changed.
        n, m
            The pattern, 1 <= n <= m <= 32.
        dtype
            float32 or bfloat16, of the packed values; by default bfloat16 if the weight is, else float32.

        Raises
        ------
        TypeError, ValueError
            If the layer is no `torch.nn.Linear`, or its weight is not n:m sparse.
        """
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"linear must be a torch.nn.Linear, got {type(linear).__name__}")
        return cls(pack_linear_nm(linear.weight, n, m, linear.bias, dtype=dtype))

    @property
    def packed(self) -> PackedNM:
        """The weight and bias as the kernels take them."""
        held = self._packed
        if held.values is not self.values or held.places is not self.places or held.bias is not self.bias:
            self._packed = PackedNM(self.values, self.places, self.bias, self.out_features, self.in_features, self.n,
                                    self.m)
        return self._packed

    @property
    def nbytes(self) -> int:
        """Bytes of values, places and bias."""
        return self.packed.nbytes

    def dense_weight(self) -> Tensor:
        """The weight, ``(out_features, in_features)``."""
        return self.packed.dense()

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in_features)`` in float32 or bfloat16 to ``(..., out_features)``."""
        return nm_linear(x, self.packed)

    def extra_repr(self) -> str:
        """Sizes and pattern."""
        return (f"in_features={self.in_features}, out_features={self.out_features}, pattern={self.n}:{self.m}, "
                f"dtype={self.values.dtype}, bias={self.bias is not None}")

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        values, bias = self.values, self.bias
        super()._apply(fn, recurse)
        if self.values.dtype != values.dtype:  # which lays the two values of a pair out differently
            self.values = self.values.mT.contiguous() if self.values.dtype in DTYPES else values.to(self.values.device)
        if self.bias is not None and bias is not None and self.bias.dtype != bias.dtype:
            self.bias = bias.to(self.bias.device)
        return self


@dataclass(frozen=True)
class PackedLayer:
    """What became of one linear layer of a model.

    Attributes
    ----------
    name
        Of the module.
    packed
        Whether it is a `PackedLinear` now.
    why_not
        Why it is not, empty if it is.
    dense_bytes, nbytes
        Bytes of weight and bias before and now.
    """

    name: str
    packed: bool
    why_not: str
    dense_bytes: int
    nbytes: int


def pack_nm_model(model: nn.Module, n: int, m: int, *, dtype: torch.dtype | None = None) -> list[PackedLayer]:
    """Replace, in place, every linear layer whose weight is n:m sparse along its inputs.

    A layer stays as it is if it is a subclass of `torch.nn.Linear` (whose owner may look at its weight), shares its
    weight with another module, does not have whole groups, or is not n:m sparse.

    Parameters
    ----------
    model
        Any module that is not itself a linear layer.
    n, m
        The pattern, 1 <= n <= m <= 32.
    dtype
        As `PackedLinear.from_linear` takes it.

    Returns
    -------
    list of PackedLayer
        One for every linear layer, in the order of ``named_modules``.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range or no layer could be packed; the model is then as it was.
    """
    if not isinstance(model, nn.Module) or isinstance(model, nn.Linear):
        raise TypeError(f"model must be a module that holds linear layers, got {type(model).__name__}")
    _checks.count("m", m, low=1, high=MAX_GROUP)
    _checks.count("n", n, low=1, high=m)
    owners = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    report, made = [], {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        dense = sum(p.nbytes for p in module.parameters())
        why_not = _why_not(module, owners, n, m)
        if not why_not:
            made[name] = PackedLinear.from_linear(module, n, m, dtype=dtype)
        report.append(PackedLayer(name, not why_not, why_not, dense, made[name].nbytes if name in made else dense))
    if not made:
        raise ValueError(f"model has no {n}:{m} sparse linear layer: "
                         + ("; ".join(f"{layer.name}: {layer.why_not}" for layer in report[:3]) or "no linear layer"))
    for name, packed in made.items():
        model.set_submodule(name, packed)
    return report


def _why_not(linear: nn.Linear, owners: Counter[int], n: int, m: int) -> str:
    if type(linear) is not nn.Linear:
        return f"is a {type(linear).__name__}"
    if owners[id(linear.weight)] > 1:
        return "shares its weight"
    if linear.in_features % m:
        return f"{linear.in_features} inputs are no multiple of {m}"
    most = int((linear.weight.detach() != 0).unflatten(-1, (-1, m)).sum(-1).max())
    return f"has groups of {most} nonzeros" if most > n else ""
