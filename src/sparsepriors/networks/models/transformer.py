"""Transformers: the block, two for images (Dosovitskiy et al., 2021, arXiv:2010.11929), and a decoder of tokens.

The default ones are tiny. Blocks normalise before they mix (Xiong et al., 2020, arXiv:2002.04745), and every matrix is
a layer of its own, so that it can be pruned.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from sparsepriors import _checks
from sparsepriors.networks.activations import ACTIVATIONS, TopKActivation
from sparsepriors.networks.models.images import check_images


class TransformerBlock(nn.Module):
    """Attention and a perceptron of one hidden layer, each of normalised tokens and added to them.

    The state dict has the usual names: ``norm1``, ``attn.qkv``, ``attn.proj``, ``norm2``, ``mlp.fc1``, ``mlp.fc2``.

    Parameters
    ----------
    width, heads
        Numbers per token; heads of attention, which must divide the width.
    hidden
        Neurons of the perceptron.
    activation
        ``"relu"`` or ``"gelu"``.
    topk
        Keep the so many largest activations of a token (`TopKActivation`); only with ``"relu"``.
    causal
        Whether a token sees itself and those before it alone.
    bias
        Whether linear layers have biases.
    eps
        Of the normalisations.

    Raises
    ------
    TypeError, ValueError
        If a number is not a positive integer, heads do not divide the width, or ``topk`` exceeds ``hidden``.
    """

    def __init__(self, width: int, heads: int, hidden: int, *, activation: str = "relu", topk: int | None = None,
                 causal: bool = False, bias: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        for name, value in {"width": width, "heads": heads, "hidden": hidden}.items():
            _checks.count(name, value, low=1)
        if width % heads:
            raise ValueError(f"heads must divide width, got {heads} heads of width {width}")
        self.norm1, self.attn = nn.LayerNorm(width, eps=eps), _Attention(width, heads, causal, bias)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp: nn.Module = _Perceptron(width, hidden, activation, topk, bias)   # a `SparseMLP` may take its place

    def forward(self, x: Float[Tensor, "batch tokens width"],
                past: list[Tensor] | None = None) -> Float[Tensor, "batch tokens width"]:
        """The tokens with what attention and perceptron add to them.

        ``past`` holds keys and values of the tokens before and is brought up to date; see `TinyDecoderLM.forward`.
        """
        x = x + self.attn(self.norm1(x), past)
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Patches as tokens, a class token, learned positions, pre-normalised blocks of attention and perceptron.

    The state dict has the usual names (``patch_embed.proj``, ``blocks.0.attn.qkv``, ``blocks.0.mlp.fc1``, ``head``).

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
        _sizes(size, patch, width, heads, depth=depth, ratio=ratio, in_channels=in_channels, classes=classes)
        self.size, self.in_channels = size, in_channels
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(in_channels, width, patch, stride=patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, (size // patch) ** 2 + 1, width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, ratio * width, activation="gelu", eps=1e-6)
                                    for _ in range(depth))
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
        _check_square(x, self.in_channels, self.size)
        x = self.patch_embed["proj"](x).flatten(2).mT
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of a batch of normalised images."""
        return self.head(self.features(x))


