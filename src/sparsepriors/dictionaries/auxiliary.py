"""The auxiliary loss of dead latents: what they would add to the reconstruction of what is left over."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsepriors import _checks
from sparsepriors._described import Described
from sparsepriors.dictionaries.entries import Entries, choose


@dataclass(frozen=True)
class AuxK(Described):
    """Let latents that no longer fire reconstruct the residual, so that they have a gradient again.

    The k largest positive pre-activations of each sample among the chosen latents reconstruct the detached residual,
    without bias; the squared error, normalised, is added to the loss.

    Parameters
    ----------
    weight
        Of this loss.
    k
        Latents for each sample; half the length of a signal by default.
    dead_after
        Samples without firing, those of the batch among them, after which a latent is dead. By default `fit` takes a
        twenty-fifth of its samples, ten million at most, and that is the number elsewhere.
    pool
        ``"dead"`` latents only, as Gao et al. and dictionary_learning do, or all ``"unchosen"`` ones, as overcomplete.
    normalise
        Divide by the variance of the residual in the batch (dictionary_learning); SAELens does not.
    ramp
        Multiply by the number of dead latents over k where that is below 1 (SAELens).

    References
    ----------
    Gao et al. (2024), Scaling and evaluating sparse autoencoders, arXiv:2406.04093, appendix A.2.
    """

    weight: float = 1 / 32
    k: int | None = None
    dead_after: int | None = None
    pool: str = "dead"
    normalise: bool = True
    ramp: bool = False

    def __post_init__(self) -> None:
        _checks.positive("weight", self.weight)
        for name, value in (("k", self.k), ("dead_after", self.dead_after)):
            if value is not None:
                _checks.count(name, value, low=1)
        _checks.one_of("pool", self.pool, ("dead", "unchosen"))

    def room(self, features: int) -> int:
        """Latents that reconstruct the residual of one sample, at most."""
        return max(1, features // 2 if self.k is None else self.k)

    def choose(self, pre: Float[Tensor, "batch latents"], codes: Tensor | Entries, dead: Bool[Tensor, "latents"],
               features: int) -> Entries:
        """Which latents reconstruct the residual of each sample: the largest positive ones of the pool."""
        room = self.room(features)
        if self.pool == "unchosen":
            assert isinstance(codes, Tensor)
            return choose(torch.where(codes == 0, pre, 0), room, per_row=True)
        pool = dead.nonzero()[:, 0]
        found = choose(pre[:, pool], room, per_row=True)
        return Entries(found.starts, pool.to(torch.int32)[found.indices], found.values, pre.shape[1])

    def loss(self, residual: Float[Tensor, "batch features"], recon: Float[Tensor, "batch features"],
             dead: int) -> Tensor:
        """The error of this reconstruction of the residual, a scalar without the weight."""
        residual = residual.detach()
        error = (residual - recon).square().sum(dim=-1).mean()
        if self.normalise:
            error = (error / (residual - residual.mean(dim=0)).square().sum(dim=-1).mean()).nan_to_num(0.0)
        if self.ramp:
            error = error * min(dead / self.room(residual.shape[-1]), 1.0)
        return error
