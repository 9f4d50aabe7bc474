"""Reward in other ways: with a KL term, without clipping, with several steps a draw, and in bfloat16 throughout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sparsepriors.language.finetune import GRPO, Method
from sparsepriors.papers._rl_arms import Bench, agreement
from sparsepriors.runs import Run

KL = "KL"
UNCLIPPED = "gradients not clipped"
BFLOAT16 = "bfloat16 throughout"

_BETA = 0.04   # as in the paper of GRPO (arXiv:2402.03300); the paper on updates does not say
_STEPS = 4     # with one step a draw the ratio is 1, and clipping it does nothing


@dataclass(frozen=True)
class Variant:
    """A training, and the one that it differs from in one thing.

    Attributes
    ----------
    method
        What is minimised.
    clip
        Largest norm of the gradients.
    dtype
        Of the weights while they are trained.
    beside
        Name of another variant, or of one of `METHODS`.
    """

    method: Method
    clip: float | None = 1.0
    dtype: torch.dtype = torch.float32
    beside: str = "grpo"


def variants(bench: Bench, own: Mapping[str, Tensor]) -> dict[str, Variant]:
    """Trainings by name."""
    reward = bench.method("grpo", 0, own)
    assert isinstance(reward, GRPO)
    pulled, repeated = replace(reward, beta=_BETA), replace(reward, epochs=_STEPS)
    return {
        KL: Variant(pulled),
        UNCLIPPED: Variant(reward, clip=None),
        f"{KL}, {UNCLIPPED}": Variant(pulled, clip=None, beside=KL),
        f"{_STEPS} steps a draw": Variant(repeated),
        f"{_STEPS} steps a draw, ratios not clipped": Variant(replace(repeated, clip=None),
                                                              beside=f"{_STEPS} steps a draw"),
        BFLOAT16: Variant(reward, dtype=torch.bfloat16),
        f"imitated additions, {BFLOAT16}": Variant(bench.method("sft-in", 0, own), dtype=torch.bfloat16,
                                                   beside="sft-in"),
    }


def measure_variants(run: Run, bench: Bench, start: Mapping[str, Tensor], own: Mapping[str, Tensor],
                     trained: Mapping[str, Mapping[str, Tensor]], rate: float) -> dict[str, dict[str, Any]]:
    """What each variant changed, and how many entries it left as the training beside it did.

    ``trained`` holds the methods by name.
    """
    known, found, all_of_them = dict(trained), {}, variants(bench, own)
    with run.progress(len(all_of_them), "variants") as bar:
        for name, variant in all_of_them.items():
            key = f"variant-{name}".replace(", ", "-").replace(" ", "-").lower()
            known[name] = run.tensors(key, partial(bench.train, start, variant.method, rate, clip=variant.clip,
                                                   dtype=variant.dtype))
            found[name] = run.once(f"measured-{key}", lambda name=name, variant=variant: {
                **bench.measure(start, known[name], rate),
                "agreement": agreement(known[name], known[variant.beside])})
            bar.advance()
    return found
