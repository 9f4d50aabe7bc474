"""What an autoencoder returns for a batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparsepriors.dictionaries.entries import Entries


class SAEOutput:
    """What an autoencoder makes of a batch.

    Attributes
    ----------
    recon
        Reconstruction, the shape and scale of the input.
    pre_codes
        Pre-activations ``(..., latents)``; ``None`` where there is no encoder. They have no gradient where ``entries``
        are given.
    losses
        Scalars: ``reconstruction`` (the squared error, summed over a signal, mean over the batch, of the scaled
        signals), and where they apply ``sparsity`` and ``auxiliary``, with their weights.
    loss
        Their sum.
    entries
        The nonzeros of the codes, batch axes flattened, where the prior chose few of them; else ``None``.
    """

    def __init__(self, recon: Tensor, codes: Tensor | Entries, pre_codes: Tensor | None, losses: dict[str, Tensor],
                 batch: tuple[int, ...]) -> None:
        self.recon, self.pre_codes, self.losses = recon, pre_codes, losses
        self.loss = torch.stack(tuple(losses.values())).sum()
        self.entries = codes if isinstance(codes, Entries) else None
        self._codes = None if isinstance(codes, Entries) else codes
        self._batch = batch

    @property
    def codes(self) -> Tensor:
        """``(..., latents)``, with gradients."""
        if self._codes is None:
            assert self.entries is not None
            self._codes = self.entries.dense()
        return self._codes.reshape(*self._batch, self._codes.shape[-1])

    @property
    def l0(self) -> float:
        """Mean number of nonzeros of a sample."""
        count = int(self.codes.count_nonzero()) if self.entries is None else len(self.entries.indices)
        return count / max(1, math.prod(self._batch))
