"""Minder et al. (2025): crosscoders that say what fine-tuning added, and how an L1 penalty makes them say too much.

Measured on simulated pairs of activations, where the truth is planted, and on a small language model that is trained
on the spot and fine-tuned on dialogues in which every question about cards is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from torch import Tensor

from sparsepriors.papers._chat_diff import Diff, DiffSizes
from sparsepriors.papers._chat_pair import REAL, SMALL, PairSizes, pair
from sparsepriors.papers._crosscoder_figures import draw_chat, draw_planted
from sparsepriors.papers._planted_pairs import Planted, PlantedSizes
from sparsepriors.runs import Claim, Paper, Run, Scale

_CAUSAL = "best half closes much more of the gap than the worst half"

PAPER = Paper(
    slug="crosscoders",
    title="Overcoming Sparsity Artifacts in Crosscoders to Interpret Chat-Tuning",
    authors="Julian Minder, Clément Dumas, Caden Juang, Bilal Chughtai, Neel Nanda",
    year=2025,
    url="https://arxiv.org/abs/2504.02922",
    room="dictionaries",
    method=(
        "Run the same tokens through a model and its fine-tuned copy; code both activations with one sparse code.",
        "Each latent has a decoder for each model: where the base model's is zero, the concept looks new.",
        "An L1 penalty makes such latents of shared concepts: it shrinks weak decoders away and splits others.",
        "Latent Scaling fits each latent to what the base model's other latents leave and to what they reconstruct.",
        "BatchTopK, which ranks codes by the sum of decoder norms and penalises nothing, makes few false ones.",
    ),
    claims=(
        Claim("equal-error", "Planted: the L1 crosscoder compared has BatchTopK's error to 10 % (relative difference)",
              "a condition of the comparison", "0.1", better="lower"),
        Claim("l1-false", "Planted: at least 0.4 of the latents that the L1 crosscoder calls chat-only are not "
              "(share)", "most of 3,176 are artefacts", "0.4"),
        Claim("fewer-false", "Planted: BatchTopK's share of false ones is at most 0.3 of the L1 crosscoder's",
              "134 latents, most of them genuine", "0.3 of L1's share", better="lower"),
        Claim("recall", "Planted: BatchTopK finds at least 0.7 of the features that only the second model has",
              "not reported", "0.7"),
        Claim("recall-l1", "Planted: BatchTopK finds as many of them as the L1 crosscoder, 0.1 allowed",
              "not reported", "L1", margin=-0.1),
        Claim("scaling-tells", "Planted, L1: the median of the larger of both ratios is higher by 0.3 for false "
              "chat-only latents than for true ones", "ratios near the shared range and near 0", "true ones",
              margin=0.3),
        Claim("scaling-auc", "Planted, L1: that ratio ranks true before false chat-only latents (area under the curve)",
              "not reported", "0.9"),
        Claim("delta-selects", "Planted: the norm difference ranks true before other latents that lean to the second "
              "model better with BatchTopK than with L1 (area under the curve)", "a good selector for BatchTopK alone",
              "L1"),
        Claim("best-half", "Fine-tuned model: patching the more specific half of the leaning latents leaves less KL "
              "than the other half (nats)", _CAUSAL, "worst half", better="lower"),
        Claim("both-close", "Fine-tuned model: either half leaves less KL than the base model's activations (the worse "
              "of both, nats)", _CAUSAL, "nothing patched", better="lower"),
        Claim("beats-random", "Fine-tuned model: the more specific half leaves less KL than halves drawn at random "
              "(nats)", _CAUSAL, "mean of five random halves", better="lower"),
        Claim("template", "Fine-tuned model: template tokens hold a larger share of the specific latents' codes than "
              "of the tokens", "a large share", "share of tokens"),
        Claim("refusal", "Fine-tuned model: one of the specific latents tells refusals where the answer begins (area "
              "under the curve, other dialogues than it was chosen on)", "refusal latents are found", "0.9"),
    ),
)


@dataclass(frozen=True)
class Sizes:
    """How much is measured at a scale."""

    planted: PlantedSizes
    diff: DiffSizes


SIZES = {
    Scale.SMOKE: Sizes(
        PlantedSizes(48, 160, 4000, 2000, 120, (0.06, 0.1)),
        DiffSizes(PairSizes(SMALL, 16, 2, 256, 0, 32, 8, 6, 6, 3e-3, 1e-3), 40, 64, 4, 128, 60, 24, 8)),
    Scale.DEFAULT: Sizes(
        PlantedSizes(48, 256, 60_000, 20_000, 4000, (0.06, 0.075, 0.09, 0.11)),
        DiffSizes(PairSizes(SMALL, 64, 4, 2048, 1, 64, 16, 200, 300, 4e-3, 4e-3), 1500, 1024, 16, 256, 3000, 200, 8)),
    Scale.FULL: Sizes(
        PlantedSizes(48, 256, 60_000, 20_000, 16_000, (0.06, 0.075, 0.09, 0.11)),
        DiffSizes(PairSizes(REAL, 576, 30, 49_152, 14, 128, 8, 0, 80, 0.0, 2e-5), 1600, 4608, 32, 1024, 1600, 200, 50)),
}


def run(scale: Scale, seed: int, run: Run) -> None:
    """Both measurements; the seed draws features, weights, texts and batches."""
    sizes = SIZES[scale]
    with run.progress(3, "learning crosscoders") as bar:
        l1, topk = _planted(run, sizes.planted, bar.advance)
        models, diff, patched, refusal, template = _chat(run, sizes.diff)
        bar.advance()
    run.claim("equal-error", ours=abs(l1["fvu"] / topk["fvu"] - 1), baseline=0.1)
    run.claim("l1-false", ours=l1["false_share"], baseline=0.4)
    run.claim("fewer-false", ours=topk["false_share"], baseline=0.3 * l1["false_share"])
    run.claim("recall", ours=topk["recall"], baseline=0.7)
    run.claim("recall-l1", ours=topk["recall"], baseline=l1["recall"])
    run.claim("scaling-tells", ours=l1["nu_false"], baseline=l1["nu_true"])
    run.claim("scaling-auc", ours=l1["auc_nu"], baseline=0.9)
    run.claim("delta-selects", ours=topk["auc_delta"], baseline=l1["auc_delta"])
    left = {name: kl["all"] for name, kl in patched.items()}
    random = fmean(kl for name, kl in left.items() if name.startswith("random half"))
    run.claim("best-half", ours=left["best half"], baseline=left["worst half"])
    run.claim("both-close", ours=max(left["best half"], left["worst half"]), baseline=left["none"])
    run.claim("beats-random", ours=left["best half"], baseline=random)
    run.claim("template", ours=template["codes"], baseline=template["tokens"])
    run.claim("refusal", ours=refusal["auc"], baseline=0.9)
    draw_planted(run, l1, topk)
    draw_chat(run, diff, patched, models)


def _planted(run: Run, sizes: PlantedSizes, advance: Callable[[], object]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The L1 crosscoder whose error is nearest to BatchTopK's, and that one."""
    planted = Planted.drawn(sizes, run.seed)
    l1 = run.once("planted-l1", lambda: {"arms": [planted.judge(c) for c in planted.learn_l1(sizes)]})["arms"]
    advance()
    topk = run.once("planted-topk", lambda: planted.judge(planted.learn_topk(sizes)))
    advance()
    nearest = min(l1, key=lambda row: abs(row["fvu"] - topk["fvu"]))
    run.log(part="planted", crosscoder="BatchTopK", compared=True, **_scalars(topk))
    for weight, row in zip(sizes.weights, l1, strict=True):
        run.log(part="planted", crosscoder="L1", mu=weight, compared=row is nearest, **_scalars(row))
    return nearest, topk


