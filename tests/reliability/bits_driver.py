"""Print a digest of each of several computations. Arguments: threads, and a folder for the run of an experiment."""

import hashlib
import json
import sys
from pathlib import Path

import torch

from sparsepriors import kernels, papers
from sparsepriors.data.radar import random_blobs, simulate
from sparsepriors.imaging.radar import reconstruct
from sparsepriors.operators.radar import BornMIMO, VoxelGrid, crossed_array
from sparsepriors.priors import NM, TV, Unstructured
from sparsepriors.runs import Scale
from sparsepriors.runs.execute import execute


def digest(*tensors: torch.Tensor) -> str:
    return hashlib.sha256(b"".join(t.contiguous().numpy().tobytes() for t in tensors)).hexdigest()


def radar() -> tuple[BornMIMO, torch.Tensor, torch.Tensor]:
    grid = VoxelGrid.box((-0.1, -0.1, 0.4), (0.1, 0.1, 0.6), (9, 9, 12))
    op = BornMIMO(torch.linspace(4e9, 16e9, 37), *crossed_array(5, 6), grid)
    seen = simulate(random_blobs(1, grid.shape, torch.Generator().manual_seed(3))[0], op, snr_db=20.0,
                    generator=torch.Generator().manual_seed(4))
    return op, seen.y, torch.randn(grid.shape, dtype=op.dtype, generator=torch.Generator().manual_seed(5))


def main(threads: int, folder: Path) -> None:
    torch.set_num_threads(threads)
    g = torch.Generator().manual_seed(1)
    scores, picture = torch.randn(3, 50_000, generator=g), torch.rand(2, 40, 50, generator=g)
    op, y, x = radar()
    found = {
        "born_forward": digest(op(x)), "born_adjoint": digest(op.adjoint(y)),
        "topk_mask": digest(kernels.topk_mask(scores, 12_345)), "nm_mask": digest(kernels.nm_mask(scores, 2, 4)),
        "patterns": digest(Unstructured(0.3).mask(scores), NM(1, 4).mask(scores)),
    }
    # What torch's own threads may change in the last bit is promised for equal thread counts only.
    found["prox"] = digest(TV(0.1).prox(picture))
    found["network"] = digest(reconstruct(y, op, "network", snr_db=20.0, max_iter=5).x)
    at = execute(papers.from_file(Path(__file__).with_name("real_paper.py")), folder, scale=Scale.SMOKE, seed=0)
    found |= {name: hashlib.sha256((at / name).read_bytes()).hexdigest() for name in ("rows.json", "claims.json")}
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
