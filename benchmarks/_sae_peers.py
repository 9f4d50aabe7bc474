"""The libraries that sparse autoencoders are compared with, where they are to be had.

They import at once what only their model zoos, data loaders and logs need; where such a package is missing, an empty
module stands in for it, which none of the compared classes calls. So it does for overcomplete's pictures, which ask
matplotlib for what it no longer has.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

from torch import nn

_UNUSED = {
    "overcomplete": ("torchvision", "timm", "cv2", "overcomplete.visualization"),
    "dictionary_learning": ("nnsight", "datasets", "zstandard", "wandb"),
    "sae_lens": ("transformer_lens", "datasets", "nltk", "tenacity", "plotly", "wandb", "simple_parsing"),
}


def peer(name: str, *parts: str) -> ModuleType | None:
    """A module of a peer, such as ``peer("overcomplete", "sae")``, or None where the peer is not installed."""
    if importlib.util.find_spec(name) is None:
        return None
    finder = _StandIns({unused for unused in _UNUSED[name]
                         if unused.startswith(name) or importlib.util.find_spec(unused) is None})
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module(".".join((name, *parts)))
    finally:
        sys.meta_path.remove(finder)
        for made in [k for k, module in sys.modules.items() if isinstance(module, _StandIn)]:
            del sys.modules[made]


class _HookPoint(nn.Module):
    """What transformer_lens calls a hook point, without hooks: the identity."""

    def forward(self, x: Any) -> Any:
        return x


class _HookedRootModule(nn.Module):
    """Its base class, without hooks."""

    def setup(self) -> None:
        """Nothing to set up."""


class _StandIn(ModuleType):
    """Has every attribute; what it has does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        known = {"HookPoint": _HookPoint, "HookedRootModule": _HookedRootModule}
        return known.get(name) or (type(name, (), {}) if name[0].isupper() else MagicMock())


class _StandIns(MetaPathFinder, Loader):
    """Makes stand-ins for these packages and all that is in them."""

    def __init__(self, packages: set[str]) -> None:
        self.packages = packages

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        """Of a module in one of the packages."""
        if not any(fullname == p or fullname.startswith(f"{p}.") for p in self.packages):
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty one."""
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""
