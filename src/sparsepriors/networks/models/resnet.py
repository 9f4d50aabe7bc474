"""Residual networks (He, Zhang, Ren and Sun, 2016, arXiv:1512.03385), for photographs and for small images."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sparsepriors import _checks
from sparsepriors.networks.models.images import STEMS, check_images, start_by_inputs, start_convolutions

BLOCKS = ("basic", "bottleneck")
SHORTCUTS = ("project", "pad")


class ResNet(nn.Module):
    """A residual network: a stem, stages of blocks that halve the image and double the channels, mean and classifier.

    The names of the state dict are the usual ones (``conv1``, ``layer1.0.conv1``, ``layer2.0.downsample.0``, ``fc``),
    so that weights trained elsewhere fit. In a bottleneck the stride is in the 3 x 3 convolution.

    Parameters
    ----------
    depths
        Blocks of each stage.
    block
        ``"basic"``: two 3 x 3 convolutions; ``"bottleneck"``: 1 x 1, 3 x 3 and 1 x 1, the last four times as wide.
    width
        Channels of the first stage.
    in_channels, classes
        Channels of the images, number of outputs.
    stem
        ``"imagenet"``: a 7 x 7 convolution of stride 2 and max pooling; ``"cifar"``: a 3 x 3 convolution.
    shortcut
        Where the shape changes: ``"project"`` by a 1 x 1 convolution, or ``"pad"`` with zero channels, no weights.

    Raises
    ------
    TypeError, ValueError
        If a number is not a positive integer, a name is unknown, or ``"pad"`` is asked of bottlenecks.
    """

    def __init__(self, depths: Sequence[int], *, block: str = "basic", width: int = 64, in_channels: int = 3,
                 classes: int = 1000, stem: str = "imagenet", shortcut: str = "project") -> None:
        super().__init__()
        for i, depth in enumerate(depths):
            _checks.count(f"depths[{i}]", depth, low=1)
        if not depths:
            raise ValueError("depths must be of at least one stage, got none")
        _checks.one_of("block", block, BLOCKS)
        _checks.one_of("shortcut", shortcut, SHORTCUTS)
        if (block, shortcut) == ("bottleneck", "pad"):
            raise ValueError("shortcut must be 'project' for block 'bottleneck', whose first stage widens at stride 1")
        _checks.count("width", width, low=1)
        self.in_channels = _checks.count("in_channels", in_channels, low=1)
        _checks.count("classes", classes, low=1)
        large = _checks.one_of("stem", stem, STEMS) == "imagenet"
        kernel, stride = (7, 2) if large else (3, 1)
        self.conv1 = nn.Conv2d(in_channels, width, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if large else nn.Identity()
        make = _Basic if block == "basic" else _Bottleneck
        self.stages, channels = len(depths), width
        for stage, depth in enumerate(depths):
            blocks = []
            for i in range(depth):
                inner = width * 2**stage
                blocks.append(make(channels, inner, 2 if stage and i == 0 else 1, shortcut))
                channels = inner * make.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, classes)
        start_convolutions(self)

    def features(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch maps"]:
        """Pooled activations in front of the classifier."""
        check_images(x, self.in_channels)
        x = self.maxpool(functional.relu(self.bn1(self.conv1(x))))
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        return x.mean(dim=(2, 3))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of a batch of normalised images."""
        return self.fc(self.features(x))


class _Basic(nn.Module):
    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3), nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class _Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, shortcut: str) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1, self.bn1 = _conv(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = _conv(width, outputs, 1), nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        return functional.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ChannelPad(nn.Module):
    """Every pixel or every other one, and ``channels`` more channels, of zeros: a shortcut without weights."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch more rows cols"]:
        """Take pixels and add channels."""
        return functional.pad(x[:, :, ::self.stride, ::self.stride], (0, 0, 0, 0, 0, self.channels))


def resnet8(*, width: int = 16, in_channels: int = 3, classes: int = 10) -> ResNet:
    """The 8-layer network for small images: three stages of one block; shortcuts without weights."""
    return ResNet((1, 1, 1), width=width, in_channels=in_channels, classes=classes, stem="cifar", shortcut="pad")


def resnet20(*, width: int = 16, in_channels: int = 3, classes: int = 10) -> ResNet:
    """The 20-layer network for small images of He et al., section 4.2: 0.27 million parameters."""
    return ResNet((3, 3, 3), width=width, in_channels=in_channels, classes=classes, stem="cifar", shortcut="pad")


def resnet18(*, width: int = 64, in_channels: int = 3, classes: int = 1000, stem: str = "imagenet") -> ResNet:
    """ResNet-18: 11.69 million parameters for ImageNet."""
    return ResNet((2, 2, 2, 2), width=width, in_channels=in_channels, classes=classes, stem=stem)


def resnet50(*, width: int = 64, in_channels: int = 3, classes: int = 1000, stem: str = "imagenet") -> ResNet:
    """ResNet-50: 25.56 million parameters for ImageNet, 25,502,912 of them in convolutions and classifier."""
    return ResNet((3, 4, 6, 3), block="bottleneck", width=width, in_channels=in_channels, classes=classes, stem=stem)


def cifar_resnet(depth: int = 20, *, width: int = 16, in_channels: int = 3, classes: int = 10) -> ResNet:
    """The family of He et al., section 4.2, of any depth 6 k + 2 and width, as sparse training compares it.

    Shortcuts where the width changes are 1 x 1 convolutions, and weights of convolutions and classifier are drawn by
    the size of the input (Liu et al., 2022, arXiv:2202.02643).

    Raises
    ------
    TypeError, ValueError
        If ``depth`` is not 8, 14, 20, ..., or a number is not a positive integer.
    """
    if _checks.count("depth", depth, low=8) % 6 != 2:
        raise ValueError(f"depth must be 6 k + 2 (8, 14, 20, 26, 32, ...), got {depth}")
    model = ResNet((depth // 6,) * 3, width=width, in_channels=in_channels, classes=classes, stem="cifar")
    start_by_inputs(model)
    return model


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


def _shortcut(inputs: int, outputs: int, stride: int, kind: str) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if kind == "pad":
        return ChannelPad(outputs - inputs, stride)
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
