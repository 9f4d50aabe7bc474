"""What fine-tuning changed, read off a crosscoder of two models: classes of latents, their scales, and twins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparsepriors import _checks
from sparsepriors.dictionaries.latent_scaling import LatentScaler, LatentScaling, PairedCoder, batches_of

NU_ERROR, NU_RECONSTRUCTION = 0.2, 0.5
"""Ratios below which a latent counts as specific to the fine-tuned model."""
_BASE_ONLY, _SHARED, _CHAT_ONLY = 0.1, (0.4, 0.6), 0.9
BUCKETS = (1e-6, 0.1, 0.4, 0.7)
"""Shares of a latent's largest code between which `twin_activity` counts."""


class LatentClass(IntEnum):
    """Where a latent writes, by the norms of its two decoders."""

    OTHER = 0
    BASE_ONLY = 1
    SHARED = 2
    CHAT_ONLY = 3


def delta_norm(decoder: Float[Tensor, "2 latents d"]) -> Float[Tensor, " latents"]:
    """Relative difference of decoder norms: 0 writes to the base alone, 1/2 to both, 1 to the fine-tuned model alone.

    ``1/2 ((|d_chat| - |d_base|) / max(|d_chat|, |d_base|) + 1)`` (Minder et al., 2025, eq. 4); NaN where both are zero.

    Raises
    ------
    ValueError
        If there are not two models.
    """
    _checks.inexact("decoder", decoder)
    if decoder.ndim != 3 or len(decoder) != 2:
        raise ValueError(f"decoder must have shape (2, latents, d), got {tuple(decoder.shape)}")
    base, chat = torch.linalg.vector_norm(decoder, dim=2)
    return 0.5 * ((chat - base) / torch.maximum(chat, base) + 1)


def classify(delta: Float[Tensor, " latents"]) -> Int[Tensor, " latents"]:
    """A `LatentClass` for each `delta_norm`: below 0.1, from 0.4 to 0.6, above 0.9, or other (also NaN)."""
    classes = torch.full(delta.shape, int(LatentClass.OTHER), device=delta.device)
    classes[delta < _BASE_ONLY] = LatentClass.BASE_ONLY
    classes[(delta >= _SHARED[0]) & (delta <= _SHARED[1])] = LatentClass.SHARED
    classes[delta > _CHAT_ONLY] = LatentClass.CHAT_ONLY
    return classes


@dataclass(frozen=True, eq=False)
class LatentReport:
    """What is known of every latent of a crosscoder of two models.

    Attributes
    ----------
    delta
        `delta_norm`.
    classes
        A `LatentClass` each, by ``delta`` alone.
    scaling
        Scales on the data of the report.
    frequency
        Share of the samples in which a latent is active; 0 is a dead latent, whose class means nothing.
    largest
        Largest code.
    """

    delta: Float[Tensor, " latents"]
    classes: Int[Tensor, " latents"]
    scaling: LatentScaling
    frequency: Float[Tensor, " latents"]
    largest: Float[Tensor, " latents"]

    @property
    def alive(self) -> Bool[Tensor, " latents"]:
        """Latents that were active at all."""
        return self.frequency > 0

    @property
    def nu_error(self) -> Float[Tensor, " latents"]:
        """How much of the concept the base model's error holds, relative to the fine-tuned model."""
        return self.scaling.nu("error")

    @property
    def nu_reconstruction(self) -> Float[Tensor, " latents"]:
        """How much of the concept the base model's reconstruction holds, relative to the fine-tuned model."""
        return self.scaling.nu("reconstruction")

    @property
    def nu(self) -> Float[Tensor, " latents"]:
        """The larger of the two: low only if neither artefact made the latent look specific."""
        return torch.maximum(self.nu_error, self.nu_reconstruction)

    def of_class(self, which: LatentClass) -> Int[Tensor, " some"]:
        """Indices of the latents of a class that are alive."""
        return ((self.classes == which) & self.alive).nonzero()[:, 0]

    def specific(self, nu_error: float = NU_ERROR,
                 nu_reconstruction: float = NU_RECONSTRUCTION) -> Int[Tensor, " some"]:
        """Chat-only latents whose concept the base model really lacks: both ratios below their thresholds."""
        _checks.nonnegative("nu_error", nu_error)
        _checks.nonnegative("nu_reconstruction", nu_reconstruction)
        chosen = self.of_class(LatentClass.CHAT_ONLY)
        low = (self.nu_error[chosen] < nu_error) & (self.nu_reconstruction[chosen] < nu_reconstruction)
        return chosen[low]

    def shrunk(self, nu_error: float = NU_ERROR) -> Int[Tensor, " some"]:
        """Chat-only latents by complete shrinkage: the base model's error still holds the concept."""
        chosen = self.of_class(LatentClass.CHAT_ONLY)
        return chosen[self.nu_error[chosen] >= nu_error]

    def decoupled(self, nu_reconstruction: float = NU_RECONSTRUCTION) -> Int[Tensor, " some"]:
        """Chat-only latents by latent decoupling: other latents write the concept into the base model."""
        chosen = self.of_class(LatentClass.CHAT_ONLY)
        return chosen[self.nu_reconstruction[chosen] >= nu_reconstruction]

    def counts(self) -> dict[str, int]:
        """How many latents are alive in each class, and how many of the chat-only ones are what."""
        return {**{c.name.lower(): len(self.of_class(c)) for c in LatentClass}, "dead": int((~self.alive).sum()),
                "specific": len(self.specific()), "shrunk": len(self.shrunk()), "decoupled": len(self.decoupled())}


