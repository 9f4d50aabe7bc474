"""Choose the strengths of the sparse MRI experiment, with the same number of trials for every method.

Two slices and two photographs that no experiment judges are sampled and reconstructed; the best mean PSNR wins. Total
variation and wavelets alone try eight strengths a factor of two apart, both together eight pairs, the denoiser eight
noise levels a factor of 1.5 apart. The choice and the
whole table are written beside `sparsepriors.papers.sparse_mri`, which reads them.

    python scripts/tune_sparse_mri.py           # some minutes on two cores
    python scripts/tune_sparse_mri.py plug-and-play    # one method, the others as they are
"""

from __future__ import annotations

import argparse

import torch

from sparsepriors import _files
from sparsepriors.imaging.metrics import psnr
from sparsepriors.papers.sparse_mri import TUNING, TUNING_PHOTOGRAPHS, TUNING_SLICES, cases, measure, reconstruct

SINGLE = tuple((0.00025 * 2**k,) for k in range(8))
PAIRS = tuple((tv, wavelet) for tv in (0.0005, 0.001, 0.002, 0.004) for wavelet in (0.0003, 0.001))
LEVELS = tuple((round(0.0015 * 1.5**k, 6),) for k in range(8))
GRID = {"wavelet": SINGLE, "tv": SINGLE, "tv+wavelet": PAIRS, "plug-and-play": LEVELS}


def main() -> None:
    """Search, choose, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("methods", nargs="*", default=list(GRID), choices=list(GRID))
    methods = parser.parse_args().methods
    kept = _files.read_json(TUNING) if TUNING.exists() else {"tried": {}}
    problems: dict[str, list] = {}
    for i, (z, photograph) in enumerate(zip(TUNING_SLICES, TUNING_PHOTOGRAPHS, strict=True)):
        for number, case in enumerate(cases(z, photograph)):
            y, mask = measure(case, torch.Generator().manual_seed(100_000 + 1000 * number + i))
            problems.setdefault(case.name, []).append((case, y, mask))
    tried: dict[str, dict[str, list[dict]]] = kept["tried"]
    for name, instances in problems.items():
        for method in methods:
            rows = []
            for weights in GRID[method]:
                found = [float(psnr(reconstruct(case, y, mask, method, weights=weights), case.image))
                         for case, y, mask in instances]
                rows.append({"weights": list(weights), "psnr": round(sum(found) / len(found), 3)})
            tried.setdefault(name, {})[method] = rows
            print(name, method, max(rows, key=lambda row: row["psnr"]), flush=True)
    chosen = {name: {method: max(rows, key=lambda row: row["psnr"])["weights"] for method, rows in methods.items()}
              for name, methods in tried.items()}
    _files.write_json(TUNING, {"chosen": chosen, "tried": tried, "slices": list(TUNING_SLICES),
                               "photographs": list(TUNING_PHOTOGRAPHS), "measure": "mean PSNR, dB"})


if __name__ == "__main__":
    main()
