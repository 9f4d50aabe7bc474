"""What the experiments on N:M training share: the perceptron, one arm of a comparison, and a table of arms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from sparsepriors.networks.classification import accuracy
from sparsepriors.networks.models import model
from sparsepriors.networks.recipe import Recipe, train_classifier
from sparsepriors.networks.sparse import Selector, SparsePlan, Sparsifier, select
from sparsepriors.networks.sparse.probes import GradientNoise, SADTracker
from sparsepriors.networks.train_loop import Hook, TrainLoop
from sparsepriors.papers._images import Drawn, ImageSizes
from sparsepriors.priors.patterns import NM, kept
from sparsepriors.runs import Run, Scale


@dataclass(frozen=True)
class PerceptronSizes(ImageSizes):
    """Images, perceptron and training of the experiments on N:M patterns at a scale.

    Attributes
    ----------
    hidden, epochs, batch
        Widths of the hidden layers, and how they are trained.
    every
        Steps between two masks of `SADTracker`.
    """

    hidden: tuple[int, ...]
    epochs: int
    batch: int
    every: int


PERCEPTRON = {
    Scale.SMOKE: PerceptronSizes("digits8", 1, 320, 300, 300, (32, 32), 2, 32, 1),
    Scale.DEFAULT: PerceptronSizes("fashion-mnist", 2, 5000, 5000, 10_000, (128, 128), 20, 128, 10),
    Scale.FULL: PerceptronSizes("fashion-mnist", 1, 50_000, 10_000, 10_000, (512, 512), 60, 128, 50),
}


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

    examples: Drawn
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
        network = self.make()
        weights = {name: s.parameter for name, s in select(network, self.where).items()}
        sad, end, path = SADTracker(weights, pattern, every=self.every), _End(self.examples.test[0]), list[_Path]()
        noise = GradientNoise(weights, window=self.window) if self.window else None

        def attach(sparsifier: Sparsifier) -> list[Hook]:
            path.append(_Path(sparsifier))
            return [path[0]]

        done = train_classifier(network, self.examples.train, self.recipe, plan=plan,
                                generator=torch.Generator().manual_seed(self.seed), attach=attach,
                                hooks=(sad, end) if noise is None else (sad, end, noise))
        assert end.logits is not None
        after = _logits(network, self.examples.test[0])
        result = {
            "accuracy": int((after.argmax(1) == self.examples.test[1]).sum()) / len(after),
            "held": accuracy(network, *self.examples.held),
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
        for mask in self.sparsifier.masks.values():
            self.followed &= int(mask.sum()) == kept(mask.numel(), self._density)

    def _asked(self, step: int, before: float) -> float:
        plan = self.sparsifier.plan
        event = plan.schedule.event(step, self.sparsifier.total_steps, plan.pattern)
        if event is None:
            return before
        return 1.0 if event.open else float(getattr(event.prune, "density", before))


def perceptron(run: Run, sizes: PerceptronSizes, recipe: Recipe, window: int = 0) -> Bench:
    """The perceptron of a scale on the images of this run's seed, all of its layers but the last in the pattern."""
    data = sizes.draw(run)
    return Bench(data, lambda: model("mlp", generator=torch.Generator().manual_seed(run.seed),
                                     size=data.train[0].shape[-1], hidden=sizes.hidden).to(run.device),
                 recipe, Selector(skip=(f"layers.{len(sizes.hidden)}",)), run.seed, sizes.every, window)


@dataclass(frozen=True, eq=False)
class Arm:
    """One training of a table: on which bench, named how, in which pattern n:m, by which plan (dense without one)."""

    bench: Bench
    network: str
    n: int
    m: int
    name: str
    plan: SparsePlan | None


def train_arms(run: Run, arms: Sequence[Arm], columns: Sequence[str]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Train every arm and log these columns of it, where it has them; results by network, pattern and name."""
    table: dict[tuple[str, str, str], dict[str, Any]] = {}
    with run.progress(len(arms), "training") as bar:
        for arm in arms:
            key = f"{arm.network}-{arm.n}-{arm.m}-{arm.name.replace(' ', '-')}"
            # Groups run on from row to row, as in the published codes: m need not divide the 196 inputs.
            pattern = NM(arm.n, arm.m, layout="flat")
            table[arm.network, f"{arm.n}:{arm.m}", arm.name] = run.once(
                key, partial(arm.bench.fit, pattern, arm.plan))
            bar.advance()
    for (network, pattern, name), row in table.items():
        run.log(network=network, pattern=pattern, arm=name, **{k: row[k] for k in columns if k in row})
    return table


def best(arms: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The arm that is right most often on the held-out examples, so that the test examples do not choose."""
    return max(arms.values(), key=lambda arm: arm["held"])


@torch.no_grad()
def _logits(network: nn.Module, inputs: Tensor) -> Tensor:
    network.eval()
    return torch.cat([network(x) for x in inputs.split(1000)])
