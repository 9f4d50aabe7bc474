"""Jaiswal et al. (2023): how many of the smallest weights of a trained transformer can go, once and without data.

A small language model is pruned and reads on; a sentence encoder is pruned and fine-tuned to two tasks; the masks are
compared with those of lottery tickets. The first seed also trains models from the beginning, to see when weights become
nearly zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from sparsepriors.papers._essential_encoder import Classified, EncoderSizes, classify
from sparsepriors.papers._essential_figures import draw_classifiers, draw_emergence, draw_reader
from sparsepriors.papers._essential_reader import ReaderSizes, read
from sparsepriors.papers._essential_training import TrainingSizes, emerge
from sparsepriors.runs import Claim, Paper, Run, Scale

_NATS = "log-perplexity, nats per token"
_SHARE = "share of test sentences"
_NOT = "not reported for this model"

PAPER = Paper(
    slug="essential-sparsity",
    title="The Emergence of Essential Sparsity in Large Pre-trained Models: The Weights that Matter",
    authors="Ajay Jaiswal, Shiwei Liu, Tianlong Chen, Zhangyang Wang",
    year=2023,
    url="https://arxiv.org/abs/2306.03805",
    room="language",
    method=(
        "Rank all weights of the blocks of a trained transformer by modulus; embeddings and head are left alone.",
        "Set the smallest share to zero, once: no data, no search, one mask for every task.",
        "Measure at once (a language model), or fine-tune what is left with the mask fixed (an encoder).",
        "The essential sparsity is where the score first falls by more than a little; beyond it the fall is steep.",
        "Compare with random weights, other patterns, pruners that look at text, and lottery tickets.",
    ),
    claims=(
        Claim("free-20", f"A fifth of a decoder's weights costs at most a tenth of its perplexity ({_NATS})",
              "30-50 % of the weights of most models go at no significant loss", "dense, ln 1.1 allowed",
              margin=-math.log(1.1), better="lower"),
        Claim("cliff-50", f"Half of them multiplies it by eight or more ({_NATS})",
              "beyond the essential sparsity scores fall much faster", "ln 8"),
        Claim("knee", f"From 10 to 60 % every tenth costs more than the one before (smallest growth, {_NATS})",
              "a sharp dropping point", "0"),
        Claim("magnitude-over-random", f"The smallest fifth costs less than a random twentieth ({_NATS})",
              "random pruning is much worse (figure)", "5 % at random", better="lower"),
        Claim("wanda-over-magnitude", f"At half the weights, ranking by weight and input divides perplexity by three "
              f"or more ({_NATS})", "SparseGPT goes further than magnitude on Vicuna-7B (figure)", "magnitude",
              margin=math.log(3), better="lower"),
        Claim("nm-7-8", f"One of every eight weights costs at most 15 % of perplexity ({_NATS})",
              "N:M masks are free, too (figure)", "dense, ln 1.15 allowed", margin=-math.log(1.15), better="lower"),
        Claim("free-over-4-8", f"At half the weights of each layer, free positions read better than 4:8 ({_NATS})",
              _NOT, "4:8", better="lower"),
        Claim("4-8-over-2-4", f"4:8 reads better than 2:4 ({_NATS})", _NOT, "2:4", better="lower"),
        Claim("feed-forward", "Most of the smallest 21.5 % of an encoder's weights are in feed-forward layers (share)",
              "the majority (figure, bert-base)", "one half"),
        Claim("domain-20", f"Ten domains, fine-tuned: a fifth of the weights costs at most a point ({_SHARE})",
              "21.5 % of bert-base at no loss on any task", "dense, 0.01 allowed", margin=-0.01),
        Claim("intent-20", f"150 intents, fine-tuned: a fifth of the weights costs at most a point ({_SHARE})",
              "21.5 % of bert-base at no loss on any task", "dense, 0.01 allowed", margin=-0.01),
        Claim("task-matters", f"60 % costs the 150 intents more than the ten domains ({_SHARE} lost)",
              "RTE breaks bert-base at 60 %, easier tasks later", "lost by the domains"),
        Claim("ten-points-over-random", f"Ten domains: 40 % by magnitude serve as well as 30 % at random ({_SHARE})",
              "random pruning is much worse (figure)", "30 % at random"),
        Claim("hard-90", f"150 intents: 90 % of the weights cost five points or more ({_SHARE} lost)",
              "all tasks break before 90 % (figure)", "0.05"),
        Claim("same-as-tickets", "Up to 40 % the mask is that of a lottery ticket (smallest cosine of four rounds)",
              "above 0.96 (text), 0.98 (introduction)", "0.96"),
        Claim("as-good-as-tickets", f"At 40 % it serves as well as the ticket, two points allowed ({_SHARE})",
              "no difference below 50 %", "the ticket, 0.02 allowed", margin=-0.02),
    ),
)


@dataclass(frozen=True)
class Sizes:
    """How much is measured at a scale; ``training`` is for the first seed."""

    reader: ReaderSizes
    encoder: EncoderSizes
    training: TrainingSizes


_TRAINING = TrainingSizes(8000, 64, 32, 25, 1500, 20, 5000, 8)
SIZES = {
    Scale.SMOKE: Sizes(ReaderSizes(48, 1, 2, 2, 32), EncoderSizes((4, 3), (1, 1), (4, 2), 20, 8),
                       TrainingSizes(300, 12, 2, 4, 12, 1, 64, 2)),
    Scale.DEFAULT: Sizes(ReaderSizes(512, 1, 6, 4, 256), EncoderSizes((24, 3), (2, 1), (200, 13), 24, 32), _TRAINING),
    Scale.FULL: Sizes(ReaderSizes(512, 8, 8, 16, 512), EncoderSizes((300, 20), (3, 3), (150, 10), 48, 32),
                      _TRAINING),
}


def run(scale: Scale, seed: int, run: Run) -> None:
    """Each seed reads text of its own and deals sentences of its own into training and test."""
    sizes = SIZES[scale]
    with run.progress(20, "pruning, reading and fine-tuning") as bar:
        nats = read(run, sizes.reader, bar.advance)
        found = classify(run, sizes.encoder, bar.advance)
        if seed == PAPER.seeds[0]:
            draw_emergence(run, emerge(run, sizes.training))
    _claims(run, nats, found)
    draw_reader(run, nats)
    draw_classifiers(run, found)


def _claims(run: Run, nats: dict[tuple[str, float], float], found: Classified) -> None:
    dense = nats["dense", 0.0]
    steps = [nats["magnitude", s / 10] for s in range(1, 7)]
    costs = [b - a for a, b in pairwise(steps)]
    run.claim("free-20", ours=nats["magnitude, all windows", 0.2], baseline=nats["dense, all windows", 0.0])
    run.claim("cliff-50", ours=nats["magnitude", 0.5] - dense, baseline=math.log(8))
    run.claim("knee", ours=min(b - a for a, b in pairwise(costs)), baseline=0.0)
    run.claim("magnitude-over-random", ours=nats["magnitude", 0.2], baseline=nats["random", 0.05])
    run.claim("wanda-over-magnitude", ours=nats["Wanda", 0.5], baseline=nats["magnitude", 0.5])
    run.claim("nm-7-8", ours=nats["N of 8", 0.125], baseline=dense)
    run.claim("free-over-4-8", ours=nats["magnitude in each layer", 0.5], baseline=nats["N of 8", 0.5])
    run.claim("4-8-over-2-4", ours=nats["N of 8", 0.5], baseline=nats["N of 4", 0.5])
    run.claim("feed-forward", ours=found.feed_forward, baseline=0.5)
    right = found.accuracy
    for task in ("domain", "intent"):
        run.claim(f"{task}-20", ours=right[task, "magnitude", 0.2], baseline=right[task, "dense", 0.0])
    lost = {task: right[task, "dense", 0.0] - right[task, "magnitude", 0.6] for task in ("domain", "intent")}
    run.claim("task-matters", ours=lost["intent"], baseline=lost["domain"])
    run.claim("ten-points-over-random", ours=right["domain", "magnitude", 0.4], baseline=right["domain", "random", 0.3])
    run.claim("hard-90", ours=right["intent", "dense", 0.0] - right["intent", "magnitude", 0.9], baseline=0.05)
    run.claim("same-as-tickets", ours=min(found.cosines.values()), baseline=0.96)
    run.claim("as-good-as-tickets", ours=right["domain", "magnitude", 0.4], baseline=right["domain", "ticket", 0.4])
