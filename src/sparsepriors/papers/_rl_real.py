"""The part of the experiment on real checkpoints: the floor of rounding on SmolLM2, and a pair from a user's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sparsepriors.data import load_smollm2, token_windows, wikitext2
from sparsepriors.language.analysis.rounding import predicted_floor
from sparsepriors.language.analysis.updates import update_report
from sparsepriors.language.finetune import SFT, Answers, finetune, snapshot
from sparsepriors.runs import Run

RATES = (5e-7, 2e-5)
"""Learning rates of reinforcement learning and of imitation, as they are practised on large models."""


@dataclass(frozen=True)
class RealSizes:
    """Steps on SmolLM2, windows of text a step, and their tokens."""

    steps: int
    batch: int
    length: int


def measure_checkpoints(run: Run, folder: Path) -> None:
    """Rows on the checkpoints ``before`` and ``after`` in a folder.

    Raises
    ------
    FileNotFoundError
        If one of them is not there.
    """
    for row in run.once("checkpoints", lambda: {"rows": _compared(folder / "before", folder / "after")})["rows"]:
        run.log(part="checkpoints", **row)


def measure_smollm2(run: Run, sizes: RealSizes) -> None:
    """Rows on SmolLM2 trained on text for a few steps at both rates: what changed, beside what had to stay."""
    for rate in RATES:
        run.log(part="smollm2", rate=rate, steps=sizes.steps, **run.once(
            f"smollm2-{rate:g}", lambda rate=rate: _smollm2(sizes, rate, run.seed)))


def _compared(before: Path, after: Path) -> list[dict[str, Any]]:
    report = update_report(before, after, "bfloat16", skip_mismatch=True)
    rows = [{"tensor": "all", "bf16": report.exact_sparsity, "within_1e_5": report.sparsity,
             "bf16_inner": report.without().exact_sparsity}]
    return rows + [{"tensor": name, "bf16": share} for name, share in report.by_matrix.items()]


def _smollm2(sizes: RealSizes, rate: float, seed: int) -> dict[str, float]:
    model, tokenizer = load_smollm2(torch.float32)
    start = snapshot(model)
    model.load_state_dict(start, strict=False)   # the tied head goes with the embedding
    tokens = token_windows(tokenizer, wikitext2("valid"), sizes.length, sizes.steps * sizes.batch)
    text = Answers(tokens, torch.ones(len(tokens), sizes.length - 1, dtype=torch.bool))
    done = finetune(model, SFT(text, sizes.batch), steps=sizes.steps, lr=rate,
                    generator=torch.Generator().manual_seed(seed))
    report, exact = update_report(start, model, torch.bfloat16), update_report(start, model, torch.float32, tol=0.0)
    floor = predicted_floor(start, done.trace["lr"])
    return {"bf16": report.exact_sparsity, "bf16_inner": report.without().exact_sparsity, "floor": floor.sure,
            "nominal_floor": floor.nominal, "fp32_inner": exact.without().exact_sparsity}
