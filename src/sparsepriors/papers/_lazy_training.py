"""Trainings of small ReLU transformers, dense or Top-k, and what their activations do meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparsepriors.data.characters import Characters, tiny_shakespeare
from sparsepriors.data.image_sets import ImageSet
from sparsepriors.imaging.corruptions import SEVERITIES, corrupt
from sparsepriors.language.analysis.activation import ActivationSparsity
from sparsepriors.networks.batches import Drawn, Shuffled
from sparsepriors.networks.classification import accuracy, cross_entropy, predict
from sparsepriors.networks.models import TinyDecoderLM, TinyViT, seeded
from sparsepriors.networks.reliability import ece
from sparsepriors.networks.schedules import trapezoid
from sparsepriors.networks.train_loop import Batches, Hook, TrainLoop

_PROBE = 128      # examples that are watched during a training
_WARMUP = 100     # steps, or a fifth of a short training
_BATCH = 500      # examples of an evaluation pass


@dataclass(frozen=True)
class LanguageSizes:
    """A decoder of characters, how it is trained, and the windows of each part of the text that it is measured on."""

    context: int
    width: int
    depth: int
    hidden: int
    batch: int
    steps: int
    rate: float
    windows: int


@dataclass(frozen=True)
class VisionSizes:
    """A vision transformer and how it is trained."""

    patch: int
    width: int
    depth: int
    hidden: int
    batch: int
    epochs: int
    rate: float = 1e-3


class Watch(Hook):
    """Follows the percentage of active neurons by layer on fixed inputs: at 0, 1, 2, 4, ... and every 100 steps."""

    def __init__(self, model: nn.Module, inputs: Tensor) -> None:
        self.model, self.inputs = model, inputs
        self.steps: list[int] = []
        self.percent: list[list[float]] = []

    def on_start(self, loop: TrainLoop) -> None:
        """Before the first step."""
        self._look(0)

    def after_step(self, loop: TrainLoop) -> None:
        """Where due."""
        if loop.step & (loop.step - 1) == 0 or loop.step % 100 == 0 or loop.step == loop.steps:
            self._look(loop.step)

    @torch.no_grad()
    def _look(self, step: int) -> None:
        with ActivationSparsity(self.model) as meter:
            self.model(self.inputs)
        self.steps.append(step)
        self.percent.append(list(meter.percent_nonzero().values()))


def fit(model: nn.Module, loss: Callable[..., Tensor], batches: Batches, inputs: Tensor, *, steps: int, rate: float,
        seed: int, decay: float = 0.0) -> dict[str, Any]:
    """Train in place, and the percentages of active neurons on the way, step by step and layer by layer.

    Models that are trained with the same seed are given the same batches. The rate rises linearly and falls linearly.
    """
    warmup = min(_WARMUP, steps // 5)
    watch = Watch(model, inputs)
    TrainLoop(model, torch.optim.AdamW(model.parameters(), rate, weight_decay=decay), loss, batches, steps=steps,
              generator=torch.Generator().manual_seed(seed), hooks=(watch,),
              schedule=trapezoid(steps, warmup=warmup, decay=steps - warmup)).fit()
    model.eval()
    return {"steps": watch.steps, "path": watch.percent}


def measured(model: nn.Module, *parts: Tensor) -> dict[str, Any]:
    """Active neurons on each part of the inputs by layer; over all parts, the dead ones and how often each is active.

    Returns
    -------
    dict
        ``percent``: a list for each part; ``dead`` and ``neurons``: numbers over all layers; ``most``: of any token;
        ``frequency``: a sorted list for each layer.
    """
    meters = []
    for inputs in parts:
        with ActivationSparsity(model) as meter, torch.no_grad():
            for batch in inputs.split(_BATCH):
                model(batch)
        meters.append(meter)
    layers = zip(*(m.neuron_frequency().values() for m in meters), strict=True)
    shares = [torch.stack(layer).mean(0) for layer in layers]
    return {"percent": [list(m.percent_nonzero().values()) for m in meters],
            "most": max(max(m.most().values()) for m in meters),
            "dead": sum(int((s == 0).sum()) for s in shares), "neurons": sum(map(len, shares)),
            "frequency": [s.sort(descending=True).values.tolist() for s in shares]}


@cache
def _plays() -> tuple[int, Tensor, Tensor]:
    parts = [tiny_shakespeare(part) for part in ("train", "valid")]
    characters = Characters.of("".join(parts))
    train, valid = (torch.tensor(characters(part)["input_ids"]) for part in parts)
    return len(characters), train, valid


def next_token(model: nn.Module, tokens: Tensor, generator: torch.Generator) -> Tensor:
    """Mean negative log-likelihood of the tokens after the first, in nats: a loss for `TrainLoop`."""
    return functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def language(sizes: LanguageSizes, seed: int, device: torch.device, topk: int | None = None,
             decay: float = 0.0) -> dict[str, Any]:
    """Train a decoder on plays and measure it on windows of both parts.

    Returns
    -------
    dict
        Of `fit` and `measured`, and ``nats``: a character of the validation text.
    """
    vocabulary, train, valid = _plays()
    with seeded(torch.Generator().manual_seed(seed)):
        model = TinyDecoderLM(vocabulary, context=sizes.context, width=sizes.width, depth=sizes.depth,
                              hidden=sizes.hidden, topk=topk).to(device)

    def windows(text: Tensor, count: int, generator: torch.Generator) -> Tensor:
        starts = torch.randint(len(text) - sizes.context, (count, 1), generator=generator)
        return text[starts + torch.arange(sizes.context + 1)].to(device)

    apart = torch.Generator().manual_seed(seed + 10_000)
    shown = [windows(text, sizes.windows, apart) for text in (train, valid)]
    path = fit(model, next_token, Drawn(partial(windows, train, sizes.batch)), shown[0][:_PROBE, :-1],
               steps=sizes.steps, rate=sizes.rate, seed=seed, decay=decay)
    with torch.no_grad():
        nats = [float(next_token(model, batch, apart)) * len(batch) for batch in shown[1].split(_BATCH)]
    return {**path, **measured(model, *(part[:, :-1] for part in shown)), "nats": sum(nats) / sizes.windows}


@dataclass(frozen=True, eq=False)
class Pictures:
    """The images of one seed: bytes, which stay on the CPU, with labels, and how they are normalised."""

    images: ImageSet
    device: torch.device
    train: Tensor
    labels: Tensor
    test: Tensor
    test_labels: Tensor

    @classmethod
    def draw(cls, images: ImageSet, train: int, test: int, seed: int, device: torch.device) -> Pictures:
        """So many training and test images, or all that there are."""
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(images.train), generator=generator)[:train]
        tested = torch.randperm(len(images.test), generator=generator)[:test]
        return cls(images, device, images.train.images[rows], images.train.labels[rows].to(device),
                   images.test.images[tested], images.test.labels[tested].to(device))

    def normalised(self, images: Tensor) -> Tensor:
        """Bytes as the network takes them."""
        return self.images.normalise(images).to(self.device)

    def vit(self, sizes: VisionSizes, seed: int, topk: int | None = None) -> TinyViT:
        """The untrained network of a seed."""
        with seeded(torch.Generator().manual_seed(seed)):
            return TinyViT(size=self.train.shape[-1], patch=sizes.patch, width=sizes.width, depth=sizes.depth,
                           hidden=sizes.hidden, topk=topk, in_channels=self.images.channels,
                           classes=len(self.images.classes)).to(self.device)


def vision(pictures: Pictures, sizes: VisionSizes, seed: int, topk: int | None = None, *,
           noise: bool = False) -> dict[str, Any]:
    """Train a vision transformer and measure sparsity, accuracy, calibration and, if asked to, accuracy under noise."""
    model = pictures.vit(sizes, seed, topk)
    x, test = pictures.normalised(pictures.train), pictures.normalised(pictures.test)
    path = fit(model, cross_entropy, Shuffled(x, pictures.labels, batch_size=sizes.batch), x[:_PROBE],
               steps=_steps(sizes, len(x)), rate=sizes.rate, seed=seed)
    drawn = torch.Generator().manual_seed(seed)
    corrupted = {kind: fmean(accuracy(model, _corrupted(pictures.test, kind, severity, drawn), pictures.test_labels,
                                      prepare=pictures.normalised) for severity in range(1, 6))
                 for kind in SEVERITIES if noise}
    return {**path, **measured(model, x, test), "accuracy": accuracy(model, test, pictures.test_labels),
            "ece": ece(predict(model, test), pictures.test_labels), **corrupted}


def noisy_labels(pictures: Pictures, sizes: VisionSizes, seed: int, share: float, topk: int | None) -> dict[str, Any]:
    """Train with a share of the labels replaced by random ones of all classes; accuracy on the true test labels."""
    model = pictures.vit(sizes, seed, topk)
    classes = len(pictures.images.classes)
    generator = torch.Generator().manual_seed(seed)
    labels = pictures.labels.clone()
    replaced = torch.randperm(len(labels), generator=generator)[:round(share * len(labels))]
    labels[replaced] = torch.randint(classes, (len(replaced),), generator=generator).to(labels.device)
    x = pictures.normalised(pictures.train)
    fit(model, cross_entropy, Shuffled(x, labels, batch_size=sizes.batch), x[:_PROBE], steps=_steps(sizes, len(x)),
        rate=sizes.rate, seed=seed)
    return {"accuracy": accuracy(model, pictures.normalised(pictures.test), pictures.test_labels),
            "memorised": accuracy(model, x, labels)}


def cause(pictures: Pictures, sizes: VisionSizes, seed: int, kind: str) -> dict[str, Any]:
    """Train on data without structure: ``"labels"`` or ``"inputs"`` at random, or ``"endless"`` random both.

    Random inputs are uniform noise with moments 0 and 1; endless data are drawn afresh at every step.
    """
    model = pictures.vit(sizes, seed)
    classes, generator = len(pictures.images.classes), torch.Generator().manual_seed(seed)

    def pixels(count: int, generator: torch.Generator) -> Tensor:
        return ((torch.rand(count, *pictures.train.shape[1:], generator=generator) - 0.5) * 12**0.5).to(pictures.device)

    def answers(count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(classes, (count,), generator=generator).to(pictures.device)

    def both(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return pixels(sizes.batch, generator), answers(sizes.batch, generator)

    count = len(pictures.train)
    x = pictures.normalised(pictures.train) if kind == "labels" else pixels(count, generator)
    labels = pictures.labels if kind == "inputs" else answers(count, generator)
    batches = Drawn(both) if kind == "endless" else Shuffled(x, labels, batch_size=sizes.batch)
    path = fit(model, cross_entropy, batches, x[:_PROBE], steps=_steps(sizes, count), rate=sizes.rate, seed=seed)
    return {**path, "percent_end": fmean(measured(model, x)["percent"][0])}


def width(pictures: Pictures, sizes: VisionSizes, seed: int) -> dict[str, Any]:
    """Train once more, to compare networks of several sizes: percentage and number of active neurons, accuracy."""
    model = pictures.vit(sizes, seed)
    x = pictures.normalised(pictures.train)
    fit(model, cross_entropy, Shuffled(x, pictures.labels, batch_size=sizes.batch), x[:_PROBE],
        steps=_steps(sizes, len(x)), rate=sizes.rate, seed=seed)
    percent = fmean(measured(model, x)["percent"][0])
    return {"percent": percent, "active": percent * sizes.hidden / 100,
            "accuracy": accuracy(model, pictures.normalised(pictures.test), pictures.test_labels)}


def _steps(sizes: VisionSizes, examples: int) -> int:
    return sizes.epochs * (examples // sizes.batch)


def _corrupted(images: Tensor, kind: str, severity: int, generator: torch.Generator) -> Tensor:
    """Bytes again, as in ImageNet-C."""
    return (corrupt(images / 255, kind, severity, generator=generator) * 255).round().to(torch.uint8)
