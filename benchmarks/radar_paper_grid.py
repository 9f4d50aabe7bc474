"""The paper's own radar grid: one scene, 25 x 25 x 49 voxels, 20 frequencies, every method, in one process.

    python benchmarks/radar_paper_grid.py

Each row compares a method with l1 on the same measurement: PSNR of the magnitude, and seconds. The last row is the
peak memory of the process in MiB; the peer's value there is that of the dense matrix A in complex64 alone.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch

from sparsepriors import _files
from sparsepriors.data.radar import random_blobs, simulate
from sparsepriors.imaging.radar import MIGRATIONS, magnitude_psnr, migrate, reconstruct
from sparsepriors.operators.radar import BornMIMO
from sparsepriors.runs.machine import machine, peak_rss_mb

SHAPE, FREQUENCIES, SNR_DB, SEED = (25, 25, 49), 20, 30.0, 0
MEMORY_TARGET_MIB = 2048


def main() -> None:
    """Image the scene with every method and write the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/radar_paper_grid.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    generator = torch.Generator().manual_seed(SEED)
    op = BornMIMO.crossed(SHAPE, FREQUENCIES)
    truth = random_blobs(1, SHAPE, generator)[0]
    data = simulate(truth, op, snr_db=SNR_DB, generator=generator)
    found: dict[str, tuple[float, float]] = {}
    for method in ("l1", *MIGRATIONS, "tv-inexact", "tv", "network"):
        start = time.perf_counter()
        if method in MIGRATIONS:
            x = migrate(data.y, op, method)
        else:
            x = reconstruct(data.y, op, method, eps=data.eps, scale=1.0, tol=1e-6).x
        seconds = time.perf_counter() - start
        found[method] = float(magnitude_psnr(x, truth)), seconds
        print(f"{method:15} {found[method][0]:6.2f} dB {seconds:8.1f} s", flush=True)
    rows = []
    for method, (psnr, seconds) in found.items():
        if method == "l1":
            continue
        # One decibel more counts as a ratio of 1.26, the power ratio that it is.
        rows.append({"case": f"{method}, 25x25x49, K = 20", "metric": "PSNR (dB)", "ours": round(psnr, 2), "peer": "l1",
                     "peer_value": round(found["l1"][0], 2), "ratio": round(10 ** ((psnr - found["l1"][0]) / 10), 2),
                     "target": None})
        rows.append({"case": f"{method}, 25x25x49, K = 20", "metric": "seconds", "ours": round(seconds, 2),
                     "peer": "l1", "peer_value": round(found["l1"][1], 2),
                     "ratio": round(found["l1"][1] / seconds, 2), "target": None})
    dense = math.prod(op.out_shape) * math.prod(SHAPE) * 8 / 2**20
    peak = peak_rss_mb() * 1e6 / 2**20
    rows.append({"case": "all methods, 25x25x49, K = 20", "metric": "peak memory (MiB)", "ours": round(peak),
                 "peer": "dense A alone", "peer_value": round(dense), "ratio": round(dense / peak, 2),
                 "target": round(dense / MEMORY_TARGET_MIB, 2)})
    print(f"peak {peak:.0f} MiB; the dense matrix alone would be {dense:.0f} MiB")
    _files.write_json(args.out, {"machine": machine(), "threads": args.threads, "rows": rows})


if __name__ == "__main__":
    main()