def latent_report(crosscoder: PairedCoder, data: Tensor | Iterable[Tensor]) -> LatentReport:
    """Classes, scales, frequencies and largest codes of all latents, in one pass over paired activations.

    Parameters
    ----------
    crosscoder
        Of two models, the base first.
    data
        Activations ``(N, 2, d)``, or an iterable of such batches.

    Raises
    ------
    ValueError
        If the crosscoder is not of two models.
    """
    delta = delta_norm(crosscoder.decoder.detach())
    scaler = LatentScaler(crosscoder)
    activity = _Activity(len(delta), delta.device)
    for batch in batches_of(data):
        activity.add(scaler.update(batch))
    return LatentReport(delta, classify(delta), scaler.result(), activity.fired / activity.samples, activity.largest)


@dataclass(frozen=True, eq=False)
class Twins:
    """Pairs of a base-only and a chat-only latent that point the same way.

    Attributes
    ----------
    base, chat
        The latents of each pair; a latent is in one pair at most.
    cosine
        Of the base decoder of the one and the chat decoder of the other.
    """

    base: Int[Tensor, " pairs"]
    chat: Int[Tensor, " pairs"]
    cosine: Float[Tensor, " pairs"]


def find_twins(decoder: Float[Tensor, "2 latents d"], least: float = 0.9) -> Twins:
    """Pair base-only with chat-only latents by the cosine of their decoders, the nearest first.

    Parameters
    ----------
    decoder
        Of a crosscoder of two models.
    least
        Cosine that a pair must exceed.

    Raises
    ------
    ValueError
        If there are not two models, or ``least`` is not in [-1, 1].
    """
    if not -1 <= least <= 1:
        raise ValueError(f"least must lie in [-1, 1], got {least}")
    classes = classify(delta_norm(decoder))
    base, chat = ((classes == c).nonzero()[:, 0] for c in (LatentClass.BASE_ONLY, LatentClass.CHAT_ONLY))
    normalise = torch.nn.functional.normalize
    cosine = normalise(decoder[0, base], dim=1) @ normalise(decoder[1, chat], dim=1).mT
    pairs: list[tuple[int, int, float]] = []
    left = cosine.clone()
    while left.numel() and float(left.max()) > least:
        i, j = divmod(int(left.argmax()), left.shape[1])
        pairs.append((int(base[i]), int(chat[j]), float(cosine[i, j])))
        left[i], left[:, j] = -torch.inf, -torch.inf
    of_base, of_chat, cosines = zip(*pairs, strict=True) if pairs else ((), (), ())
    return Twins(torch.tensor(of_base, dtype=torch.int64), torch.tensor(of_chat, dtype=torch.int64),
                 torch.tensor(cosines))


def twin_activity(codes: Float[Tensor, "samples latents"], twins: Twins) -> Int[Tensor, "pairs base_level chat_level"]:
    """How often the two of each pair are active to which degree: both, or one without the other.

    A code's level is the number of `BUCKETS` that it exceeds relative to the pair's largest code; level 0 is silent.
    The first row and column hold what only one of the two saw.

    Raises
    ------
    TypeError, ValueError
        If the codes are not a finite matrix.
    """
    _checks.inexact("codes", codes)
    if codes.ndim != 2:
        raise ValueError(f"codes must have shape (samples, latents), got {tuple(codes.shape)}")
    edges = torch.tensor(BUCKETS, dtype=codes.dtype, device=codes.device)
    levels = len(BUCKETS) + 1
    counts = torch.zeros(len(twins.base), levels, levels, dtype=torch.int64)
    for pair, (base, chat) in enumerate(zip(twins.base.tolist(), twins.chat.tolist(), strict=True)):
        both = codes[:, [base, chat]]
        level = torch.bucketize(both / both.max().clamp(min=torch.finfo(codes.dtype).tiny), edges)
        counts[pair] = torch.bincount(level[:, 0] * levels + level[:, 1], minlength=levels**2).reshape(levels, levels)
    return counts


class _Activity:
    """How often latents fire, and how strongly at most."""

    def __init__(self, latents: int, device: torch.device) -> None:
        self.samples = 0
        self.fired = torch.zeros(latents, device=device)
        self.largest = torch.zeros(latents, device=device)

    def add(self, codes: Tensor) -> None:
        self.samples += len(codes)
        self.fired += (codes != 0).sum(dim=0)
        self.largest = torch.maximum(self.largest, codes.amax(dim=0))


def ranks_by_specificity(report: LatentReport, among: Sequence[int] | Tensor) -> Int[Tensor, " some"]:
    """These latents from the most to the least specific, by the sum of their ranks in the two ratios.

    Latents without a ratio come last.

    Raises
    ------
    ValueError
        If none is given.
    """
    chosen = torch.as_tensor(among)
    if chosen.numel() == 0:
        raise ValueError("among must name at least one latent, got none")
    ranks = torch.zeros(len(chosen), dtype=torch.int64, device=chosen.device)
    for nu in (report.nu_error, report.nu_reconstruction):
        values = nu[chosen].nan_to_num(torch.inf)
        ranks += (values[:, None] > values).sum(dim=1)   # equal values share a rank
    return chosen[ranks.argsort(stable=True)]