class TinyViT(nn.Module):
    """Patches as tokens, learned positions, blocks, the mean of the tokens, a classifier.

    Every token has a part in the answer, so that those of the last block are trained, too. Linear layers begin as
    PyTorch draws them, positions with deviation 0.02.

    Parameters
    ----------
    size, patch
        Sides of the images and of the square patches, in pixels; the patches must fill the image.
    width, depth, heads
        Numbers per token, blocks, heads of attention, which must divide the width.
    hidden, activation, topk
        Of the perceptrons, see `TransformerBlock`.
    in_channels, classes
        Channels of the images, number of outputs.

    Raises
    ------
    TypeError, ValueError
        If a number is not a positive integer, or one does not divide the other.
    """

    def __init__(self, *, size: int = 28, patch: int = 4, width: int = 64, depth: int = 4, heads: int = 4,
                 hidden: int = 256, activation: str = "relu", topk: int | None = None, in_channels: int = 1,
                 classes: int = 10) -> None:
        super().__init__()
        _sizes(size, patch, width, heads, depth=depth, in_channels=in_channels, classes=classes)
        self.size, self.patch, self.in_channels = size, patch, in_channels
        self.patch_embed = nn.Linear(in_channels * patch**2, width)
        self.pos_embed = nn.Parameter(torch.empty((size // patch) ** 2, width).normal_(std=0.02))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, hidden, activation=activation, topk=topk)
                                    for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def features(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch numbers"]:
        """The mean token in front of the classifier."""
        _check_square(x, self.in_channels, self.size)
        x = self.patch_embed(functional.pixel_unshuffle(x, self.patch).flatten(2).mT) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x).mean(dim=1)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of a batch of normalised images."""
        return self.head(self.features(x))


class TinyDecoderLM(nn.Module):
    """A causal language model: embedded tokens, learned positions, blocks, and a head with weights of its own.

    Parameters
    ----------
    vocabulary
        How many different tokens there are.
    context
        The longest sequence.
    width, depth, heads
        Numbers per token, blocks, heads of attention, which must divide the width.
    hidden, activation, topk
        Of the perceptrons, see `TransformerBlock`.
    bias
        Whether linear layers have biases.
    std
        Deviation of the normal numbers that all weights begin with, biases then with 0. By default that of embeddings
        is 0.02, and linear layers begin as PyTorch draws them.

    Raises
    ------
    TypeError, ValueError
        If a number is not a positive integer, or one does not divide the other.
    """

    def __init__(self, vocabulary: int, *, context: int = 128, width: int = 128, depth: int = 4, heads: int = 4,
                 hidden: int = 512, activation: str = "relu", topk: int | None = None, bias: bool = True,
                 std: float | None = None) -> None:
        super().__init__()
        for name, value in {"vocabulary": vocabulary, "context": context, "depth": depth}.items():
            _checks.count(name, value, low=1)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, hidden, activation=activation, topk=topk,
                                                     causal=True, bias=bias) for _ in range(depth))
        self.embed, self.pos_embed = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=bias)
        if std is not None:
            _checks.positive("std", std)
        for module in self.modules():
            if isinstance(module, nn.Embedding) or (isinstance(module, nn.Linear) and std is not None):
                nn.init.normal_(module.weight, std=0.02 if std is None else std)
            if isinstance(module, nn.Linear) and std is not None and module.bias is not None:
                nn.init.zeros_(module.bias)

    def features(self, tokens: Int64[Tensor, "batch length"],
                 past: list[list[Tensor]] | None = None) -> Float[Tensor, "batch length numbers"]:
        """The normalised states in front of the head; for ``past`` see `forward`."""
        if tokens.dtype != torch.int64:
            raise TypeError(f"tokens must be int64, got {tokens.dtype}")
        longest, vocabulary = self.pos_embed.num_embeddings, self.embed.num_embeddings
        start = past[0][0].shape[2] if past and past[0] else 0
        if tokens.ndim != 2 or not 1 <= tokens.shape[1] <= longest - start or not len(tokens):
            raise ValueError(f"tokens must have shape (batch, length) with length from 1 to {longest - start}, "
                             f"got {tuple(tokens.shape)}")
        low, high = (int(t) for t in torch.aminmax(tokens))
        if low < 0 or high >= vocabulary:
            raise ValueError(f"tokens must be from 0 to {vocabulary - 1}, got {low} to {high}")
        x = self.embed(tokens) + self.pos_embed.weight[start:start + tokens.shape[1]]
        for i, block in enumerate(self.blocks):
            x = block(x, None if past is None else past[i])
        return self.norm(x)

    def forward(self, tokens: Int64[Tensor, "batch length"],
                past: list[list[Tensor]] | None = None) -> Float[Tensor, "batch length vocabulary"]:
        """Logits of the token that follows each.

        Parameters
        ----------
        tokens
            The text, or with ``past`` what comes after the text that was read: first any number of tokens, then one
            at a time.
        past
            Keys and values of what was read, one list for each block, empty at first; extended in place.
        """
        return self.head(self.features(tokens, past))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, causal: bool, bias: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=bias), nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor, past: list[Tensor] | None = None) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        causal = self.causal
        if past is not None:
            if past:
                if tokens != 1:
                    raise ValueError(f"after the first tokens they are read one at a time, got {tokens}")
                k, v, causal = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2), False
            past[:] = k, v
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class _Perceptron(nn.Module):
    def __init__(self, width: int, hidden: int, activation: str, topk: int | None, bias: bool) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden, bias=bias), nn.Linear(hidden, width, bias=bias)
        self.act: nn.Module = ACTIVATIONS[_checks.one_of("activation", activation, ACTIVATIONS)]()
        if topk is not None:
            self.act = TopKActivation(self.act, _checks.count("topk", topk, low=1, high=hidden))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


def _sizes(size: int, patch: int, width: int, heads: int, **others: int) -> None:
    for name, value in {"size": size, "patch": patch, "width": width, "heads": heads, **others}.items():
        _checks.count(name, value, low=1)
    if size % patch or width % heads:
        raise ValueError(f"patch must divide size and heads must divide width, got patch {patch} of size {size} "
                         f"and {heads} heads of width {width}")


def _check_square(x: Tensor, channels: int, size: int) -> None:
    check_images(x, channels)
    if x.shape[2:] != (size, size):
        raise ValueError(f"x must be images of {size} x {size} pixels, got {x.shape[2]} x {x.shape[3]}")
