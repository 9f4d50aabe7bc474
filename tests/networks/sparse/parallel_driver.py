"""One process of data-parallel sparse trainings: rank, processes, meeting file, output, cases PRESET:PARTS."""

from __future__ import annotations

import contextlib
import sys

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from sparse_nets import STEPS, batch, network, optimizer_of, plan_of
from sparsepriors import _files
from sparsepriors.networks.sparse import Sparsifier


def trained(rank: int, processes: int, preset: str, parts: int) -> dict[str, Tensor]:
    """Every mask after every step, the weights at the end, and the books."""
    model = network("mlp").double()
    optimizer = optimizer_of(model)
    # The processes' generators differ: what is drawn must still be the same.
    sparsifier = Sparsifier(model, plan_of(preset), optimizer, total_steps=STEPS,
                            generator=torch.Generator().manual_seed(7 + rank))
    parallel = DistributedDataParallel(model)
    history: dict[str, Tensor] = {}
    for step in range(STEPS):
        optimizer.zero_grad()
        x, y = (t.chunk(processes)[rank] for t in batch(step))
        chunks = list(zip(x.double().chunk(parts), y.chunk(parts), strict=True))
        for i, (rows, labels) in enumerate(chunks):
            last = i == len(chunks) - 1
            with contextlib.nullcontext() if last else parallel.no_sync():
                (nn.functional.cross_entropy(parallel(rows), labels) / parts).backward()
        optimizer.step()
        history |= {f"{step}/{n}": m.clone() for n, m in sparsifier.masks.items()}
    report = sparsifier.finalize()
    history |= {f"weights/{n}": p.detach() for n, p in model.named_parameters()}
    history["books"] = torch.tensor([report.fired, report.always, report.churn, report.density], dtype=torch.float64)
    return history


def main(rank: int, processes: int, meeting: str, out: str, cases: list[str]) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes)
    found: dict[str, Tensor] = {}
    for case in cases:
        preset, parts = case.split(":")
        found |= {f"{case}/{k}": v for k, v in trained(rank, processes, preset, int(parts)).items()}
    _files.write_tensors(out, found)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5:])
