"""Choose the strengths of the sparse MRI experiment, with the same number of trials for every method.

Two slices and two photographs that no experiment judges are sampled and reconstructed; the best mean PSNR wins. Total
variation and wavelets alone try eight strengths a factor of two apart, both together eight pairs. The choice and the
whole table are written beside `sparsepriors.papers.sparse_mri`, which reads them.

    python scripts/tune_sparse_mri.py           # some minutes on two cores
"""

from __future__ import annotations

import torch

from sparsepriors import _files
from sparsepriors.imaging import mri
from sparsepriors.imaging.metrics import psnr
from sparsepriors.papers.sparse_mri import TUNING, TUNING_PHOTOGRAPHS, TUNING_SLICES, cases, measure

SINGLE = tuple((0.00025 * 2**k,) for k in range(8))
PAIRS = tuple((tv, wavelet) for tv in (0.0005, 0.001, 0.002, 0.004) for wavelet in (0.0003, 0.001))
GRID = {"wavelet": SINGLE, "tv": SINGLE, "tv+wavelet": PAIRS}


def main() -> None:
    """Search, choose, write."""
    problems: dict[str, list] = {}
    for i, (z, photograph) in enumerate(zip(TUNING_SLICES, TUNING_PHOTOGRAPHS, strict=True)):
        for number, case in enumerate(cases(z, photograph)):
            y, mask = measure(case, torch.Generator().manual_seed(100_000 + 1000 * number + i))
            problems.setdefault(case.name, []).append((case, y, mask))
    tried: dict[str, dict[str, list[dict]]] = {}
    for name, instances in problems.items():
        tried[name] = {}
        for method, grid in GRID.items():
            rows = []
            for weights in grid:
                found = [float(psnr(mri.reconstruct(y, mask, method, real=case.real, weights=weights).x, case.image))
                         for case, y, mask in instances]
                rows.append({"weights": list(weights), "psnr": round(sum(found) / len(found), 3)})
            tried[name][method] = rows
            print(name, method, max(rows, key=lambda row: row["psnr"]), flush=True)
    chosen = {name: {method: max(rows, key=lambda row: row["psnr"])["weights"] for method, rows in methods.items()}
              for name, methods in tried.items()}
    _files.write_json(TUNING, {"chosen": chosen, "tried": tried, "slices": list(TUNING_SLICES),
                               "photographs": list(TUNING_PHOTOGRAPHS), "measure": "mean PSNR, dB"})


if __name__ == "__main__":
    main()
