"""The type checker that the suite puts on every function of the package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, TypeVar, get_args

from beartype import BeartypeConf, beartype

_CONF = BeartypeConf(is_pep484_tower=True)  # an int may stand where a float is asked for, as everywhere in Python

F = TypeVar("F", bound=Callable[..., Any])


def check(fn: F) -> F:
    """Put beartype on a function; hints that it cannot read at run time count as anything."""
    for name, hint in fn.__annotations__.items():
        if _unreadable(hint):
            fn.__annotations__[name] = Any
    return beartype(conf=_CONF)(fn)


def _unreadable(hint: object) -> bool:
    """Whether ``Self`` (readable on whole classes only) or a protocol that promises no isinstance is inside."""
    protocol = getattr(hint, "_is_protocol", False) and not getattr(hint, "_is_runtime_protocol", False)
    return hint is Self or protocol or any(_unreadable(arg) for arg in get_args(hint))
