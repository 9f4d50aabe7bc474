"""What a fine-tuning changed, read tensor by tensor, beside differences of two whole models held at once.

The peer does what the script published with arXiv:2505.11711 does: it holds both models and one tensor of all their
differences. Both sides give the same shares. Checkpoints are files that the system has in memory, so that no disk is
timed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from _paired import command, paired, row, time_row

from sparsepriors import _files
from sparsepriors.language import update_report
from sparsepriors.runs.machine import peak_rss_mb, reset_peak_rss


def checkpoints(folder: Path, matrices: int, shape: tuple[int, int]) -> tuple[Path, Path]:
    """Two folders of shards, four matrices in each file."""
    generator = torch.Generator().manual_seed(0)
    for first in range(0, matrices, 4):
        before = {f"layers.{i}.weight": 0.05 * torch.randn(shape, generator=generator) for i in range(first, first + 4)}
        after = {n: w + 1e-4 * torch.randn(shape, generator=generator) for n, w in before.items()}
        for kind, weights in (("before", before), ("after", after)):
            _files.write_tensors(folder / kind / f"model-{first:03d}.safetensors",
                                 {n: w.bfloat16() for n, w in weights.items()})
    return folder / "before", folder / "after"


def whole(before: Path, after: Path) -> tuple[float, float]:
    """Shares of equal entries and of those within 1e-5, with everything in memory."""
    models = [{n: w for path in sorted(folder.glob("*.safetensors")) for n, w in _files.read_tensors(path).items()}
              for folder in (before, after)]
    deltas = torch.cat([(models[1][n] - w).view(-1) for n, w in models[0].items()])
    zeros = torch.zeros_like(deltas)
    return (int((deltas == 0).sum()) / len(deltas),
            int(torch.isclose(deltas, zeros, atol=1e-5).sum()) / len(deltas))


def peak(call: Any) -> float:
    """Megabytes that a call adds to the most that the process held."""
    reset_peak_rss()
    before = peak_rss_mb()
    call()
    return max(peak_rss_mb() - before, 0.1)


def measure(quick: bool) -> list[dict[str, Any]]:
    shape, matrices = ((64, 256), 8) if quick else ((1024, 4096), 24)
    with tempfile.TemporaryDirectory() as name:
        pair = checkpoints(Path(name), matrices, shape)

        def ours() -> tuple[float, float]:
            report = update_report(*pair)
            return report.exact_sparsity, report.sparsity

        assert ours() == whole(*pair)
        case = f"{matrices} x {shape[0]} x {shape[1]}, bfloat16"
        memory = peak(ours), peak(lambda: whole(*pair))
        return [time_row(case, "two whole models", paired(ours, lambda: whole(*pair), pairs=7, budget=30)),
                row(case, "memory (MB)", round(memory[0], 1), "two whole models", round(memory[1], 1),
                    round(memory[1] / memory[0], 2))]


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print and write the rows."""
    return command("updates", __doc__ or "", measure, ["--threads", "1", *(arguments or [])])


if __name__ == "__main__":
    main(sys.argv[1:])
