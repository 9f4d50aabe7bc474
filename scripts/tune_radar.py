"""Choose alpha, kappa and the number of iterations for each radar prior, with the same effort for every one.

Two scenes that no experiment uses are measured at 30 dB, and at 10 dB for the priors that are compared there, on the
21 x 21 x 25 grid with 5 frequencies. For each prior the same number of values of alpha, kappa and iterations is tried;
the best mean PSNR wins. Settings and the whole table are written beside `sparsepriors.imaging.radar`, which reads them.

    python scripts/tune_radar.py                # about half an hour on two cores
    python scripts/tune_radar.py network        # one prior, the others as they are
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from typing import Any

import torch

from sparsepriors import _files
from sparsepriors.data.radar import random_blobs, simulate
from sparsepriors.imaging.radar import PRIORS, TUNING, magnitude_psnr, named_prior
from sparsepriors.operators.radar import BornMIMO
from sparsepriors.solvers import State, csalsa

SCENES = (1000, 1001)
SHAPE, FREQUENCIES = (21, 21, 25), 5
SNRS = {"network": (30.0, 10.0), "l1": (30.0, 10.0), "tv": (30.0,), "tv-inexact": (30.0,)}
KAPPA_RATIOS = (0.15, 0.5, 1.5)
ALPHAS = {"network": (1.2e-3, 2.5e-3, 5e-3, 1e-2), "l1": (0.03, 0.1, 0.3, 1.0), "tv": (1e-4, 1e-3, 3e-3, 1e-2),
          "tv-inexact": (1e-3, 1e-2, 3e-2, 0.1)}
STOPS = {"network": (30, 60, 100), "l1": (30, 60, 100), "tv": (10, 20, 50), "tv-inexact": (10, 20, 50)}


def try_all(prior: str, snr_db: float, kappa_ratio: float) -> list[dict[str, float]]:
    """Mean PSNR of the scenes for every alpha and number of iterations; all alphas run as one batch."""
    op = BornMIMO.crossed(SHAPE, FREQUENCIES)
    sims, truth = [], []
    for seed in SCENES:
        generator = torch.Generator().manual_seed(seed)
        truth.append(random_blobs(1, SHAPE, generator))
        sims.append(simulate(truth[-1], op, snr_db=snr_db, generator=generator))
    alphas, stops = ALPHAS[prior], STOPS[prior]
    target = torch.cat(truth).repeat(len(alphas), 1, 1, 1)
    found: dict[int, torch.Tensor] = {}

    def measure(state: State) -> None:
        if state.iteration in stops:
            found[state.iteration] = magnitude_psnr(state.x, target).reshape(len(alphas), len(SCENES)).mean(1)

    csalsa(op, torch.cat([s.y for s in sims]).repeat(len(alphas), 1, 1, 1), named_prior(prior),
           eps=torch.cat([s.eps for s in sims]).repeat(len(alphas)), kappa=kappa_ratio * op.mean_diagonal(),
           alpha=torch.tensor(alphas).repeat_interleave(len(SCENES)), max_iter=stops[-1], tol=1e-6, callback=measure)
    return [{"alpha": a, "kappa_ratio": kappa_ratio, "max_iter": n, "psnr": round(float(found[n][i]), 3)}
            for (i, a), n in product(enumerate(alphas), stops)]


def main() -> None:
    """Search, choose, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("priors", nargs="*", default=list(PRIORS), choices=PRIORS)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for prior in args.priors:
        tried, chosen = {}, {}
        for snr_db in SNRS[prior]:
            start = time.perf_counter()
            rows = [row for ratio in KAPPA_RATIOS for row in try_all(prior, snr_db, ratio)]
            best = max(rows, key=lambda row: row["psnr"])
            tried[f"{snr_db:g}"] = rows
            chosen[f"{snr_db:g}"] = {k: best[k] for k in ("alpha", "kappa_ratio", "max_iter")}
            print(f"{prior} at {snr_db:g} dB: {best}  ({time.perf_counter() - start:.0f} s)", flush=True)
        kept: dict[str, Any] = _files.read_json(TUNING) if TUNING.exists() else {"chosen": {}, "tried": {}}
        kept["chosen"][prior], kept["tried"][prior] = chosen, tried
        kept["scenes"] = {"seeds": list(SCENES), "grid": list(SHAPE), "frequencies": FREQUENCIES,
                          "measure": "mean PSNR of the magnitude divided by its maximum, dB"}
        _files.write_json(TUNING, kept)


if __name__ == "__main__":
    main()
