"""Networks by name, with weights that depend on a generator alone."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from sparsepriors import _checks
from sparsepriors.networks.models.efficientnet import EfficientNetLite0
from sparsepriors.networks.models.mobilenet import MobileNetV1, MobileNetV2
from sparsepriors.networks.models.resnet import cifar_resnet, resnet8, resnet18, resnet20, resnet50
from sparsepriors.networks.models.small import MLP, SmallConv
from sparsepriors.networks.models.transformer import TinyViT, VisionTransformer

_MODELS: dict[str, Callable[..., nn.Module]] = {
    "efficientnet-lite0": EfficientNetLite0, "mlp": MLP, "mobilenet-v1": MobileNetV1, "mobilenet-v2": MobileNetV2,
    "resnet8": resnet8, "resnet18": resnet18, "resnet20": resnet20, "resnet50": resnet50, "small-conv": SmallConv,
    "tiny-vit": TinyViT, "vit": VisionTransformer}

MODELS: tuple[str, ...] = tuple(_MODELS)
"""Names that `model` takes, besides ``cifar_resnet_N`` and ``cifar_resnet_N_W``."""

_FAMILY = "cifar_resnet"


def model(name: str, *, generator: torch.Generator, **options: Any) -> nn.Module:
    """Build a network with fresh weights, on the CPU, in training mode.

    Parameters
    ----------
    name
        One of `MODELS`, or ``cifar_resnet_N`` or ``cifar_resnet_N_W``: `cifar_resnet` of N = 6 k + 2 layers and
        width W, by default 16.
    generator
        The source of the weights; torch's own generator is left as it was.
    options
        Arguments of the network; all take ``in_channels`` and ``classes``.

    Raises
    ------
    TypeError
        If the network has no such option, or a number is of the wrong type.
    ValueError
        If the name is unknown or a number out of range; the message has the nearest name.
    """
    make = _family(name) if name.startswith(_FAMILY) else _MODELS[_checks.one_of("model", name, MODELS)]
    known = list(inspect.signature(make).parameters)
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{name} takes {', '.join(known)}, got {option!r}{hint}")
    with seeded(generator):
        return make(**options)


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """Inside, whatever is made on the CPU draws its weights from this generator; torch's own is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
        yield


def _family(name: str) -> Callable[..., nn.Module]:
    match = re.fullmatch(rf"{_FAMILY}_(\d+)(?:_(\d+))?", name)
    if match is None or int(match[1]) < 8 or int(match[1]) % 6 != 2 or match[2] == "0":
        raise ValueError(f"model must be {_FAMILY}_N or {_FAMILY}_N_W with N = 6 k + 2 layers (8, 14, 20, ...) and a "
                         f"positive width W, got {name!r}")
    return partial(cifar_resnet, int(match[1]), width=int(match[2] or 16))
