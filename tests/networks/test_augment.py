"""Augmentation and batches of images: what they may do to an image, by properties; resume to the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from sparsepriors.data.image_sets import ImageSet, Split
from sparsepriors.networks.augment import Augment, ImageBatches
from sparsepriors.networks.classification import accuracy, cross_entropy
from sparsepriors.networks.models import model
from sparsepriors.networks.schedules import cosine
from sparsepriors.networks.train_loop import TrainLoop


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(n: int = 40, side: int = 8, seed: int = 0) -> ImageSet:
    """Two classes: bright above, bright below."""
    g = generator(seed)
    images = torch.randint(0, 120, (n, 1, side, side), generator=g, dtype=torch.uint8)
    labels = torch.arange(n) % 2
    images[labels == 0, :, :side // 2] += 100
    images[labels == 1, :, side // 2:] += 100
    return ImageSet("made", Split(images, labels), Split(images.clone(), labels.clone()), ("above", "below"))


def shifted(image: torch.Tensor, down: int, right: int, flip: bool, shift: int) -> torch.Tensor:
    """One image by slicing, the slow way."""
    image = image.flip(-1) if flip else image
    padded = functional.pad(image, (shift,) * 4)
    height, width = image.shape[1:]
    return padded[:, down:down + height, right:right + width]


@given(shift=st.integers(0, 3), flip=st.booleans(), seed=st.integers(0, 10**6), channels=st.integers(1, 3),
       height=st.integers(1, 6), width=st.integers(1, 6),
       dtype=st.sampled_from([torch.uint8, torch.float32, torch.float64]))
def test_each_image_is_one_of_the_allowed_moves_of_itself(shift: int, flip: bool, seed: int, channels: int, height: int,
                                                           width: int, dtype: torch.dtype) -> None:
    g = generator(seed)
    images = torch.randint(1, 256, (5, channels, height, width), generator=g, dtype=torch.uint8).to(dtype)
    before = images.clone()
    out = Augment(shift, flip)(images, g)
    assert torch.equal(images, before)
    assert out.shape == images.shape
    assert out.dtype == dtype
    for image, new in zip(images, out, strict=True):
        moves = [shifted(image, down, right, f, shift) for down in range(2 * shift + 1)
                 for right in range(2 * shift + 1) for f in {False, flip}]
        assert any(torch.equal(new, move) for move in moves)


def test_all_moves_are_equally_frequent() -> None:
    image = torch.arange(1, 50, dtype=torch.uint8).reshape(1, 7, 7)
    n = 30_000
    out = Augment(1, True)(image.expand(n, 1, 7, 7), generator(0))
    counts = [int((out == shifted(image, down, right, f, 1)).flatten(1).all(1).sum())
              for down in range(3) for right in range(3) for f in (False, True)]
    assert sum(counts) == n
    spread = (n / 18 * (1 - 1 / 18)) ** 0.5
    assert all(abs(c - n / 18) < 5 * spread for c in counts)


def test_no_move_is_no_change_and_moves_depend_on_the_generator_alone() -> None:
    images = made().train.images
    assert torch.equal(Augment(0, False)(images, generator(1)), images)
    a, b, c = (Augment()(images, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@given(rows=st.integers(0, 4))
def test_the_move_of_an_image_does_not_depend_on_what_the_others_show(rows: int) -> None:
    images = made(5).train.images
    others = images.clone()
    others[torch.arange(5) != rows] = 0
    assert torch.equal(Augment()(images, generator(3))[rows], Augment()(others, generator(3))[rows])


def test_an_epoch_shows_every_image_once_normalised_and_with_its_label() -> None:
    data = made(24)
    batches, g = ImageBatches(data, batch_size=6), generator(0)
    for _ in range(2):
        shown = [batches.next(g) for _ in range(4)]
        x, y = torch.cat([b[0] for b in shown]), torch.cat([b[1] for b in shown])
        normal = data.normalise(data.train.images)
        place = torch.tensor([int((normal == one).flatten(1).all(1).nonzero()) for one in x])
        assert place.sort().values.tolist() == list(range(24))
        assert torch.equal(data.train.labels[place], y)


def loop(data: ImageSet, checkpoint: Path | None = None, seed: int = 5, steps: int = 13) -> Any:
    g = generator(seed)
    net = model("small-conv", generator=g, depth=2, width=4, classes=2)
    batches = ImageBatches(data, batch_size=7, augment=Augment(1))
    return TrainLoop(net, torch.optim.SGD(net.parameters(), 0.1, momentum=0.9), cross_entropy, batches, steps=steps,
                     generator=g, schedule=cosine(steps), checkpoint=checkpoint,
                     checkpoint_every=4 if checkpoint else 0)


@pytest.mark.parametrize("cut", [2, 5, 8])
def test_a_stopped_training_resumes_to_the_same_bits(tmp_path: Path, cut: int) -> None:
    data = made()
    whole = loop(data)
    whole.fit()
    loop(data, tmp_path / "c.safetensors").fit(callback=lambda s: s.step == cut)
    resumed = loop(data, tmp_path / "c.safetensors", seed=99)   # the checkpoint's state must win
    resumed.fit(resume=True)
    assert resumed.trace["loss"] == whole.trace["loss"]
    for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(whole.generator.get_state(), resumed.generator.get_state())


def test_an_easy_task_is_learned() -> None:
    data, found, unseen = made(), loop(made(), steps=60), made(seed=1).test
    before = accuracy(found.model, unseen.images, unseen.labels, prepare=data.normalise)
    found.fit()
    assert before < 0.9
    assert accuracy(found.model, unseen.images, unseen.labels, prepare=data.normalise) == 1


@pytest.mark.public_door
def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="shift"):
        Augment(-1)
    with pytest.raises(TypeError, match="flip"):
        Augment(1, 1)
    with pytest.raises(ValueError, match="images must have shape"):
        Augment()(torch.zeros(3, 4, 4), generator(0))
    with pytest.raises(ValueError, match="batch_size"):
        ImageBatches(made(4), batch_size=5)


def test_an_augmentation_is_described() -> None:
    assert Augment.from_dict(Augment(3, False).to_dict()) == Augment(3, False)
