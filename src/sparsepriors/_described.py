"""Objects that can be written down as plain JSON and built again from it, without running code from the file."""

from __future__ import annotations

import dataclasses
import math
import sys
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

_KIND = "kind"
_DTYPES = {str(d).removeprefix("torch."): d for d in (torch.float32, torch.float64, torch.complex64, torch.complex128,
                                                      torch.float16, torch.bfloat16, torch.int64, torch.bool)}


class Described:
    """Mix-in for frozen dataclasses: ``to_dict`` and ``from_dict`` over a closed registry of class names.

    Every subclass enters the registry when it is defined, under its class name, so a user's own prior round-trips
    as soon as its module is imported. ``from_dict`` looks names up; it never imports or evaluates anything.
    """

    _registry: ClassVar[dict[str, type[Described]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        taken = Described._registry.get(cls.__name__)
        if taken is not None and taken.__module__ != cls.__module__:
            raise TypeError(f"{cls.__module__}.{cls.__name__} needs another name: files say {cls.__name__!r} for "
                            f"{taken.__module__}.{cls.__name__}")
        Described._registry[cls.__name__] = cls

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data from which `from_dict` builds an equal object.

        Raises
        ------
        TypeError
            If a field holds something with no JSON form (a bare function, an unnamed network).
        """
        if not dataclasses.is_dataclass(self):
            raise TypeError(f"{type(self).__name__} is not a dataclass and cannot be written as JSON")
        if any(f.name == _KIND for f in dataclasses.fields(self)):
            raise TypeError(f"{type(self).__name__} has a field {_KIND!r}, which the JSON form keeps for the class")
        fields = {f.name: _encode(getattr(self, f.name), f"{type(self).__name__}.{f.name}")
                  for f in dataclasses.fields(self) if f.init}
        return {_KIND: type(self).__name__, **fields}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Build the object that ``to_dict`` wrote.

        Raises
        ------
        TypeError, ValueError
            If the data name an unknown class, one of another family than ``cls``, or fields that it does not have, or
            the class refuses the values.
        """
        try:
            return cls._built(data)
        except RecursionError as e:
            raise ValueError(f"a {cls.__name__} cannot be nested that deeply") from e

    @classmethod
    def _built(cls, data: Any) -> Self:
        if not isinstance(data, dict) or not isinstance(data.get(_KIND), str):
            raise ValueError(f"expected an object with a {_KIND!r} field that names a class, got {data!r:.200}")
        found = Described._registry.get(data[_KIND])
        if found is None or not issubclass(found, cls):
            raise ValueError(f"unknown {cls.__name__} {data[_KIND]!r}; known: {', '.join(_names(cls))}")
        allowed = {f.name for f in dataclasses.fields(found) if f.init}  # pyright: ignore[reportArgumentType]
        extra = set(data) - allowed - {_KIND}
        if extra:
            raise ValueError(f"{data[_KIND]} has no field {', '.join(sorted(map(repr, extra)))}; "
                             f"it has {', '.join(sorted(allowed))}")
        built = found(**{k: _decode(v) for k, v in data.items() if k != _KIND})
        assert isinstance(built, cls)
        return built


def _names(cls: type[Described]) -> list[str]:
    return sorted(n for n, c in Described._registry.items() if issubclass(c, cls) and not n.startswith("_"))


def _encode(value: Any, where: str) -> Any:
    if isinstance(value, Described):
        return value.to_dict()
    if isinstance(value, Tensor):
        flat = torch.view_as_real(value) if value.is_complex() else value
        return {_KIND: "tensor", "dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape),
                "data": [_encode(v, where) for v in flat.detach().cpu().reshape(-1).tolist()]}
    if isinstance(value, torch.dtype):
        return {_KIND: "dtype", "name": str(value).removeprefix("torch.")}
    if isinstance(value, (list, tuple)):
        return [_encode(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, complex):
        return {_KIND: "complex", "re": value.real, "im": value.imag}
    if isinstance(value, float) and not math.isfinite(value):
        return {_KIND: "float", "value": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return _encode(float(value), where)
    raise TypeError(f"{where} holds a {type(value).__name__}, which has no JSON form")


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decode(v) for v in value)
    if not isinstance(value, dict):
        return value
    match value.get(_KIND):
        case "tensor":
            return _tensor(value)
        case "dtype":
            return _dtype(value.get("name"))
        case "complex":
            return complex(*(_number(value.get(part)) for part in ("re", "im")))
        case "float" if value.get("value") in ("nan", "inf", "-inf"):
            return float(value["value"])
        case "float":
            raise ValueError(f"a float must be written as nan, inf or -inf, got {value.get('value')!r:.100}")
        case _:
            return Described._built(value)


def _tensor(value: dict[str, Any]) -> Tensor:
    dtype, shape, flat = _dtype(value.get("dtype")), value.get("shape"), value.get("data")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"the shape of a tensor must be a list of integers >= 0, got {shape!r:.100}")
    parts = [*shape, 2] if dtype.is_complex else shape
    if not isinstance(flat, list) or len(flat) != math.prod(parts) or max(shape, default=0) >= 2**63:
        held = len(flat) if isinstance(flat, list) else f"{flat!r:.100}"
        raise ValueError(f"a tensor of shape {shape!r:.100} must have {math.prod(parts)} numbers, got {held}")
    if dtype == torch.bool and not all(isinstance(v, bool) for v in flat):
        raise ValueError("a tensor of truth values must hold true and false only")
    data = torch.tensor([_number(v) for v in flat], dtype=dtype.to_real() if dtype.is_complex else dtype)
    return torch.view_as_complex(data.reshape(parts)) if dtype.is_complex else data.reshape(parts)


def _number(value: Any) -> int | float:
    """A number that a tensor can hold."""
    if isinstance(value, dict):
        value = _decode(value)
    if not isinstance(value, int | float) or (isinstance(value, int) and abs(value) > sys.float_info.max):
        raise ValueError(f"expected a number, got {value!r:.100}")
    return value


def _dtype(name: Any) -> torch.dtype:
    if not isinstance(name, str) or name not in _DTYPES:
        raise ValueError(f"unknown dtype {name!r}; known: {', '.join(_DTYPES)}")
    return _DTYPES[name]
