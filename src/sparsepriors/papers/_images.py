"""The images that experiments on networks draw by seed: how many at a scale, and the draw."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsepriors.data.image_sets import Split
from sparsepriors.data.vision import image_set
from sparsepriors.networks.recipe import Examples
from sparsepriors.runs import Run


@dataclass(frozen=True, eq=False)
class Drawn:
    """Training examples, others of the training split for choosing among arms, and test examples."""

    train: Examples
    held: Examples
    test: Examples


@dataclass(frozen=True)
class ImageSizes:
    """Which images an experiment uses at a scale; its other sizes are fields of a subclass.

    Attributes
    ----------
    data, shrink
        The data set, and by how much its sides are divided.
    train, held, test
        How many images are trained on, held back for choosing (0 where nothing is chosen), and tested on; where the
        set has fewer, all of them.
    """

    data: str
    shrink: int
    train: int
    held: int
    test: int

    def draw(self, run: Run) -> Drawn:
        """The examples that this run's seed draws."""
        images = image_set(self.data, data_dir=run.data_dir).shrink(self.shrink)
        generator = torch.Generator().manual_seed(run.seed)
        rows = torch.randperm(len(images.train), generator=generator)
        tested = torch.randperm(len(images.test), generator=generator)[:self.test]

        def part(split: Split, at: Tensor) -> Examples:
            return images.normalise(split.images[at]).to(run.device), split.labels[at].to(run.device)

        return Drawn(part(images.train, rows[:self.train]),
                     part(images.train, rows[self.train:self.train + self.held]), part(images.test, tested))
