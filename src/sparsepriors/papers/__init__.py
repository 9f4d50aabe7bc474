"""One module per published system, found by looking into this folder.

A module states ``PAPER`` and gives ``run(scale, seed, run)``; ``demo(run)`` is optional. Its slug is the module's
name with hyphens. Nothing is imported until it is asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from sparsepriors import _checks
from sparsepriors.runs.paper import Experiment, Paper

__all__ = ["all", "from_file", "get", "slugs"]


def slugs() -> list[str]:
    """Slugs of all papers, sorted, without importing any."""
    return sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def get(slug: str) -> Experiment:
    """The experiment of this slug.

    Raises
    ------
    ValueError
        If there is none (the message names the nearest), or if its module does not keep the contract.
    """
    _checks.one_of("paper", slug, slugs())
    module = importlib.import_module(f"{__name__}.{slug.replace('-', '_')}")
    found = _experiment(module, module.__name__)
    if found.paper.slug != slug:
        raise ValueError(f"{module.__name__}.PAPER.slug must be {slug!r}, the module's name, got {found.paper.slug!r}")
    return found


def all() -> list[Experiment]:
    """Every experiment, sorted by slug."""
    return [get(slug) for slug in slugs()]


def from_file(path: str | Path) -> Experiment:
    """The experiment of a user's own module, by the path of its file. The file is executed, as any import would.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the module does not keep the contract.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no paper module {path}")
    spec = importlib.util.spec_from_file_location(f"paper_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return _experiment(module, str(path))


def _experiment(module: ModuleType, name: str) -> Experiment:
    paper = getattr(module, "PAPER", None)
    if not isinstance(paper, Paper):
        raise ValueError(f"{name} must define PAPER, a runs.Paper, got {type(paper).__name__}")
    run: Callable[..., object] | None = getattr(module, "run", None)
    demo: Callable[..., object] | None = getattr(module, "demo", None)
    if not callable(run):
        raise ValueError(f"{name} must define run(scale, seed, run)")
    if demo is not None and not callable(demo):
        raise ValueError(f"{name}.demo must be a function, got {type(demo).__name__}")
    return Experiment(paper, run, demo, source=module.__file__ or "")
