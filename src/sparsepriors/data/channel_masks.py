"""Masks of channels in files, and two published ones of ResNet-50."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sparsepriors import _checks, _files

RESNET50_MASKS = ("flops70", "uniform")
"""Names that `resnet50_masks` takes."""

_PYCLS = re.compile(r"s([1-4])\.b([1-9]\d?)\.(?:f\.([abc])_)?bn")


def masks_from_json(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read masks: one object of layer names and strings of ``0`` and ``1``, a character for each channel, 1 if kept.

    Raises
    ------
    ValueError
        If the file is no JSON of that form.
    """
    found = _files.read_json(path)
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{path} must hold an object of layer names and masks, got {found!r:.100}")
    for name, text in found.items():
        if not isinstance(text, str) or not text or set(text) - {"0", "1"}:
            raise ValueError(f"the mask of {name!r:.100} in {path} must be a string of 0 and 1, got {text!r:.100}")
    return {name: torch.tensor([c == "1" for c in text], device="cpu") for name, text in found.items()}


def masks_to_json(path: str | os.PathLike[str], masks: Mapping[str, Tensor]) -> Path:
    """Write masks of one axis in the form that `masks_from_json` reads.

    Raises
    ------
    TypeError, ValueError
        If a mask is not boolean, or not of one axis with at least one entry.
    """
    _checks.instance("masks", masks, Mapping)
    for name, mask in masks.items():
        if _checks.boolean(f"the mask of {name}", mask).ndim != 1 or len(mask) == 0:
            raise ValueError(f"the mask of {name} must have one axis of at least one, got {tuple(mask.shape)}")
    return _files.write_json(path, {n: "".join("01"[v] for v in m.int().tolist()) for n, m in masks.items()})


def from_pycls(name: str) -> str:
    """The usual name of a batch normalisation of ResNet-50 (``layer1.0.bn1``) for that of pycls (``s1.b1.f.a_bn``).

    Raises
    ------
    ValueError
        If it is no name of pycls.
    """
    if name == "stem.bn":
        return "bn1"
    found = _PYCLS.fullmatch(name)
    if found is None:
        raise ValueError(f"name must be like 'stem.bn', 's1.b1.bn' or 's1.b1.f.a_bn', got {name!r}")
    stage, block, letter = found.groups()
    inner = "downsample.1" if letter is None else f"bn{'abc'.index(letter) + 1}"
    return f"layer{stage}.{int(block) - 1}.{inner}"


def resnet50_masks(name: str) -> dict[str, Tensor]:
    """A published mask of the channels of ResNet-50, by the usual names of its batch normalisations.

    Parameters
    ----------
    name
        ``"flops70"``: from global sparse training, without the residual streams; ``"uniform"``: two thirds of every
        layer. Both from the published code of arXiv:2201.06776 (MIT, Facebook, Inc. and its affiliates).

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    _checks.one_of("name", name, RESNET50_MASKS)
    masks = masks_from_json(Path(__file__).parent / "masks" / f"resnet50-{name}.json")
    return {from_pycls(n): m for n, m in masks.items()}
