"""Decoding with a pruned language model on packed N:M weights against the same model with its zeros stored.

    python benchmarks/decoder.py

SmolLM2-135M is pruned by magnitude, which costs no calibration; how fast it runs does not depend on which weights are
left. A step reads one token after a prompt of 64 and predicts the next, head and attention included, as ``generate``
does without its bookkeeping. Memory counts parameters and buffers, tied ones once, and a file is what safetensors
writes of them. One thread, except in the rows on two.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch
from _paired import command, paired, row, time_row
from torch import Tensor, nn
from transformers import DynamicCache

from sparsepriors import _files
from sparsepriors.data import load_smollm2
from sparsepriors.language import prune_blocks
from sparsepriors.language.stand_in import stand_in
from sparsepriors.networks import pack_nm_model
from sparsepriors.priors import NM

PROMPT, STEPS = 64, 8
PATTERNS = ((2, 4), (4, 8), (1, 4))
DTYPES = (torch.float32, torch.bfloat16)


class Decoding:
    """A model that has read a prompt, and reads some tokens after it as often as it is called."""

    def __init__(self, model: Any, ids: Tensor) -> None:
        self.model, self.ids = model, ids
        self.cache = DynamicCache(config=model.config)
        self.logits = self._read(ids[:, :PROMPT])

    def __call__(self) -> None:
        for i in range(STEPS):
            self.logits = self._read(self.ids[:, PROMPT + i:PROMPT + i + 1])
        self.cache.crop(-STEPS)

    def _read(self, ids: Tensor) -> Tensor:
        return self.model(ids, cache=self.cache, use_cache=True, logits_to_keep=1).logits[0, -1]


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, those that are tied once."""
    held = {t.data_ptr(): (name, t) for name, t in (*model.named_parameters(), *model.named_buffers())}
    return dict(held.values())


def same(case: str, ours: Tensor, peer: Tensor) -> None:
    """Raise unless both predict the same, to rounding."""
    error = float((ours.double() - peer.double()).abs().max() / peer.double().abs().max())
    if not error < (1e-4 if ours.dtype == torch.float32 else 0.05):
        raise AssertionError(f"{case}: logits differ by {error:g} of the largest")


def size_rows(case: str, packed: nn.Module, dense: nn.Module) -> list[dict[str, Any]]:
    """Memory, and what is written to a file."""
    mine, theirs = tensors(packed), tensors(dense)
    held = [sum(t.nbytes for t in side.values()) for side in (mine, theirs)]
    with tempfile.TemporaryDirectory() as folder:
        written = [_files.write_tensors(Path(folder) / "a.safetensors", side).stat().st_size for side in (mine, theirs)]
    return [row(case, metric, round(a / 1e6, 2), "zeros stored", round(b / 1e6, 2), round(b / a, 3))
            for metric, (a, b) in (("MB of memory", held), ("MB of a file", written))]


def against_dense(model: Any, ids: Tensor, n: int, m: int, threads: int, *, sizes: bool) -> list[dict[str, Any]]:
    dense = copy.deepcopy(model)
    prune_blocks(dense, NM(n, m))
    packed = copy.deepcopy(dense)
    pack_nm_model(packed, n, m)
    case = f"one token, {n}:{m}, {str(model.dtype)[6:]}" + (f", {threads} threads" if threads > 1 else "")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ours, peer = Decoding(packed, ids), Decoding(dense, ids)
        ours()
        peer()
        same(case, ours.logits, peer.logits)
        found = paired(ours, peer, pairs=9, budget=20.0)
    finally:
        torch.set_num_threads(before)
    timed = time_row(case, "zeros stored", found)
    for field in ("ours", "peer_value", "first_call", "second_call"):
        timed[field] = round(timed[field] / STEPS, 3)
    a, b = (STEPS / median(side) for side in (found.ours, found.peer))
    rate = row(case, "tokens/s", round(a, 2), "zeros stored", round(b, 2), timed["ratio"])
    return [timed, rate, *(size_rows(case, packed, dense) if sizes else [])]


@torch.inference_mode()
def measure(quick: bool) -> list[dict[str, Any]]:
    rows = []
    for dtype in DTYPES:
        model: Any = (stand_in(dtype=dtype) if quick else load_smollm2(dtype))[0]
        ids = torch.randint(5, 200, (1, PROMPT + STEPS), generator=torch.Generator().manual_seed(0))
        for n, m in PATTERNS[:1 if quick else None]:
            rows += against_dense(model, ids, n, m, 1, sizes=True)
        rows += against_dense(model, ids, *PATTERNS[0], 2, sizes=False)
    return rows


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print and write the rows."""
    return command("decoder", __doc__ or "", measure, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
