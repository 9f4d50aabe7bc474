"""Labelled images as bytes: one split, and a set with a training and a test split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from sparsepriors import _checks


@dataclass(frozen=True, eq=False)
class Split:
    """Images and the number of the class of each.

    Raises
    ------
    TypeError, ValueError
        If the images are no bytes or there is none, or the labels are not one integer for each of them.
    """

    images: UInt8[Tensor, "n channels height width"]
    labels: Int64[Tensor, " n"]

    def __post_init__(self) -> None:
        _checks.instance("images", self.images, Tensor)
        _checks.instance("labels", self.labels, Tensor)
        if self.images.dtype != torch.uint8 or self.labels.dtype != torch.int64:
            raise TypeError(f"images must be bytes (uint8) and labels int64, "
                            f"got {self.images.dtype} and {self.labels.dtype}")
        if self.images.ndim != 4 or self.images.numel() == 0:
            raise ValueError(f"images must have shape (n, channels, height, width), none of them 0, "
                             f"got {tuple(self.images.shape)}")
        if self.labels.shape != (len(self.images),):
            raise ValueError(f"labels must be one for each of {len(self.images)} images, "
                             f"got shape {tuple(self.labels.shape)}")
        if int(self.labels.min()) < 0:
            raise ValueError(f"labels must not be negative, got {int(self.labels.min())}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def digest(self) -> str:
        """SHA-256 of images and labels: says in a result which images they were."""
        digest = hashlib.sha256(str(tuple(self.images.shape)).encode())
        for part in (self.images, self.labels):
            digest.update(part.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def rows(self, rows: Int64[Tensor, " m"]) -> Split:
        """The images with these numbers, in this order."""
        return Split(self.images[rows], self.labels[rows])

    def subset(self, count: int, generator: torch.Generator) -> Split:
        """``count`` images drawn without replacement.

        Raises
        ------
        TypeError, ValueError
            If ``count`` is not an integer from 1 to the number of images.
        """
        _checks.count("count", count, low=1, high=len(self))
        drawn = torch.randperm(len(self), generator=generator, device=generator.device)[:count]
        return self.rows(drawn.to(self.labels.device))

    def shrink(self, factor: int) -> Split:
        """Means of ``factor`` x ``factor`` pixels, rounded to bytes; a last incomplete row or column is dropped.

        Raises
        ------
        TypeError, ValueError
            If ``factor`` is not an integer from 1 to the smaller side.
        """
        _checks.count("factor", factor, low=1, high=min(self.images.shape[2:]))
        return Split(functional.avg_pool2d(self.images.float(), factor).round().to(torch.uint8), self.labels)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A data set of labelled images.

    Attributes
    ----------
    name
        What it is called.
    train, test
        Its splits.
    classes
        Name of each class; label i means ``classes[i]``.
    validation
        A third split, where the set comes with one.

    Raises
    ------
    ValueError
        If a label has no class, or the splits differ in the number of channels.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    validation: Split | None = None

    def __post_init__(self) -> None:
        _checks.instance("train", self.train, Split)
        _checks.instance("test", self.test, Split)
        _checks.instance("classes", self.classes, tuple)
        for name, split in self._splits().items():
            highest = int(split.labels.max())
            if highest >= len(self.classes):
                raise ValueError(f"the {name} labels of {self.name} go up to {highest}, "
                                 f"but it has {len(self.classes)} classes")
            if split.images.shape[1] != self.channels:
                raise ValueError(f"the {name} images of {self.name} have {split.images.shape[1]} channels, "
                                 f"those of training {self.channels}")

    @property
    def channels(self) -> int:
        """1 if the images are grey, 3 if they have colours."""
        return self.train.images.shape[1]

    @cached_property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel of the training images, bytes divided by 255."""
        return tuple(float(m) for m in self._moments()[0])

    @cached_property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel of the training images, bytes divided by 255."""
        return tuple(float(s) for s in self._moments()[1])

    def normalise(self, images: UInt8[Tensor, "n channels height width"]) -> Float[Tensor, "n channels height width"]:
        """(x / 255 − mean) / std by channel, single precision, with the moments of the training images.

        Raises
        ------
        TypeError, ValueError
            If ``images`` is not a batch of bytes with the channels of this set.
        """
        if images.dtype != torch.uint8:
            raise TypeError(f"images must be bytes (uint8), got {images.dtype}")
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise ValueError(f"images must have shape (n, {self.channels}, height, width), got {tuple(images.shape)}")
        mean, std = (torch.tensor(m, device=images.device)[:, None, None] for m in (self.mean, self.std))
        return (images / 255 - mean) / std.clamp(min=1 / 255)  # a constant channel becomes 0

    def subset(self, count: int, generator: torch.Generator) -> ImageSet:
        """The set with ``count`` training images, drawn without replacement, and all others."""
        return ImageSet(self.name, self.train.subset(count, generator), self.test, self.classes, self.validation)

    def shrink(self, factor: int) -> ImageSet:
        """The set with smaller images, see `Split.shrink`."""
        return self._each(lambda split: split.shrink(factor))

    def to(self, device: torch.device | str) -> ImageSet:
        """The set with its tensors on a device."""
        return self._each(lambda split: Split(split.images.to(device), split.labels.to(device)))

    def _splits(self) -> dict[str, Split]:
        splits = {"training": self.train, "test": self.test, "validation": self.validation}
        return {name: split for name, split in splits.items() if split is not None}

    def _each(self, change: Callable[[Split], Split]) -> ImageSet:
        return ImageSet(self.name, change(self.train), change(self.test), self.classes,
                        None if self.validation is None else change(self.validation))

    def _moments(self) -> tuple[Tensor, Tensor]:
        """From the counts of the 256 values: exact, and no copy of the images in floating point."""
        values = torch.arange(256, dtype=torch.float64) / 255
        counts = torch.stack([torch.bincount(self.train.images[:, c].flatten(), minlength=256).cpu()
                              for c in range(self.channels)]).double()
        share = counts / counts.sum(1, keepdim=True)
        mean = share @ values
        return mean, ((share * (values - mean[:, None]).square()).sum(1)).sqrt()
