"""What a crosscoder says that fine-tuning added to a language model, and whether patching it closes the gap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sparsepriors.dictionaries import (
    Conversations,
    Crosscoder,
    LatentReport,
    PairedActivations,
    batch_topk_crosscoder,
    causal_kl,
    fit,
    latent_report,
)
from sparsepriors.dictionaries.interventions import CONTROLS, some_latents
from sparsepriors.dictionaries.metrics import fvu, l0
from sparsepriors.dictionaries.model_diff import ranks_by_specificity
from sparsepriors.networks.schedules import trapezoid
from sparsepriors.papers._chat_pair import Pair, PairSizes, Texts, cross_entropy, cut
from sparsepriors.papers._planted_pairs import LEANING, auc

_RATE = 1e-3
_RANDOM_HALVES = 5
_LOOKED = 5              # every so many tokens of those learned from are looked at for the report
_LEAST_FREQUENT = 2e-4   # share of tokens in which a latent must fire to be ranked


@dataclass(frozen=True)
class DiffSizes:
    """How much is read and learned at a scale.

    Attributes
    ----------
    pair
        Of the models.
    windows
        Windows of running text, and as many of dialogues, whose activations are learned from.
    latents, k
        Of the crosscoder.
    batch, steps
        Of its training.
    chats
        Held-out dialogues that predictions are compared on.
    fewest
        Latents that are ranked and patched where fewer lean to the fine-tuned model: the most leaning.
    """

    pair: PairSizes
    windows: int
    latents: int
    k: int
    batch: int
    steps: int
    chats: int
    fewest: int


@dataclass(frozen=True, eq=False)
class Diff:
    """One pair of models, read at one layer."""

    pair: Pair
    texts: Texts
    sizes: DiffSizes
    seed: int

    @cached_property
    def activations(self) -> Tensor:
        """Running text and dialogues in equal parts, without the first token of each window."""
        length = self.sizes.pair.length
        tokens = torch.cat([cut(s, length, self.sizes.windows) for s in (self.texts.plain, self.texts.spoken)])
        return self._read(tokens, (torch.arange(length) > 0).expand_as(tokens)).collect()

    @cached_property
    def conversations(self) -> Conversations:
        """Held-out dialogues."""
        found = self.texts.chats(self.sizes.pair.length, self.sizes.chats)
        return Conversations(found.tokens, found.answer, found.template)

    @property
    def device(self) -> torch.device:
        """Of both models."""
        return next(self.pair.base.parameters()).device

    def learn(self) -> Crosscoder:
        """A BatchTopK crosscoder of this pair."""
        sizes = self.sizes
        coder = self.empty()
        fit(coder, self.activations, steps=sizes.steps, batch=sizes.batch, lr=_RATE, input_scale="mean norm",
            schedule=trapezoid(sizes.steps, warmup=sizes.steps // 20, decay=sizes.steps // 5), seed=self.seed)
        return coder.finalize()

    def empty(self) -> Crosscoder:
        """The crosscoder before it has learned."""
        width = self.pair.base.get_submodule(self.pair.layer).get_submodule("mlp.down_proj").get_parameter("weight")
        coder = batch_topk_crosscoder(len(width), self.sizes.latents, self.sizes.k,
                                      threshold_start=self.sizes.steps // 4, momentum=0.99,
                                      generator=torch.Generator().manual_seed(self.seed))
        return coder.to(self.device)

    def models(self) -> dict[str, Any]:
        """How well both models predict running text and answers."""
        found = self.texts.chats(self.sizes.pair.length, self.sizes.chats)
        plain = cut(self.texts.held_plain, self.sizes.pair.length, self.sizes.chats)
        return {f"{name}_{what}": cross_entropy(model, tokens.to(self.device), wanted)
                for name, model in (("base", self.pair.base), ("chat", self.pair.chat))
                for what, tokens, wanted in (("plain", plain, None), ("answers", found.tokens, found.answer))}

    @torch.no_grad()
    def describe(self, coder: Crosscoder) -> dict[str, Any]:
        """Errors and classes, and the latents that lean most to the fine-tuned model with their scales."""
        some = self.activations[::_LOOKED]
        report = latent_report(coder, some)
        leaning = self._leaning(report)
        return {"fvu": fvu(some, coder.decode(coder.encode(some))), "l0": l0(coder.encode(some)), **report.counts(),
                "delta": report.delta[report.alive].tolist(), "leaning": leaning.tolist(),
                "by_specificity": ranks_by_specificity(report, leaning).tolist(),
                "leaning_delta": report.delta[leaning].tolist(),
                "leaning_nu": torch.stack([report.nu_error, report.nu_reconstruction], dim=1)[leaning].tolist(),
                "leaning_frequency": report.frequency[leaning].tolist()}

    def patch(self, coder: Crosscoder, ranked: list[int], by_delta: list[int]) -> dict[str, Any]:
        """KL(chat || changed) for every choice of latents, and the controls.

        Parameters
        ----------
        coder
            The crosscoder.
        ranked
            Latents from the most to the least specific by Latent Scaling.
        by_delta
            The same from the largest to the smallest norm difference.
        """
        half = len(ranked) // 2
        choices: dict[str, Callable[..., Tensor]] = {
            **CONTROLS, "leaning": some_latents(ranked), "best half": some_latents(ranked[:half]),
            "worst half": some_latents(ranked[half:]), "best by delta": some_latents(by_delta[:half]),
            "worst by delta": some_latents(by_delta[half:]),
            "best half, template": some_latents(ranked[:half], on_template_only=True)}
        generator = torch.Generator().manual_seed(self.seed)
        for i in range(_RANDOM_HALVES):
            drawn = torch.randperm(len(ranked), generator=generator)[:half]
            choices[f"random half {i}"] = some_latents([ranked[j] for j in drawn.tolist()])
        found = causal_kl(self.pair.base, self.pair.chat, coder, self.conversations, choices, layer=self.pair.layer)
        return {name: {"all": kl.all, "first": kl.first, "rest": kl.rest} for name, kl in found.items()}

    @torch.no_grad()
    def refusal(self, coder: Crosscoder, latents: list[int]) -> dict[str, Any]:
        """How well one of these latents tells a refusal where the answer begins, before a word of it is said.

        The latent is chosen on every second held-out dialogue and judged on the others.
        """
        found = self.texts.chats(self.sizes.pair.length, 10**6)
        keep = torch.zeros_like(found.template)
        keep[torch.arange(len(keep)), found.asked] = True
        codes = coder.encode(self._read(found.tokens, keep).collect())[:, latents]
        first, second = ([auc(c[r, j], c[~r, j]) for j in range(len(latents))]
                         for c, r in ((codes[::2], found.refused[::2]), (codes[1::2], found.refused[1::2])))
        best = max(range(len(latents)), key=first.__getitem__)
        return {"latent": latents[best], "chosen_auc": first[best], "auc": second[best]}

    @torch.no_grad()
    def template_share(self, coder: Crosscoder, latents: list[int]) -> dict[str, Any]:
        """Of these latents' codes in held-out dialogues, what falls on template tokens, and the tokens' own share."""
        found = self.texts.chats(self.sizes.pair.length, self.sizes.chats)
        spoken = torch.zeros_like(found.template)
        spoken[:, 1:] = (found.answer.flip(1).cumsum(1).flip(1) > 0)[:, 1:]   # padding follows the last answer token
        codes = coder.encode(self._read(found.tokens, spoken).collect())[:, latents]
        on = found.template[spoken].to(codes.device)
        return {"codes": float(codes[on].sum() / codes.sum()), "tokens": float(on.double().mean())}

    def _leaning(self, report: LatentReport) -> Tensor:
        """Latents that are ranked and patched, the most leaning first."""
        delta = torch.where(report.frequency >= _LEAST_FREQUENT, report.delta, -1)
        count = max(self.sizes.fewest, int((delta > LEANING).sum()))
        return delta.argsort(descending=True, stable=True)[:count]

    def _read(self, tokens: Tensor, keep: Tensor) -> PairedActivations:
        return PairedActivations(self.pair.base, self.pair.chat, tokens.to(self.device), self.pair.layer,
                                 keep.to(self.device))
