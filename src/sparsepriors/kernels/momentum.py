"""Nesterov's momentum with restarts."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsepriors.kernels import reference
from sparsepriors.kernels.dispatch import code_path, native_for, threads


def momentum_step(old: Tensor, new: Tensor, v: Tensor, image: Tensor, new_image: Tensor, momentum: Tensor,
                  floor: Tensor, restart: bool, *,
                  instruction_set: str | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `reference.momentum_step`, compiled where it can be: on the CPU, two passes, as many threads as torch has.

    Parameters
    ----------
    old, new, v
        ``(*batch, *event)``, real or complex.
    image, new_image
        ``(*batch, *out)``, of the same precision.
    momentum, floor
        ``(*batch)``, real.
    restart
        Whether momentum that points uphill is dropped.
    instruction_set
        One of `instruction_sets`, by default the first.

    Raises
    ------
    TypeError, ValueError
        If the dtypes or shapes do not belong together, or the instruction set is not to be had.
    """
    real = momentum.dtype
    for name, t in {"old": old, "new": new, "v": v, "image": image, "new_image": new_image, "floor": floor}.items():
        if (t.dtype.to_real() if t.is_complex() else t.dtype) != real:
            raise TypeError(f"{name} must be of the precision of momentum, {real}, got {t.dtype}")
    batch = momentum.shape
    if not (old.shape == new.shape == v.shape and old.shape[:len(batch)] == batch):
        raise ValueError(f"old, new and v must have one shape that begins with {tuple(batch)}, got {tuple(old.shape)}, "
                         f"{tuple(new.shape)} and {tuple(v.shape)}")
    if not (image.shape == new_image.shape and image.shape[:len(batch)] == batch and floor.shape == batch):
        raise ValueError(f"image and new_image must have one shape that begins with {tuple(batch)}, the shape of "
                         f"floor, got {tuple(image.shape)}, {tuple(new_image.shape)} and {tuple(floor.shape)}")
    path = code_path(instruction_set)
    native = native_for(old, new, v, image, new_image, momentum, floor)
    if native is None:
        return reference.momentum_step(old, new, v, image, new_image, momentum, floor, restart)
    points, images = (tuple(t.resolve_conj().contiguous() for t in ts) for ts in ((old, new, v), (image, new_image)))
    made = (torch.empty_like(points[0]), torch.empty_like(images[0]), torch.empty_like(momentum),
            torch.empty_like(momentum))
    native.momentum_step(*map(_parts, (*points, *images)), momentum.contiguous(), floor.contiguous(), restart,
                         *map(_parts, made[:2]), *made[2:], threads(), path)
    return made


def _parts(t: Tensor) -> Tensor:
    return torch.view_as_real(t) if t.is_complex() else t
