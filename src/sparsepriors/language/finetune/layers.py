"""Which modules of a model are adapted, which are trained in full, and what the rest weighs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from sparsepriors.language.finetune.adapter import DSEELinear, is_matrix_layer

TRAINED = ("classifier", "score", "head", "qa_outputs")
"""Names that models of transformers give the layer that a task adds."""


def find_targets(model: nn.Module, targets: Sequence[str]) -> dict[str, nn.Module]:
    """The linear layers of these names; see `DSEE` for what is refused."""
    if isinstance(targets, str) or not targets or not all(isinstance(t, str) for t in targets):
        raise TypeError(f"targets must be names of layers, got {targets!r}")
    candidates = sorted({name.rpartition(".")[2] for name, m in model.named_modules() if is_matrix_layer(m)})
    found: dict[str, nn.Module] = {}
    for target in targets:
        matches = {name: m for name, m in model.named_modules() if named(name, (target,))}
        if not matches:
            raise ValueError(f"targets: no layer is named {target!r}; the linear layers are {', '.join(candidates)}")
        for name, m in matches.items():
            if isinstance(m, DSEELinear):
                raise ValueError(f"{name} is adapted already")
            if not is_matrix_layer(m):
                raise TypeError(f"targets: {name} is {type(m).__name__}, and only linear layers can be adapted; they "
                                f"are {', '.join(candidates)}")
        found |= matches
    return found


def find_trained(model: nn.Module, names: Sequence[str] | None,
                 bases: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """The modules of these names, or those of `TRAINED` that share no weight with an embedding."""
    modules = {name: m for name, m in model.named_modules() if name not in bases}
    if names is None:
        tied = {id(p) for m in modules.values() if isinstance(m, nn.Embedding) for p in m.parameters()}
        return {name: m for name, m in modules.items() if name.rpartition(".")[2] in TRAINED and list(m.parameters())
                and not any(id(p) in tied for p in m.parameters())}
    missing = [n for n in names if n not in modules or not n]
    if missing:
        raise ValueError(f"trained: no module is named {missing[0]!r}")
    return {name: modules[name] for name in names}


def fingerprint(model: nn.Module, trained: Mapping[str, nn.Module]) -> UInt8[Tensor, "32"]:
    """SHA-256 of all weights but those of the modules that are trained in full."""
    own = {id(p) for module in trained.values() for p in module.parameters()}
    digest = hashlib.sha256()
    for name, p in model.named_parameters():
        if id(p) not in own:
            digest.update(f"{name} {tuple(p.shape)} {p.dtype}".encode())
            digest.update(p.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def named(name: str, patterns: Sequence[str], *, anywhere: bool = False) -> bool:
    """Whether a dotted name, or the last part of it (any part, if ``anywhere``), fits one of these patterns."""
    parts = name.split(".")
    found = [name, *(parts if anywhere else parts[-1:])]
    return bool(name) and any(fnmatchcase(part, p) for part in found for p in patterns)
