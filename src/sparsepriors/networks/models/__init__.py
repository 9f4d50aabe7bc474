"""Networks to train and to prune: small ones, residual ones, mobile ones, and one with trained weights."""

from sparsepriors.networks.models.efficientnet import EfficientNetLite0, SamePaddingConv2d, efficientnet_lite0
from sparsepriors.networks.models.resnet import ResNet, resnet8, resnet18, resnet20, resnet50
from sparsepriors.networks.models.small import MLP, SmallConv

__all__ = [
    "MLP",
    "EfficientNetLite0",
    "ResNet",
    "SamePaddingConv2d",
    "SmallConv",
    "efficientnet_lite0",
    "resnet8",
    "resnet18",
    "resnet20",
    "resnet50",
]
