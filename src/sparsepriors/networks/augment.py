"""Batches of labelled images for `TrainLoop`: shuffled, shifted, mirrored, normalised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.nn import functional

from sparsepriors import _checks
from sparsepriors._described import Described
from sparsepriors.data.image_sets import ImageSet
from sparsepriors.networks.batches import Shuffled


@dataclass(frozen=True)
class Augment(Described):
    """Shift each image by whole pixels and mirror it, at random.

    Parameters
    ----------
    shift
        Largest shift along each axis; both are uniform from −shift to shift. What comes in is 0.
    flip
        Whether an image is mirrored left to right with probability 1/2.
    """

    shift: int = 2
    flip: bool = True

    def __post_init__(self) -> None:
        _checks.count("shift", self.shift)
        if not isinstance(self.flip, bool):
            raise TypeError(f"flip must be True or False, got {self.flip!r}")

    def __call__(self, images: Shaped[Tensor, "n channels height width"],
                 generator: torch.Generator) -> Shaped[Tensor, "n channels height width"]:
        """New images of any dtype; three numbers are drawn for each, whatever the options.

        Raises
        ------
        ValueError
            If ``images`` is no batch of images.
        """
        if images.ndim != 4:
            raise ValueError(f"images must have shape (n, channels, height, width), got {tuple(images.shape)}")
        n, channels, height, width = images.shape
        draws = torch.rand(3, n, generator=generator, device=generator.device).to(images.device)
        down, right = ((draws[:2] * (2 * self.shift + 1)).long().clamp(max=2 * self.shift))[..., None]
        columns = torch.arange(width, device=images.device).expand(n, width)
        if self.flip:
            columns = torch.where(draws[2, :, None] < 0.5, width - 1 - columns, columns)
        rows = torch.arange(height, device=images.device) + down
        padded = functional.pad(images, (self.shift,) * 4)
        every = torch.arange(n, device=images.device)[:, None, None, None]
        planes = torch.arange(channels, device=images.device)[:, None, None]
        return padded[every, planes, rows[:, None, :, None], (columns + right)[:, None, None, :]]


class ImageBatches:
    """Batches of the training images of a set, normalised by its moments, with their labels.

    Parameters
    ----------
    images
        The data set.
    batch_size
        Images per batch. Every epoch has a new random order, see `Shuffled`.
    augment
        Applied to the bytes before they are normalised, so that what a shift brings in is black.

    Raises
    ------
    TypeError, ValueError
        If the batch is not a positive integer or larger than the training split.
    """

    def __init__(self, images: ImageSet, *, batch_size: int, augment: Augment | None = None) -> None:
        self.images, self.augment = images, augment
        self._rows = Shuffled(images.train.images, images.train.labels, batch_size=batch_size)

    def next(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The next normalised images and their labels."""
        images, labels = self._rows.next(generator)
        if self.augment is not None:
            images = self.augment(images, generator)
        return self.images.normalise(images), labels

    def state_dict(self) -> dict[str, Any]:
        """The order of this epoch and the place in it."""
        return self._rows.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put them back."""
        self._rows.load_state_dict(state)
