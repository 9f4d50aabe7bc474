"""What an autoencoder is worth on signals that need not fit into memory at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.dictionaries.activations import ActivationShards
from sparsepriors.dictionaries.autoencoder import SparseAutoencoder


@dataclass(frozen=True)
class Evaluation:
    """Measures over all signals, summed in float64.

    Attributes
    ----------
    samples
        How many signals.
    fvu
        Fraction of variance unexplained, as `metrics.fvu` defines it.
    l0
        Mean number of nonzeros of a code.
    dead
        Share of latents that never fire.
    cosine
        Mean cosine between a signal and its reconstruction.
    """

    samples: int
    fvu: float
    l0: float
    dead: float
    cosine: float

    @property
    def r2(self) -> float:
        """Share of the variance explained."""
        return 1 - self.fvu


@torch.no_grad()
def evaluate(sae: SparseAutoencoder, signals: Tensor | ActivationShards, *, batch: int = 4096) -> Evaluation:
    """Encode and decode signals as at inference, and measure.

    Parameters
    ----------
    sae
        Any autoencoder, with a threshold if its prior needs one. It is left in evaluation mode.
    signals
        ``(N, ...)``, a tensor, mapped or not, or shards.
    batch
        Signals at a time.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As `SparseAutoencoder.encode`; if there are no signals, or all are equal.
    """
    _checks.count("batch", batch, low=1)
    sae.eval()
    count = len(signals)
    if not count:
        raise ValueError("signals must hold at least one row")
    total, squares = torch.zeros(sae.d_in, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    error, cosine, nonzeros = torch.zeros(3, dtype=torch.float64)
    fired = torch.zeros(sae.n_latents, dtype=torch.bool)
    for first in range(0, count, batch):
        x = signals[first:first + batch].to(sae.W_dec.device, sae.W_dec.dtype)
        out = sae(x)
        rows, recon = (v.reshape(len(x), -1).double().cpu() for v in (x, out.recon))
        total += rows.sum(dim=0)
        squares += rows.square().sum()
        error += (rows - recon).square().sum()
        cosine += torch.nn.functional.cosine_similarity(rows, recon, dim=1).sum()
        nonzeros += out.l0 * len(x)
        fired |= (out.codes.reshape(len(x), -1) != 0).any(dim=0).cpu()
    spread = float(squares - total.square().sum() / count)
    if not spread > 0:
        raise ValueError("signals must not all be equal")
    return Evaluation(count, float(error) / spread, float(nonzeros) / count, 1 - float(fired.double().mean()),
                      float(cosine) / count)
