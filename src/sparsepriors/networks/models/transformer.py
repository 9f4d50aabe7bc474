"""A vision transformer (Dosovitskiy et al., 2021, arXiv:2010.11929) of any size; the default one is tiny."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from sparsepriors import _checks
from sparsepriors.networks.models.images import check_images


class VisionTransformer(nn.Module):
    """Patches as tokens, a class token, learned positions, pre-normalised blocks of attention and perceptron.

    The state dict has the usual names (``patch_embed.proj``, ``blocks.0.attn.qkv``, ``blocks.0.mlp.fc1``, ``head``),
    and every matrix is a layer of its own, so that it can be pruned.

    Parameters
    ----------
    size, patch
        Sides of the images and of the square patches, in pixels; the patches must fill the image.
    width, depth, heads
        Numbers per token, blocks, heads of attention, which must divide the width.
    ratio
        Width of the perceptron in multiples of ``width``.
    in_channels, classes
        Channels of the images, number of outputs.

    Raises
    ------
    TypeError, ValueError
        If a number is not a positive integer, or one does not divide the other.
    """

    def __init__(self, *, size: int = 28, patch: int = 4, width: int = 64, depth: int = 4, heads: int = 4,
                 ratio: int = 2, in_channels: int = 1, classes: int = 10) -> None:
        super().__init__()
        for name, value in {"size": size, "patch": patch, "width": width, "depth": depth, "heads": heads,
                            "ratio": ratio, "classes": classes}.items():
            _checks.count(name, value, low=1)
        self.size, self.in_channels = size, _checks.count("in_channels", in_channels, low=1)
        if size % patch or width % heads:
            raise ValueError(f"patch must divide size and heads must divide width, got patch {patch} of size {size} "
                             f"and {heads} heads of width {width}")
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(in_channels, width, patch, stride=patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, (size // patch) ** 2 + 1, width))
        self.blocks = nn.ModuleList(_Block(width, heads, ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)
        for weight in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(weight, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def features(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch numbers"]:
        """The class token in front of the classifier."""
        check_images(x, self.in_channels)
        if x.shape[2:] != (self.size, self.size):
            raise ValueError(f"x must be images of {self.size} x {self.size} pixels, got {x.shape[2]} x {x.shape[3]}")
        x = self.patch_embed["proj"](x).flatten(2).mT
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of a batch of normalised images."""
        return self.head(self.features(x))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, eps=1e-6), _Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width, eps=1e-6), _Perceptron(width, ratio * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class _Perceptron(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))
