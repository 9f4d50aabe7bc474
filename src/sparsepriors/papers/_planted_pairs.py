"""Crosscoders of simulated activations, judged by what was planted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsepriors.data.paired_features import Kind, PairedFeatures, paired_features
from sparsepriors.dictionaries import Crosscoder, batch_topk_crosscoder, find_twins, fit, l1_crosscoder, latent_report
from sparsepriors.dictionaries.metrics import fvu, l0
from sparsepriors.dictionaries.model_diff import LatentClass
from sparsepriors.networks.schedules import trapezoid

_BATCH, _RATE, _CLIP = 256, 2e-3, 1.0
_DEAD_WINDOW = 100   # batches

LEANING = 0.6
"""Relative norm difference above which a latent leans to the second model."""


@dataclass(frozen=True)
class PlantedSizes:
    """How much is simulated at a scale.

    Attributes
    ----------
    d, latents
        Width of the activations of each model, and latents.
    samples, held
        To learn from and to judge on.
    steps
        Of training.
    weights
        Of the L1 penalty; that of the error nearest to BatchTopK's is compared with it.
    """

    d: int
    latents: int
    samples: int
    held: int
    steps: int
    weights: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Planted:
    """The features of one seed and what was drawn of them."""

    features: PairedFeatures
    train: Tensor
    held: Tensor
    seed: int

    @classmethod
    def drawn(cls, sizes: PlantedSizes, seed: int) -> Planted:
        """All of it from the seed."""
        generator = torch.Generator().manual_seed(seed)
        features = paired_features(sizes.d, generator=generator)
        return cls(features, features.sample(sizes.samples, generator), features.sample(sizes.held, generator), seed)

    def learn_l1(self, sizes: PlantedSizes) -> list[Crosscoder]:
        """Crosscoders with an L1 penalty, one for each weight, on the same batches."""
        coders = [l1_crosscoder(sizes.d, sizes.latents, weight, generator=torch.Generator().manual_seed(self.seed))
                  for weight in sizes.weights]
        self._fit(coders, sizes, clip=None)
        return coders

    def learn_topk(self, sizes: PlantedSizes) -> Crosscoder:
        """A crosscoder that keeps as many codes as features fire, rounded up."""
        coder = batch_topk_crosscoder(sizes.d, sizes.latents, math.ceil(self.features.active),
                                      threshold_start=sizes.steps // 4, dead_after=_DEAD_WINDOW * _BATCH,
                                      momentum=0.99, generator=torch.Generator().manual_seed(self.seed))
        self._fit([coder], sizes, clip=_CLIP)
        return coder

    def _fit(self, coders: list[Crosscoder], sizes: PlantedSizes, clip: float | None) -> None:
        fit(coders, self.train, steps=sizes.steps, batch=_BATCH, lr=_RATE, clip=clip, seed=self.seed,
            schedule=trapezoid(sizes.steps, warmup=sizes.steps // 20, decay=sizes.steps // 5))

    @torch.no_grad()
    def judge(self, coder: Crosscoder) -> dict[str, Any]:
        """Errors, classes against the planted truth, and what Latent Scaling says of the chat-only latents."""
        codes = coder.encode(self.held)
        report = latent_report(coder, self.held)
        found = self.features.nearest(coder.decoder[1])
        kind = torch.where(found >= 0, self.features.kind[found.clamp(min=0)], -1)
        chosen = report.of_class(LatentClass.CHAT_ONLY)
        true = kind[chosen] == Kind.SECOND_ONLY
        own = (self.features.kind == Kind.SECOND_ONLY).sum()
        nu = report.nu[chosen]
        leaning = report.alive & (report.delta > LEANING)
        specific = report.specific()
        return {
            "fvu": fvu(self.held, coder.decode(codes)), "l0": l0(codes), **report.counts(),
            "twins": len(find_twins(coder.decoder).base),
            "false": int((~true).sum()), "false_share": float((~true).double().mean()) if len(chosen) else 0.0,
            "recall": len(found[chosen][true].unique()) / int(own),
            **{f"as_{k.name.lower()}": int((kind[chosen] == k).sum()) for k in Kind},
            "specific_true": int((kind[specific] == Kind.SECOND_ONLY).sum()),
            "nu_true": _median(nu[true]), "nu_false": _median(nu[~true]),
            "auc_nu": auc(-nu[true], -nu[~true]),
            "auc_delta": auc(report.delta[leaning & (kind == Kind.SECOND_ONLY)],
                             report.delta[leaning & (kind != Kind.SECOND_ONLY)]),
            "delta": report.delta[report.alive].tolist(), "chat_only_true": true.tolist(),
            "chat_only_nu": torch.stack([report.nu_error[chosen], report.nu_reconstruction[chosen]], dim=1).tolist()}


def auc(high: Tensor, low: Tensor) -> float:
    """How often a value of the first lies above one of the second, ties counting half; NaN where one is empty."""
    if not len(high) or not len(low):
        return math.nan
    above = (high[:, None] > low).double() + 0.5 * (high[:, None] == low).double()
    return float(above.mean())


def _median(values: Tensor) -> float:
    return float(values.median()) if len(values) else math.nan
