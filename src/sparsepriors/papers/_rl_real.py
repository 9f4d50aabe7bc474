"""The part of the experiment on real checkpoints: the floor of rounding on SmolLM2, and pairs from a user's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsepriors.data import load_smollm2
from sparsepriors.language.analysis.rounding import predicted_floor
from sparsepriors.language.analysis.updates import update_report
from sparsepriors.language.finetune import SFT, Answers, finetune, snapshot
from sparsepriors.runs import Run

_STEPS, _BATCH, _LENGTH = 20, 8, 192
_RATES = (5e-7, 2e-5)   # of reinforcement learning and of imitation, as they are practised


def measure_real(run: Run) -> None:
    """Rows on what the data folder holds: ``before`` and ``after``, two checkpoints, and ``gsm8k/train.jsonl``.

    Raises
    ------
    ValueError
        If the folder holds none of them.
    """
    folder = run.data_dir
    assert folder is not None
    checkpoints, problems = (folder / "before", folder / "after"), folder / "gsm8k" / "train.jsonl"
    if not (all(c.is_dir() for c in checkpoints) or problems.is_file()):
        raise ValueError(f"{folder} must hold checkpoints in before/ and after/, or gsm8k/train.jsonl")
    if all(c.is_dir() for c in checkpoints):
        for row in run.once("checkpoints", lambda: {"rows": _checkpoints(*checkpoints)})["rows"]:
            run.log(part="checkpoints", **row)
    if problems.is_file():
        for rate in _RATES:
            run.log(part="smollm2", rate=rate, steps=_STEPS, **run.once(
                f"smollm2-{rate:g}", lambda rate=rate: _smollm2(problems, rate, run.seed)))


def _checkpoints(before: Path, after: Path) -> list[dict[str, Any]]:
    report = update_report(before, after, "bfloat16", skip_mismatch=True)
    rows = [{"tensor": "all", "bf16": report.exact_sparsity, "within_1e_5": report.sparsity,
             "bf16_inner": report.without().exact_sparsity}]
    return rows + [{"tensor": name, "bf16": share} for name, share in report.by_matrix.items()]


def _smollm2(problems: Path, rate: float, seed: int) -> dict[str, float]:
    """Imitate worked answers for a few steps: what changed in bfloat16 beside the floor that was known before."""
    model, tokenizer = load_smollm2(torch.float32)
    start = snapshot(model)
    model.load_state_dict(start, strict=False)
    model.config.use_cache = False
    given = _texts(problems, tokenizer, _STEPS * _BATCH, seed)
    done = finetune(model, SFT(given, _BATCH), steps=_STEPS, lr=rate, generator=torch.Generator().manual_seed(seed))
    final, floor = snapshot(model, torch.float32), predicted_floor(start, done.trace["lr"])
    return {"bf16": update_report(start, final, torch.bfloat16).exact_sparsity, "floor": floor.sure,
            "nominal_floor": floor.nominal, "loss": done.trace["loss"][-1],
            "fp32": update_report({n: w.float() for n, w in start.items()}, final, tol=0.0).exact_sparsity}


def _texts(path: Path, tokenizer: Any, count: int, seed: int) -> Answers:
    """Questions with worked answers, cut or padded to one length."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    order = torch.randperm(len(lines), generator=torch.Generator().manual_seed(seed))[:count].tolist()
    tokens = torch.zeros(count, _LENGTH, dtype=torch.int64)
    mask = torch.zeros(count, _LENGTH - 1, dtype=torch.bool)
    for row, i in enumerate(order):
        question = tokenizer(f"Question: {lines[i]['question']}\nAnswer: ")["input_ids"][:_LENGTH // 2]
        answer = tokenizer(lines[i]["answer"])["input_ids"][:_LENGTH - len(question)]
        text: Tensor = torch.tensor(question + answer)
        tokens[row, :len(text)] = text
        mask[row, len(question) - 1:len(text) - 1] = True
    return Answers(tokens, mask)
