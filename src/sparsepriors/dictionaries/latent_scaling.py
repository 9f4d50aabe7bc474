"""Latent Scaling: how much of a latent's concept each model of a crosscoder holds, whatever its decoders say.

Minder, Dumas, Juang, Chughtai, Nanda (2025), Overcoming sparsity artifacts in crosscoders to interpret chat-tuning
(arXiv 2504.02922). A decoder of norm zero does not show that a model lacks a concept: a sparsity penalty shrinks weak
decoders away (complete shrinkage; the concept is left in the error) and writes a shared concept as two latents of one
model each (latent decoupling; the concept is in the rest of the reconstruction). Least squares on the latent's own
codes finds both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparsepriors import _checks

TARGETS = ("error", "reconstruction", "activation", "centred")
"""What a latent is fitted to.

``error``: what the other latents and the bias leave of a model's activations. ``reconstruction``: the whole
reconstruction. ``activation``: the activations. ``centred``: those without the decoder bias.
"""

_LEAST = 1e-3   # a latent that is fitted to less than this share of itself in its own model has no ratio


class PairedCoder(Protocol):
    """What is asked of a crosscoder: one code for the activations of all models."""

    @property
    def decoder(self) -> Float[Tensor, "models latents d"]:
        """What each latent adds to each model's activations, for a code of one."""
        ...

    @property
    def decoder_bias(self) -> Float[Tensor, "models d"]:
        """What is added whatever the code."""
        ...

    def encode(self, x: Float[Tensor, "batch models d"]) -> Float[Tensor, "batch latents"]:
        """Codes as at inference: a sample's code does not depend on its batch."""
        ...

    def decode(self, codes: Float[Tensor, "batch latents"]) -> Float[Tensor, "batch models d"]:
        """Reconstructions."""
        ...


@dataclass(frozen=True, eq=False)
class LatentScaling:
    """Scales of latents in every model.

    Attributes
    ----------
    latents
        Which latents.
    source
        The model whose decoder gives the direction.
    beta
        By target: the factor of ``codes * decoder[source]`` that fits the target best in least squares. NaN for a
        latent that was never active or has no direction in the source model.
    count
        Samples in which each latent was active.
    """

    latents: Int[Tensor, " chosen"]
    source: int
    beta: dict[str, Float[Tensor, "models chosen"]]
    count: Int[Tensor, " chosen"]

    @property
    def active(self) -> Bool[Tensor, " chosen"]:
        """Whether a latent was ever active, that is, whether anything is known of it."""
        return self.count > 0

    def nu(self, target: str, model: int = 0) -> Float[Tensor, " chosen"]:
        """``beta[model] / beta[source]``: near 0 if the concept is the source model's own, near 1 if both have it.

        NaN where the latent was never active, or where ``beta[source]`` is below a thousandth.

        Raises
        ------
        ValueError
            If the target was not measured, or there is no such model.
        """
        _checks.one_of("target", target, self.beta)
        beta = self.beta[target]
        _checks.count("model", model, high=len(beta) - 1)
        own = beta[self.source]
        return torch.where(own > _LEAST, beta[model] / own, torch.nan)