def _chat(run: Run, sizes: DiffSizes) -> tuple[dict[str, Any], ...]:
    models, texts = pair(run, sizes.pair)
    diff = Diff(models, texts, sizes, run.seed)
    coder = diff.empty()
    weights = run.tensors("crosscoder", lambda: _weights(diff))
    coder.load_state_dict(weights)
    coder.eval()
    quality = run.once("models", diff.models)
    described = run.once("diff", lambda: diff.describe(coder))
    ranked, leaning = described["by_specificity"], described["leaning"]
    best = ranked[:len(ranked) // 2]
    patched = run.once("patched", lambda: diff.patch(coder, ranked, leaning))
    refusal = run.once("refusal", lambda: diff.refusal(coder, best))
    template = run.once("template", lambda: diff.template_share(coder, best))
    run.log(part="chat", crosscoder="BatchTopK", **_scalars(described), **quality, refusal_auc=refusal["auc"],
            refusal_latent=refusal["latent"], template_codes=template["codes"], template_tokens=template["tokens"])
    for name, kl in patched.items():
        run.log(part="patch", change=name, kl=kl["all"], kl_first=kl["first"], kl_rest=kl["rest"])
    return quality, described, patched, refusal, template


def _weights(diff: Diff) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in diff.learn().state_dict().items()}


def _scalars(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not isinstance(value, list)}
