"""Small networks that train in seconds: a multilayer perceptron and a plain convolutional net."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sparsepriors import _checks
from sparsepriors.networks.models.images import check_images, start_convolutions


class MLP(nn.Module):
    """Linear layers with ReLU between them; images are flattened. The defaults are LeNet-300-100 on 28 x 28 pixels.

    Parameters
    ----------
    hidden
        Widths of the hidden layers.
    size
        Side of the square images in pixels.
    in_channels, classes
        Channels of the images, number of outputs.
    norm
        Whether a batch normalisation stands between each hidden layer and its ReLU.

    Raises
    ------
    TypeError, ValueError
        If a number is not a positive integer.
    """

    def __init__(self, *, hidden: Sequence[int] = (300, 100), size: int = 28, in_channels: int = 1,
                 classes: int = 10, norm: bool = False) -> None:
        super().__init__()
        self.shape = (_checks.count("in_channels", in_channels, low=1), _checks.count("size", size, low=1), size)
        widths = [in_channels * size**2, *(_checks.count(f"hidden[{i}]", n, low=1) for i, n in enumerate(hidden)),
                  _checks.count("classes", classes, low=1)]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(n) if norm else nn.Identity() for n in widths[1:-1])

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of a batch of normalised images."""
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x must have shape (batch, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}")
        x = x.flatten(1)
        for layer, norm in zip(self.layers, self.norms, strict=False):
            x = functional.relu(norm(layer(x)))
        return self.layers[-1](x)


class SmallConv(nn.Module):
    """Plain 3 x 3 convolutions, each with batch normalisation, ReLU and 2 x 2 max pooling, then mean and classifier.

    Parameters
    ----------
    depth
        How many convolutions, each twice as wide as the one before.
    width
        Channels of the first.
    in_channels, classes
        Channels of the images, number of outputs.

    Raises
    ------
    TypeError, ValueError
        If a number is not a positive integer.
    """

    def __init__(self, *, depth: int = 3, width: int = 16, in_channels: int = 1, classes: int = 10) -> None:
        super().__init__()
        _checks.count("depth", depth, low=1)
        _checks.count("width", width, low=1)
        self.in_channels = _checks.count("in_channels", in_channels, low=1)
        widths = [in_channels, *(width * 2**i for i in range(depth))]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False)
                                   for a, b in itertools.pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in widths[1:])
        self.fc = nn.Linear(widths[-1], _checks.count("classes", classes, low=1))
        start_convolutions(self)

    def features(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch maps"]:
        """Pooled activations in front of the classifier."""
        check_images(x, self.in_channels, low=2 ** len(self.convs))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = functional.max_pool2d(functional.relu(norm(conv(x))), 2)
        return x.mean(dim=(2, 3))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of a batch of normalised images."""
        return self.fc(self.features(x))
