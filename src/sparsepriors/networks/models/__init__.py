"""Networks to train and to prune: small ones, residual ones, mobile ones, transformers, one with trained weights."""

from sparsepriors.networks.models.by_name import MODELS, model, seeded
from sparsepriors.networks.models.efficientnet import EfficientNetLite0, SamePaddingConv2d, efficientnet_lite0
from sparsepriors.networks.models.mobilenet import MobileNetV1, MobileNetV2
from sparsepriors.networks.models.resnet import ResNet, cifar_resnet, resnet8, resnet18, resnet20, resnet50
from sparsepriors.networks.models.small import MLP, SmallConv
from sparsepriors.networks.models.transformer import TinyDecoderLM, TinyViT, TransformerBlock, VisionTransformer

__all__ = [
    "MLP",
    "MODELS",
    "EfficientNetLite0",
    "MobileNetV1",
    "MobileNetV2",
    "ResNet",
    "SamePaddingConv2d",
    "SmallConv",
    "TinyDecoderLM",
    "TinyViT",
    "TransformerBlock",
    "VisionTransformer",
    "cifar_resnet",
    "efficientnet_lite0",
    "model",
    "resnet8",
    "resnet18",
    "resnet20",
    "resnet50",
    "seeded",
]
