"""What the commands that train networks share: data, fresh networks, recipes, and folders that can be continued."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

import sparsepriors
from sparsepriors import _files
from sparsepriors.cli import _door
from sparsepriors.data import ImageSet, image_set
from sparsepriors.networks.models import model
from sparsepriors.networks.recipe import Examples, Recipe

_SIZED = ("mlp", "vit")   # networks that are built for one size of image


def images(name: str, folder: Path | None, shrink: int) -> ImageSet:
    """The data set, its images made smaller; ends the command if there is none."""
    try:
        found = image_set(name, data_dir=folder)
        return found if shrink == 1 else found.shrink(shrink)
    except (OSError, ValueError, ImportError) as e:
        _door.usage(str(e))


def training_examples(data: ImageSet, limit: int | None, seed: int) -> Examples:
    """Normalised training images and labels, all or so many drawn by the seed."""
    split = data.train
    if limit is not None and limit < len(split):
        split = split.subset(limit, torch.Generator().manual_seed(seed))
    return data.normalise(split.images), split.labels


def test_examples(data: ImageSet) -> Examples:
    """Normalised test images and labels."""
    return data.normalise(data.test.images), data.test.labels


def fresh(name: str, data: ImageSet, generator: torch.Generator) -> nn.Module:
    """A network for these images with weights from the generator."""
    options: dict[str, Any] = {"in_channels": data.channels, "classes": len(data.classes)}
    if name in _SIZED:
        options["size"] = data.train.images.shape[-1]
    return model(name, generator=generator, **options)


def recipe(**options: Any) -> Recipe:
    """The recipe; ends the command on a number that it does not take."""
    try:
        return Recipe(**options)
    except (TypeError, ValueError) as e:
        _door.usage(str(e))


def begin(out: Path, config: dict[str, Any], *, resume: bool) -> None:
    """Claim the folder for this configuration; ends the command if it holds something else."""
    config = {**config, "version": sparsepriors.__version__, "torch": str(torch.__version__)}
    _door.writable(out)
    path = out / "config.json"
    if not path.exists():
        _files.write_json(path, config)
        return
    if not resume:
        _door.usage(f"{out} already holds a training; continue it with --resume or name another folder with --out")
    try:
        kept = _files.read_json(path)
    except ValueError as e:
        _door.fail(str(e))
    differences = [k for k in config if not isinstance(kept, dict) or kept.get(k) != config[k]]
    if differences:
        changes = "; ".join(f"{k} was {kept.get(k) if isinstance(kept, dict) else None}, is {config[k]}"
                            for k in differences)
        _door.usage(f"{out} was begun differently and is not mixed with this: {changes}")


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Compute with so many threads, by default with those that torch has."""
    before = torch.get_num_threads()
    if count is not None:
        if not 1 <= count <= 4 * (os.cpu_count() or 1):
            _door.usage(f"--threads must be from 1 to {4 * (os.cpu_count() or 1)}, got {count}")
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
