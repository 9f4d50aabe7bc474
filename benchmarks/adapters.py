"""Updates of low rank beside those of the peft package, and a pruned transformer beside the whole one.

One training step of a BERT of MiniLM's size with rank 4 at query and value: forward and backward pass of 32 sentences
of 16 tokens. Ours with entries is beside peft without, which has none. Then a forward pass of eight sentences with and
without 3 of 12 heads and a quarter of the neurons.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import torch
from _paired import command, paired, time_row
from transformers import BertConfig, BertModel

from sparsepriors.language import DSEE

RANK, ALPHA = 4, 32


def encoder(quick: bool) -> BertModel:
    """Random weights, without dropout, the same ones every time."""
    torch.manual_seed(0)
    width, layers = (48, 2) if quick else (384, 6)
    return BertModel(BertConfig(vocab_size=1000, hidden_size=width, num_hidden_layers=layers, num_attention_heads=12,
                                intermediate_size=4 * width, hidden_dropout_prob=0.0,
                                attention_probs_dropout_prob=0.0), add_pooling_layer=False).train()


def adapted(quick: bool, entries: int) -> DSEE[BertModel]:
    """Ours."""
    return DSEE(encoder(quick), RANK, entries, ALPHA, support="random")


def peers(quick: bool) -> torch.nn.Module:
    """The same with peft."""
    import peft

    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        return peft.get_peft_model(encoder(quick), peft.LoraConfig(r=RANK, lora_alpha=ALPHA,
                                                                   target_modules=["query", "value"]))


def measure(quick: bool) -> list[dict[str, Any]]:
    ids = torch.randint(1, 1000, (32, 16), generator=torch.Generator().manual_seed(0))

    def step(model: torch.nn.Module) -> None:
        model.zero_grad()
        model(input_ids=ids).last_hidden_state.square().mean().backward()

    peer = peers(quick)
    rows = []
    for entries in (0, 16, 256):
        ours = adapted(quick, entries).model
        case = f"training step, rank {RANK}" + (f", {entries} entries" if entries else "")
        rows.append(time_row(case, "peft", paired(lambda ours=ours: step(ours), lambda: step(peer), pairs=15)))
    whole, cut = adapted(quick, 16), adapted(quick, 16)
    cut.prune_heads(3, score="W")
    cut.prune_neurons(0.25)
    with torch.inference_mode():
        found = paired(lambda: cut.model.eval()(input_ids=ids[:8]), lambda: whole.model.eval()(input_ids=ids[:8]),
                       pairs=31)
    return [*rows, time_row("forward pass, heads and neurons cut", "not cut", found)]


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print and write the rows."""
    return command("adapters", __doc__ or "", measure, ["--threads", "1", *(arguments or [])])


if __name__ == "__main__":
    main(sys.argv[1:])
