"""Real photographs that installed packages ship: scikit-image, scikit-learn and matplotlib."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.data.find import Source, find_file
from sparsepriors.data.imagenet import read_image

_SKIMAGE, _SKLEARN, _MATPLOTLIB = ("skimage", "data"), ("sklearn", "datasets/images"), ("matplotlib",
                                                                                         "mpl-data/sample_data")
_PIP = {"skimage": "scikit-image", "sklearn": "scikit-learn", "matplotlib": "matplotlib"}
_FILES: dict[str, tuple[tuple[str, str], str]] = {
    **{Path(name).stem: (_SKIMAGE, name) for name in (
        "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png",
        "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "motorcycle_right.png", "page.png",
        "retina.jpg", "rocket.jpg", "text.png")},
    "china": (_SKLEARN, "china.jpg"),
    "flower": (_SKLEARN, "flower.jpg"),
    "grace_hopper": (_MATPLOTLIB, "grace_hopper.jpg"),
}

PHOTOS: tuple[str, ...] = tuple(sorted(_FILES))
"""Names of the photographs."""

TEST_PHOTOS: tuple[str, ...] = ("camera", "chelsea", "china", "rocket")
"""What image priors are judged on; no shipped weight has seen them."""

TRAIN_PHOTOS: tuple[str, ...] = tuple(name for name in PHOTOS if name not in TEST_PHOTOS)
"""What image priors may be trained and tuned on."""


def photos(names: Iterable[str] = PHOTOS) -> dict[str, UInt8[Tensor, "3 height width"]]:
    """Photographs by name, RGB of bytes; grey ones are repeated over the channels.

    Raises
    ------
    ValueError
        If a name is not one of `PHOTOS`.
    FileNotFoundError
        If the package that ships a photograph is not installed; the message names it.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"names must be an iterable of names, got {type(names).__name__}")
    return {name: read_image(_path(_checks.one_of("names", name, PHOTOS))) for name in names}


def luma(photo: UInt8[Tensor, "3 height width"]) -> Float[Tensor, "height width"]:
    """The grey photograph, values in [0, 1] (ITU-R BT.601 weights).

    Raises
    ------
    TypeError, ValueError
        If it is not bytes of three colours.
    """
    _checks.instance("photo", photo, Tensor)
    _checks.same_dtype("photo", photo, torch.uint8)
    if photo.ndim != 3 or len(photo) != 3:
        raise ValueError(f"photo must have shape (3, height, width), got {tuple(photo.shape)}")
    return (photo.float() / 255 * photo.new_tensor((0.299, 0.587, 0.114), dtype=torch.float32)[:, None, None]).sum(0)


def _path(name: str) -> Path:
    (package, folder), file = _FILES[name]
    return find_file(Source(file, package=package, path=f"{folder}/{file}", pip=_PIP[package]))
