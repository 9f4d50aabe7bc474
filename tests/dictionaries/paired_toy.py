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
