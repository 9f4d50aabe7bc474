"""What the experiments on N:M training share: the examples of a seed, and one arm of a comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from sparsepriors.data.vision import image_set
from sparsepriors.networks.classification import accuracy
from sparsepriors.networks.recipe import Examples, Recipe, train_classifier
from sparsepriors.networks.sparse import Selector, SparsePlan, Sparsifier, select
from sparsepriors.networks.sparse.probes import GradientNoise, SADTracker
from sparsepriors.networks.train_loop import Hook, TrainLoop
from sparsepriors.priors.patterns import NM
from sparsepriors.runs import Run


@dataclass(frozen=True, eq=False)
class Examples3:
    """Training examples, others of the training split for choosing among arms, and test examples."""

    train: Examples
    held: Examples
    test: Examples


def examples(run: Run, data: str, *, shrink: int, train: int, held: int, test: int) -> Examples3:
    """The examples that this run's seed draws."""
    images = image_set(data, data_dir=run.data_dir).shrink(shrink)
    generator = torch.Generator().manual_seed(run.seed)
    drawn = torch.randperm(len(images.train), generator=generator)
    parts = [images.train.rows(drawn[:train]), images.train.rows(drawn[train:train + held]),
             images.test.subset(min(test, len(images.test)), generator)]
    return Examples3(*((images.normalise(p.images).to(run.device), p.labels.to(run.device)) for p in parts))


@dataclass(frozen=True, eq=False)
class Bench:
    """One network, its examples and its recipe: arms differ in nothing but their plan.

    Attributes
    ----------
    examples, make, recipe, where, seed
        Data; a function that makes the network with the same first weights at every call; how it is trained; which
        weights take part; the seed of the batches.
    every, window
        Steps between two masks of `SADTracker`, and of one window of `GradientNoise`, 0 for none.
    """

    examples: Examples3
    make: Callable[[], nn.Module]
    recipe: Recipe
    where: Selector
    seed: int
    every: int = 10
    window: int = 0

    def fit(self, pattern: NM, plan: SparsePlan | None) -> dict[str, Any]:
        """Train one arm, dense without a plan, and measure it; the plan is given this pattern and this bench's weights.

        Masks of the pattern are followed in the dense arm, too.
        """
        plan = None if plan is None else replace(plan, pattern=pattern, where=self.where)
        model = self.make()
        weights = {name: s.parameter for name, s in select(model, self.where).items()}
        sad, end, path = SADTracker(weights, pattern, every=self.every), _End(self.examples.test[0]), list[_Path]()
        noise = GradientNoise(weights, window=self.window) if self.window else None

        def attach(sparsifier: Sparsifier) -> list[Hook]:
            path.append(_Path(sparsifier))
            return [path[0]]

        done = train_classifier(model, self.examples.train, self.recipe, plan=plan,
                                generator=torch.Generator().manual_seed(self.seed), attach=attach,
                                hooks=(sad, end) if noise is None else (sad, end, noise))
        assert end.logits is not None
        after = _logits(model, self.examples.test[0])
        result = {
            "accuracy": int((after.argmax(1) == self.examples.test[1]).sum()) / len(after),
            "held": accuracy(model, *self.examples.held),
            "sad": sad.total, "away": sad.away[-1], "sad_steps": sad.steps, "sad_moved": sad.moved,
            "gap": float((after - end.logits).abs().max())}
        if noise is not None:
            late = [i for i, step in enumerate(noise.steps) if step - self.window >= 0.8 * done.training.steps]
            kinds = {"variance": noise.variance, "second_moment": noise.second_moment}
            result |= {kind: fmean(of[i] for of in windows.values() for i in late) for kind, windows in kinds.items()
                       if windows}
        if done.report is None:
            return {**result, "density": 1.0, "churn": 0.0, "train_ratio": 1.0, "exact": True, "on_path": True}
        exact = (all(float(pattern.value(w.detach())) == 0 for w in weights.values())
                 and done.report.density == pattern.density and bool((after == end.logits).all()))
        return {**result, "density": done.report.density, "churn": done.report.churn,
                "train_ratio": done.report.train_ratio, "exact": exact, "on_path": path[0].followed}


class _End(Hook):
    """Logits of the network at the end of the training, before masks become zeros."""

    def __init__(self, inputs: Tensor) -> None:
        self.inputs, self.logits = inputs, None

    def on_end(self, loop: TrainLoop) -> None:
        self.logits = _logits(loop.model, self.inputs)


class _Path(Hook):
    """Whether the masks after every step keep exactly as many weights as the schedule says."""

    def __init__(self, sparsifier: Sparsifier) -> None:
        self.sparsifier, self.followed = sparsifier, True
        self._density = self._asked(0, 1.0)

    def after_step(self, loop: TrainLoop) -> None:
        self._density = self._asked(loop.step, self._density)
        masks = self.sparsifier.masks.values()
        kept, entries = sum(int(m.sum()) for m in masks), sum(m.numel() for m in masks)
        self.followed &= kept == round(self._density * entries)

    def _asked(self, step: int, before: float) -> float:
        plan = self.sparsifier.plan
        event = plan.schedule.event(step, self.sparsifier.total_steps, plan.pattern)
        if event is None:
            return before
        return 1.0 if event.open else float(getattr(event.prune, "density", before))


def best(arms: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The arm that is right most often on the held-out examples, so that the test examples do not choose."""
    return max(arms.values(), key=lambda arm: arm["held"])


@torch.no_grad()
def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    model.eval()
    return torch.cat([model(x) for x in inputs.split(1000)])
