"""Real signals for autoencoders: tokens of a text encoder, pixels, feature maps, and pairs of image and caption."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparsepriors.data import (
    TEST_PHOTOS,
    TRAIN_PHOTOS,
    ImageSet,
    Split,
    detokenise,
    fashion_mnist,
    load_minilm,
    photos,
    token_windows,
    wikitext2,
)
from sparsepriors.dictionaries import HookPoint
from sparsepriors.dictionaries.activations import text_positions
from sparsepriors.networks.models import SmallConv, efficientnet_lite0

_WINDOW = 128          # tokens of a window
_CROP = 224            # side of a crop
_AT_ONCE = 32          # windows or crops in one pass
_TEXT_LAYER = "encoder.layer.2"
_IMAGE_LAYER = "_blocks.10"   # the last block at a sixteenth of the resolution
_TEMPERATURE = 0.07
_TEMPLATES = ("a photo of a {1} {0}", "a {1} picture of a {0}", "{0}, {1}", "this is a {0} and it looks {1}")
_SHADES = (("dark", "dim", "black"), ("grey", "plain", "medium"), ("bright", "light", "white"))


@dataclass(frozen=True)
class Signals:
    """Rows to learn from and rows to judge on."""

    train: Tensor
    test: Tensor

    def scaled(self) -> Signals:
        """Centred, with a mean squared length of d, both by the rows to learn from."""
        mean = self.train.mean(dim=0)
        size = math.sqrt(self.train.shape[1] / float((self.train - mean).square().sum(dim=1).mean()))
        return Signals((self.train - mean) * size, (self.test - mean) * size)


def text(seed: int, rows: int, held: int) -> Signals:
    """Activations of MiniLM's third layer on WikiText-2, padding and first tokens left out."""
    model, tokenizer = load_minilm()
    count = -(-(rows + held) // (_WINDOW - 1))
    windows = token_windows(tokenizer, detokenise(wikitext2("test")), _WINDOW, count, skip=seed % 5 * count)
    point = HookPoint(model, _TEXT_LAYER)
    found = torch.cat([point.rows({"input_ids": part}, text_positions) for part in windows.split(_AT_ONCE)])
    return Signals(found[:rows], found[rows:rows + held])


def pixels(seed: int, rows: int, held: int) -> Signals:
    """Pictures of Fashion-MNIST at 14 x 14, values in [0, 1]."""
    drawn, g = fashion_mnist(), torch.Generator().manual_seed(seed)
    return Signals(*(part.subset(n, g).shrink(2).images.flatten(1).float() / 255
                     for part, n in ((drawn.train, rows), (drawn.test, held))))


def features(seed: int, rows: int, held: int) -> Signals:
    """Columns of the feature maps of EfficientNet-Lite0 at a sixteenth of the resolution, on crops of photographs."""
    point, g = HookPoint(efficientnet_lite0(pretrained=True), _IMAGE_LAYER), torch.Generator().manual_seed(seed)
    parts = []
    for names, n in ((TRAIN_PHOTOS, rows), (TEST_PHOTOS, held)):
        pictures = [p for p in photos(names).values() if min(p.shape[1:]) >= _CROP]
        crops = torch.stack([_crop(pictures[i % len(pictures)], g) for i in range(-(-n // (_CROP // 16) ** 2))])
        maps = torch.cat([point.read((part.float() - 127) / 128).movedim(1, -1) for part in crops.split(_AT_ONCE)])
        parts.append(maps.reshape(-1, maps.shape[-1])[:n])
    return Signals(*parts)


SIGNALS: dict[str, Callable[[int, int, int], Signals]] = {"text": text, "pixels": pixels, "features": features}
"""Signals by name, of a seed, so many rows to learn from and to judge on."""


@dataclass(frozen=True)
class Pairs:
    """Embeddings of unit length; row i of both belongs together."""

    images: Tensor
    captions: Tensor

    def split(self, held: int) -> tuple[Pairs, Pairs]:
        """All but the last ``held`` pairs, and those."""
        return (Pairs(self.images[:-held], self.captions[:-held]), Pairs(self.images[-held:], self.captions[-held:]))


def pairs(seed: int, count: int, steps: int, d: int = 64) -> Pairs:
    """A small CLIP trained on the spot: a convolutional network for Fashion-MNIST, a linear map for MiniLM sentences.

    A caption names the class and, in one of three words, which third of all pictures this one's brightness is in.
    """
    g = torch.Generator().manual_seed(seed)
    drawn = fashion_mnist().shrink(2)
    split = drawn.train.subset(count, g)
    sentences, which = _captions(drawn, split, g)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        eye, voice = SmallConv(depth=2, width=16, classes=d), nn.Linear(sentences.shape[1], d)
    images = drawn.normalise(split.images)
    optimizer = torch.optim.Adam([*eye.parameters(), *voice.parameters()], lr=2e-3)
    for _ in range(steps):
        rows = torch.randint(count, (128,), generator=g)
        a, b = (functional.normalize(z, dim=1) for z in (eye(images[rows]), voice(sentences[which[rows]])))
        scores, own = a @ b.mT / _TEMPERATURE, torch.arange(len(rows))
        loss = (functional.cross_entropy(scores, own) + functional.cross_entropy(scores.mT, own)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    eye.eval()
    with torch.no_grad():
        seen = torch.cat([functional.normalize(eye(part), dim=1) for part in images.split(1000)])
        return Pairs(seen, functional.normalize(voice(sentences), dim=1)[which])


def _crop(picture: Tensor, generator: torch.Generator) -> Tensor:
    top, left = (int(torch.randint(n - _CROP + 1, (), generator=generator)) for n in picture.shape[1:])
    return picture[:, top:top + _CROP, left:left + _CROP]


def _captions(drawn: ImageSet, split: Split, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Embeddings of all captions, and which of them each picture has."""
    model, tokenizer = load_minilm()
    words = [template.format(name.lower(), word) for name in drawn.classes for shade in _SHADES for word in shade
             for template in _TEMPLATES]
    brightness = split.images.float().mean(dim=(1, 2, 3))
    edges = brightness.quantile(torch.tensor([1 / 3, 2 / 3]))
    per_shade = len(_SHADES[0]) * len(_TEMPLATES)
    first = (split.labels * len(_SHADES) + torch.bucketize(brightness, edges)) * per_shade
    which = first + torch.randint(per_shade, first.shape, generator=generator)
    batch = tokenizer(words, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    return functional.normalize((states * mask).sum(dim=1) / mask.sum(dim=1), dim=1), which