class LatentScaler:
    """Sums for `latent_scaling`, batch by batch; what is kept is a few numbers for each latent.

    Parameters
    ----------
    crosscoder
        See `PairedCoder`.
    latents
        Which latents, all by default.
    targets
        Of `TARGETS`.
    source
        The model whose decoder gives the direction; 1 is the fine-tuned model of a pair.

    Raises
    ------
    ValueError
        If no latent or no target is given, or one does not exist.
    """

    def __init__(self, crosscoder: PairedCoder, latents: Sequence[int] | Tensor | None = None,
                 targets: Sequence[str] = ("error", "reconstruction"), source: int = 1) -> None:
        decoder = crosscoder.decoder.detach()
        if not len(targets):
            raise ValueError(f"targets must name at least one of {', '.join(TARGETS)}")
        for target in targets:
            _checks.one_of("targets", target, TARGETS)
        _checks.count("source", source, high=len(decoder) - 1)
        self.latents = chosen_latents(latents, decoder.shape[1]).to(decoder.device)
        self.crosscoder, self.targets, self.source = crosscoder, tuple(targets), source
        self._of_all = decoder[:, self.latents].double()
        self._direction = decoder[source, self.latents]
        shape = (len(self.targets), len(decoder), len(self.latents))
        self._inner = torch.zeros(shape, dtype=torch.float64, device=decoder.device)
        self._energy = torch.zeros(len(self.latents), dtype=torch.float64, device=decoder.device)
        self._count = torch.zeros(len(self.latents), dtype=torch.int64, device=decoder.device)
        self._seen = 0

    @torch.no_grad()
    def update(self, x: Float[Tensor, "batch models d"]) -> Float[Tensor, "batch latents"]:
        """Add a batch of activations; the codes of all latents come back.

        Raises
        ------
        TypeError, ValueError
            If they are not finite or not as wide as the crosscoder.
        """
        codes = self.crosscoder.encode(x)
        self._seen += len(x)
        own = codes[:, self.latents]
        self._count += (own != 0).sum(dim=0)
        self._energy += own.square().sum(dim=0, dtype=torch.float64)
        rebuilt = self.crosscoder.decode(codes) if {"error", "reconstruction"} & set(self.targets) else x
        values = {"error": lambda: x - rebuilt, "reconstruction": lambda: rebuilt, "activation": lambda: x,
                  "centred": lambda: x - self.crosscoder.decoder_bias}
        for sums, target in zip(self._inner, self.targets, strict=True):
            along = values[target]() @ self._direction.mT
            sums += (own[:, None] * along).sum(dim=0, dtype=torch.float64)
        return codes

    def result(self) -> LatentScaling:
        """The scales, from what was added so far.

        Raises
        ------
        RuntimeError
            If no batch was added.
        """
        if not self._seen:
            raise RuntimeError("no activations were added; call update first")
        squared = self._direction.double().square().sum(dim=1)
        beta: dict[str, Tensor] = {}
        for sums, target in zip(self._inner, self.targets, strict=True):
            scale = sums / (self._energy * squared)
            if target == "error":
                # The sums are of x - reconstruction; the latent's own part comes back in closed form.
                scale = scale + (self._of_all * self._direction.double()).sum(dim=2) / squared
            beta[target] = torch.where((self._count > 0) & (squared > 0), scale, torch.nan)
        return LatentScaling(self.latents.clone(), self.source, beta, self._count.clone())


def latent_scaling(crosscoder: PairedCoder, data: Tensor | Iterable[Tensor],
                   latents: Sequence[int] | Tensor | None = None,
                   targets: Sequence[str] = ("error", "reconstruction"), *, source: int = 1) -> LatentScaling:
    """Fit each latent, with the direction it has in one model, to the activations of every model.

    ``beta = sum_i f_i <y_i, d> / (|d|^2 sum_i f_i^2)`` for the latent's codes f and its direction d in model ``source``
    minimises ``sum_i |y_i - beta f_i d|^2``; `TARGETS` lists the y. For the error, the latent's own contribution to
    *that* model is put back first, so that a decoder that was shrunk away does not hide the concept.

    Parameters
    ----------
    crosscoder
        See `PairedCoder`.
    data
        Activations ``(N, models, d)``, or an iterable of such batches.
    latents
        Which latents, all by default.
    targets
        Of `TARGETS`.
    source
        The model whose decoder gives the direction; 1 is the fine-tuned model of a pair.

    Returns
    -------
    LatentScaling
        With ``nu("error")`` and ``nu("reconstruction")``, the ratios of the base to the source model.

    Raises
    ------
    ValueError
        If there is no data, or a latent, target or model does not exist.
    """
    scaler = LatentScaler(crosscoder, latents, targets, source)
    for batch in batches_of(data):
        scaler.update(batch)
    return scaler.result()


def batches_of(data: Tensor | Iterable[Tensor], size: int = 4096) -> Iterable[Tensor]:
    """A tensor cut into batches, or the batches that were given."""
    return data.split(size) if isinstance(data, Tensor) else data


def chosen_latents(latents: Sequence[int] | Tensor | None, count: int) -> Int[Tensor, " chosen"]:
    """Indices of latents as a tensor; ``None`` is all of them.

    Raises
    ------
    TypeError
        If they are not integers.
    ValueError
        If the list is empty, or an index is out of range or given twice.
    """
    if latents is None:
        return torch.arange(count)
    chosen = torch.as_tensor(latents)
    if chosen.numel() == 0:
        raise ValueError("latents must name at least one latent, got an empty list")
    if chosen.dtype not in (torch.int64, torch.int32) or chosen.ndim != 1:
        raise TypeError(f"latents must be a list of indices, got {chosen.dtype} of shape {tuple(chosen.shape)}")
    low, high = (int(v) for v in torch.aminmax(chosen))
    if low < 0 or high >= count:
        raise ValueError(f"latents must lie in 0 to {count - 1}, got {low} to {high}")
    if len(chosen.unique()) != len(chosen):
        raise ValueError("latents must be different, got one of them twice")
    return chosen.long()
