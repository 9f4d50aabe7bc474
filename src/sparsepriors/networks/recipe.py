"""Training a classifier, dense or sparse, by a recipe that can be written down and compared."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparsepriors import _checks
from sparsepriors._described import Described
from sparsepriors.networks.augment import Augment
from sparsepriors.networks.batches import Shuffled
from sparsepriors.networks.classification import accuracy
from sparsepriors.networks.schedules import Schedule, constant, cosine, repeated, staircase
from sparsepriors.networks.sparse.hook import Sparsify
from sparsepriors.networks.sparse.plan import SparsePlan
from sparsepriors.networks.sparse.report import TrainingReport
from sparsepriors.networks.sparse.score import Probe
from sparsepriors.networks.sparse.sparsifier import Sparsifier
from sparsepriors.networks.train_loop import Hook, Training, TrainLoop, TrainState

Examples = tuple[Tensor, Tensor]
"""Normalised inputs ``(n, ...)`` and labels ``(n,)``."""


@dataclass(frozen=True)
class Recipe(Described):
    """How a classifier is trained; two arms of a comparison differ in nothing that this does not say.

    Parameters
    ----------
    epochs, batch
        Passes over the training examples, and examples per step.
    optimizer
        ``"sgd"`` or ``"adamw"``.
    rate, momentum, nesterov, weight_decay
        Of the optimizer, on all parameters; momentum and nesterov of SGD.
    schedule
        Of the learning rate: ``"cosine"``, ``"steps"`` or ``"constant"``.
    warmup
        Share of all steps in which the rate of a cosine rises linearly.
    milestones, factor
        Shares of all steps at which the rate of ``"steps"`` is multiplied by ``factor``.
    smoothing
        Label smoothing of the cross entropy.
    augment
        How images are changed from one epoch to the next, if at all.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range or a name unknown.
    """

    epochs: int = 10
    batch: int = 128
    optimizer: str = "sgd"
    rate: float = 0.05
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    warmup: float = 0.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    factor: float = 0.1
    smoothing: float = 0.0
    augment: Augment | None = None

    def __post_init__(self) -> None:
        _checks.count("epochs", self.epochs, low=1)
        _checks.count("batch", self.batch, low=1)
        _checks.one_of("optimizer", self.optimizer, ("sgd", "adamw"))
        _checks.one_of("schedule", self.schedule, ("cosine", "steps", "constant"))
        _checks.positive("rate", self.rate)
        for name in ("momentum", "weight_decay", "warmup", "smoothing"):
            _checks.nonnegative(name, getattr(self, name))

    def steps(self, examples: int, rounds: int = 1) -> int:
        """Steps in all, a multiple of ``rounds``; rows left over at the end of an epoch are not counted."""
        if examples < self.batch:
            raise ValueError(f"a batch of {self.batch} needs at least as many training examples, got {examples}")
        return math.ceil(self.epochs * (examples // self.batch) / rounds) * rounds

    def rates(self, steps: int) -> Schedule:
        """Factors of the learning rate for a training of this length."""
        match self.schedule:
            case "cosine":
                return cosine(steps, warmup=round(self.warmup * steps))
            case "steps":
                return staircase([round(m * steps) for m in self.milestones], factor=self.factor)
            case _:
                return constant()

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer of these parameters."""
        if self.optimizer == "adamw":
            return torch.optim.AdamW(parameters, self.rate, weight_decay=self.weight_decay)
        return torch.optim.SGD(parameters, self.rate, momentum=self.momentum, nesterov=self.nesterov,
                               weight_decay=self.weight_decay)


@dataclass(frozen=True)
class Trained:
    """What `train_classifier` did.

    Attributes
    ----------
    training
        Steps, and the trace of losses and validations.
    report
        The books of the sparse training; ``None`` if it was dense.
    accuracy
        Share of the test examples that the finished network gets right; NaN without a test set.
    """

    training: Training
    report: TrainingReport | None
    accuracy: float


def train_classifier(model: nn.Module, train: Examples, recipe: Recipe, *, generator: torch.Generator,
                     plan: SparsePlan | None = None, test: Examples | None = None, validate_every: int = 0,
                     hooks: Sequence[Hook] = (), attach: Callable[[Sparsifier], Sequence[Hook]] | None = None,
                     checkpoint: str | os.PathLike[str] | None = None, checkpoint_every: int = 0, resume: bool = False,
                     callback: Callable[[TrainState], bool | None] | None = None) -> Trained:
    """Train a classifier in place, sparse if there is a plan; the finished module is a plain one.

    Parameters
    ----------
    model
        Takes a batch of inputs, gives logits.
    train, test
        Normalised inputs and labels.
    recipe
        How.
    generator
        Draws the order of the examples, augmentation, and what the plan draws.
    plan
        The sparse training method, if any. Its scores may look at the first ``10 * classes`` of a shuffled copy of the
        training examples, at least one batch.
    validate_every
        Steps between measurements of the test accuracy, kept in the trace; 0 for none.
    hooks
        Of the `TrainLoop`.
    attach
        Makes further hooks of the sparsifier, such as probes of masks and gradients.
    checkpoint, checkpoint_every, resume, callback
        As in `TrainLoop`.

    Raises
    ------
    TypeError, ValueError
        If the examples are fewer than a batch, or the plan does not fit model or length.
    """
    _checks.instance("recipe", recipe, Recipe)
    _checks.instance("train", train, (tuple, list))
    if plan is not None:
        _checks.instance("plan", plan, SparsePlan)
    inputs, labels = train
    steps = recipe.steps(len(inputs), 1 if plan is None else plan.schedule.restarts)
    length = steps if plan is None else steps // plan.schedule.restarts
    optimizer = recipe.make_optimizer(model.parameters())
    sparsifier = None
    if plan is not None:
        rows = torch.randperm(len(inputs), generator=generator)[:max(recipe.batch, 10 * int(labels.max() + 1))]
        sparsifier = Sparsifier(model, plan, optimizer, total_steps=steps, generator=generator,
                                probe=Probe(inputs[rows], labels[rows]))
        hooks = (*hooks, Sparsify(sparsifier), *(attach(sparsifier) if attach is not None else ()))

    def loss(model: nn.Module, batch: Examples, generator: torch.Generator) -> Tensor:
        x, y = batch
        x = x if recipe.augment is None else recipe.augment(x, generator)
        return nn.functional.cross_entropy(model(x), y, label_smoothing=recipe.smoothing)

    def validate(model: nn.Module) -> Mapping[str, float]:
        assert test is not None
        return {"accuracy": accuracy(model, *test)}

    if validate_every and test is None:
        raise ValueError("validate_every needs test examples")
    loop = TrainLoop(model, optimizer, loss, Shuffled(inputs, labels, batch_size=recipe.batch), steps=steps,
                     generator=generator, schedule=repeated(recipe.rates(length), length), hooks=hooks,
                     validate=validate if validate_every else None, validate_every=validate_every,
                     checkpoint=checkpoint, checkpoint_every=checkpoint_every)
    training = loop.fit(callback=callback, resume=resume)
    report = None if sparsifier is None else sparsifier.finalize()
    model.eval()
    return Trained(training, report, math.nan if test is None else accuracy(model, *test))
