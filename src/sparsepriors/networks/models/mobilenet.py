"""MobileNets: depthwise separable convolutions (Howard et al., 2017, arXiv:1704.04861) and inverted residuals."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from sparsepriors import _checks
from sparsepriors.networks.models.images import STEMS, check_images, start_convolutions

# Output channels and stride of each separable convolution (Howard et al., table 1).
_V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
# Expansion, output channels, repeats, stride of the first (Sandler et al., table 2).
_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class MobileNetV1(nn.Module):
    """MobileNet: after the stem, 13 pairs of a depthwise 3 x 3 and a 1 x 1 convolution; 4.23 million parameters.

    Parameters
    ----------
    width
        Factor of all channels.
    in_channels, classes
        Channels of the images, number of outputs.
    stem
        ``"imagenet"``: the first convolution has stride 2; ``"cifar"``: stride 1, for small images.
    layout
        Output channels (before ``width``) and stride of each pair; those of the paper by default.

    Raises
    ------
    TypeError, ValueError
        If ``width`` is not positive, a number is not a positive integer, or the stem is unknown.
    """

    def __init__(self, *, width: float = 1.0, in_channels: int = 3, classes: int = 1000, stem: str = "imagenet",
                 layout: Sequence[tuple[int, int]] = _V1) -> None:
        super().__init__()
        _checks.positive("width", width)
        self.in_channels = _checks.count("in_channels", in_channels, low=1)
        _checks.count("classes", classes, low=1)
        channels = max(1, round(32 * width))
        self.stem = _ConvNorm(in_channels, channels, 3, _stride(stem), act=nn.ReLU)
        blocks = []
        for i, (outputs, stride) in enumerate(layout):
            _checks.count(f"layout[{i}][1]", stride, low=1)
            outputs = max(1, round(_checks.count(f"layout[{i}][0]", outputs, low=1) * width))
            blocks.append(nn.Sequential(_ConvNorm(channels, channels, 3, stride, groups=channels, act=nn.ReLU),
                                        _ConvNorm(channels, outputs, 1, act=nn.ReLU)))
            channels = outputs
        self.blocks = nn.ModuleList(blocks)
        self.fc = nn.Linear(channels, classes)
        start_convolutions(self)

    def features(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch maps"]:
        """Pooled activations in front of the classifier."""
        check_images(x, self.in_channels)
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x.mean(dim=(2, 3))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of a batch of normalised images."""
        return self.fc(self.features(x))


class MobileNetV2(nn.Module):
    """MobileNetV2: inverted residual blocks with linear bottlenecks, ReLU6; 3.50 million parameters.

    Source: Sandler, Howard, Zhu, Zhmoginov and Chen, 2018, arXiv:1801.04381. The names of the state dict are the usual
    ones (``features.1.conv.0.0``, ``classifier.1``), so that weights trained elsewhere fit.

    Parameters
    ----------
    width
        Factor of all channels, which are then rounded to multiples of 8 (never down by more than a tenth); the last
        convolution is never made narrower.
    in_channels, classes
        Channels of the images, number of outputs.
    stem
        ``"imagenet"``: the first convolution has stride 2; ``"cifar"``: stride 1, for small images.
    dropout
        Share of the pooled features that is dropped in training.

    Raises
    ------
    TypeError, ValueError
        If ``width`` is not positive, a number is not a positive integer, the stem is unknown, or ``dropout`` is not in
        [0, 1).
    """

    def __init__(self, *, width: float = 1.0, in_channels: int = 3, classes: int = 1000, stem: str = "imagenet",
                 dropout: float = 0.2) -> None:
        super().__init__()
        _checks.positive("width", width)
        self.in_channels = _checks.count("in_channels", in_channels, low=1)
        _checks.count("classes", classes, low=1)
        _checks.nonnegative("dropout", dropout)
        if dropout >= 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        channels, last = _by_eight(32 * width), _by_eight(1280 * max(1.0, width))
        layers: list[nn.Module] = [_ConvNorm(in_channels, channels, 3, _stride(stem), act=nn.ReLU6)]
        for expansion, outputs, repeats, stride in _V2:
            outputs = _by_eight(outputs * width)
            for i in range(repeats):
                layers.append(_InvertedResidual(channels, outputs, expansion, stride if i == 0 else 1))
                channels = outputs
        layers.append(_ConvNorm(channels, last, 1, act=nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, classes))
        start_convolutions(self)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of a batch of normalised images."""
        check_images(x, self.in_channels)
        return self.classifier(self.features(x).mean(dim=(2, 3)))


class _ConvNorm(nn.Sequential):
    """A convolution that keeps the size (at stride 1), batch normalisation, and an activation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1,
                 act: type[nn.Module]) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs), act())


class _InvertedResidual(nn.Module):
    """Expand by a 1 x 1 convolution, filter each channel, project; residual when the shape is kept."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        expand = [] if expansion == 1 else [_ConvNorm(inputs, width, 1, act=nn.ReLU6)]
        self.conv = nn.Sequential(*expand, _ConvNorm(width, width, 3, stride, groups=width, act=nn.ReLU6),
                                  nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return x + y if self.residual else y


def _stride(stem: str) -> int:
    return 2 if _checks.one_of("stem", stem, STEMS) == "imagenet" else 1


def _by_eight(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8
