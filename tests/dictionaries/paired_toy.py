"""A crosscoder of given weights, for tests that need no training."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class ToyCoder:
    encoder: Tensor       # (models, d, latents)
    decoder: Tensor       # (models, latents, d)
    decoder_bias: Tensor  # (models, d)
    threshold: float = 0.0

    def encode(self, x: Tensor) -> Tensor:
        codes = torch.einsum("bmd,mdn->bn", x, self.encoder)
        return torch.where(codes > self.threshold, codes, 0)

    def decode(self, codes: Tensor) -> Tensor:
        return torch.einsum("bn,mnd->bmd", codes, self.decoder) + self.decoder_bias


def toy(seed: int = 0, models: int = 2, latents: int = 6, d: int = 5) -> ToyCoder:
    g = torch.Generator().manual_seed(seed)
    return ToyCoder(torch.randn(models, d, latents, generator=g), torch.randn(models, latents, d, generator=g),
                    torch.randn(models, d, generator=g), 0.3)


class TinyLM(torch.nn.Module):
    """Embedding, two residual blocks, logits: enough of a language model to read and patch."""

    def __init__(self, seed: int = 0, vocabulary: int = 11, d: int = 5, tuples: bool = False) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(vocabulary, d)
        self.first, self.second = _Block(d, tuples), _Block(d, tuples)
        self.head = torch.nn.Linear(d, vocabulary)
        g = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=g))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in (self.first, self.second):
            x = block(x)
            x = x[0] if isinstance(x, tuple) else x
        return self.head(x)


class _Block(torch.nn.Module):
    def __init__(self, d: int, tuples: bool) -> None:
        super().__init__()
        self.mix, self.tuples, self.passes = torch.nn.Linear(d, d), tuples, 0

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, str]:
        self.passes += 1
        mean = x.cumsum(dim=1) / torch.arange(1, x.shape[1] + 1)[:, None]
        x = x + torch.tanh(self.mix(mean))
        return (x, "cache") if self.tuples else x
