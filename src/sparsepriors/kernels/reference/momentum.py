"""Nesterov's momentum with restarts."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsepriors._norms import euclidean


def momentum_step(old: Tensor, new: Tensor, v: Tensor, image: Tensor, new_image: Tensor, momentum: Tensor,
                  floor: Tensor, restart: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where accelerated proximal gradient goes on after a step from ``v`` to ``new``, and what the step moved.

    With t the momentum, set to 1 where ``<v - new, new - old> > 0`` and restarts are asked for, t' = (1 + sqrt(1 +
    4 t^2)) / 2 and w = (t - 1) / t', the next point is ``new + w (new - old)``.

    Parameters
    ----------
    old, new, v
        ``(*batch, *event)``, real or complex: iterates before and after the step, and where it started.
    image, new_image
        ``(*batch, *out)``, linear images of ``old`` and ``new``.
    momentum, floor
        ``(*batch)``, real: t, and the least size against which the step is measured.
    restart
        Whether t is set to 1 where it points uphill.

    Returns
    -------
    tuple
        The next point and its image; t'; and ``||new - v|| / max(||new||, floor)``, 0 where nothing moved.
    """
    many = momentum.ndim

    def spread(t: Tensor, like: Tensor) -> Tensor:
        return t.reshape(*t.shape, *(1,) * (like.ndim - many))

    def norm(x: Tensor) -> Tensor:
        return euclidean(x, tuple(range(many, x.ndim))) if x.ndim > many else x.abs()

    moved, size = norm(new - v), torch.maximum(norm(new), floor)
    residual = torch.where((moved == 0) & ~torch.isnan(size), 0.0, moved / size)
    if restart:
        uphill = ((v - new).conj() * (new - old)).real.reshape(*momentum.shape, -1).sum(-1) > 0
        momentum = torch.where(uphill, 1.0, momentum)
    grown = 0.5 * (1 + torch.sqrt(1 + 4 * momentum.square()))
    weight = (momentum - 1) / grown
    return (new + spread(weight, new) * (new - old), new_image + spread(weight, image) * (new_image - image), grown,
            residual)
